"""The MLX engine beside `mlx_lm.server` and mlx-lm itself: `python -m tests.bench.mlx [ROUNDS]`,
which is `make bench-mlx`.

Both servers hold the same models at the same time and are asked in turns, so that both have the
same share of a busy machine. Medians, unless said otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.bench import mlx_models
from tests.e2e.daemon import serving

ROUNDS = 5
STREAMS, STREAM_TOKENS = 8, 48
SINGLE_TOKENS = 96
PREFIX_TOKENS, TURNS = 8000, 20
LONG_TOKENS, LISTENER_TOKENS = 4000, 600
SECONDS = 1800.0

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "read_file",
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
    },
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 40}}}


@dataclass(slots=True)
class Heard:
    """When the request was sent, seconds from then to every piece of the answer, and what it said
    of tokens."""

    began: float = 0.0
    times: list[float] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)

    @property
    def first(self) -> float:
        return self.times[0]

    def gaps(self, start: float, end: float) -> list[float]:
        """Between pieces, of which one lies between `start` and `end`."""
        times = [self.began + seconds for seconds in self.times]
        return [b - a for a, b in pairwise(times) if b > start and a < end]

    @property
    def cached_share(self) -> float:
        cached = (self.usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        return float(cached) / float(self.usage["prompt_tokens"])


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    port: int
    models: dict[str, str]

    def ask(self, model: str, messages: Sequence[dict[str, Any]], **fields: Any) -> Heard:
        body = {
            "model": self.models[model],
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0,
            **fields,
        }
        to = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        with contextlib.closing(to):
            heard = Heard(began=time.perf_counter())
            to.request(
                "POST",
                "/v1/chat/completions",
                json.dumps(body),
                {"content-type": "application/json"},
            )
            answer = to.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"{self.name}: {answer.status} {answer.read()[:300]!r}")
            for line in answer:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                heard.usage = event.get("usage") or heard.usage
                if any(_says_something(choice) for choice in event.get("choices", ())):
                    heard.times.append(time.perf_counter() - heard.began)
        return heard


def _says_something(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta") or {}
    return any(
        delta.get(key) for key in ("content", "reasoning_content", "reasoning", "tool_calls")
    )


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    load = ", ".join(f"{n:.2f}" for n in os.getloadavg())
    print(f"load average {load}, {rounds} rounds", flush=True)
    with tempfile.TemporaryDirectory(prefix="router-bench-") as scratch:
        root = Path(scratch, "models")
        for name, config in (("dense", mlx_models.DENSE), ("hybrid", mlx_models.HYBRID)):
            mlx_models.write(root / name, config)
        asyncio.run(_one_stream(root / "dense", rounds))
        with _peers(root, "dense") as peers:
            _many_streams(peers, rounds)
            _gap(peers, rounds)
            _session(peers, "dense")
        with _peers(root, "hybrid") as peers:
            _session(peers, "hybrid")
    load = ", ".join(f"{n:.2f}" for n in os.getloadavg())
    print(f"load average {load}")


@contextlib.contextmanager
def _peers(root: Path, model: str) -> Iterator[tuple[Peer, Peer]]:
    """Ours, and mlx-lm's, with one model loaded."""
    port = _free_port()
    command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(root / model)]
    theirs = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--log-level", "ERROR"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with serving(root, flags=("--parallel", str(STREAMS))) as daemon:
            ours = Peer("router", int(daemon.url.rsplit(":", 1)[1]), {model: model})
            other = Peer("mlx_lm.server", port, {model: "default_model"})
            _await(port)
            for peer in (ours, other):
                peer.ask(model, _question("warm up"), max_tokens=4)
            yield ours, other
    finally:
        theirs.terminate()
        theirs.wait()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _await(port: int) -> None:
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)


def _question(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


# One stream


async def _one_stream(folder: Path, rounds: int) -> None:
    """The engine by itself, beside the generator that it is built on, in one process."""
    from mlx_lm.utils import load

    from backends.mlx.engine import Engine
    from backends.mlx.options import EngineOptions
    from backends.mlx.thread import EngineThread
    from backends.wire.request import GenerationRequest, Sampling

    engine = Engine("dense", folder, EngineOptions(max_rows=STREAMS), thread=EngineThread())
    await engine.load()
    network, tokenizer = load(str(folder), {"trust_remote_code": False})[:2]
    request = GenerationRequest(
        prompt="Polly wants", max_tokens=SINGLE_TOKENS, sampling=Sampling(temperature=0.0)
    )

    async def ours() -> float:
        return _rate([time.perf_counter() async for _ in engine.generate(request)])

    def theirs() -> float:
        from mlx_lm.generate import stream_generate

        steps = stream_generate(network, tokenizer, "Polly wants", max_tokens=SINGLE_TOKENS)
        return _rate([time.perf_counter() for _ in steps])

    pairs = [(await ours(), theirs()) for _ in range(rounds)][1:] or [(await ours(), theirs())]
    _compare("one stream, tokens/s", pairs, "aim: at least 0.98", "stream_generate")
    await engine.close()


def _rate(times: list[float]) -> float:
    return (len(times) - 1) / (times[-1] - times[0])


# Many streams


def _many_streams(peers: tuple[Peer, Peer], rounds: int) -> None:
    plain = _turns(peers, rounds, lambda peer, turn: _together(peer, turn))
    _compare("8 streams, tokens/s", plain, "aim: at least 1.00", "mlx_lm.server")
    for name, fields in (
        ("with a seed each", {"temperature": 1.0}),
        ("with response_format", {"response_format": _json_schema()}),
        ("with tools", {"tools": [TOOL]}),
    ):
        seeded = name == "with a seed each"
        rates = [
            (_together(peers[0], turn, seeded=seeded, **fields), _together(peers[0], turn))
            for turn in range(max(2, rounds - 2))
        ]
        _compare(f"8 streams {name}, tokens/s", rates, "", "without")


def _json_schema() -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}


def _together(peer: Peer, turn: int, *, seeded: bool = False, **fields: Any) -> float:
    """Tokens a second of all streams, from the first request to the last token."""
    heard: list[Heard] = []

    def one(number: int) -> None:
        seed = {"seed": number} if seeded else {}
        question = _question(f"Say {turn} and {number}")
        heard.append(peer.ask("dense", question, max_tokens=STREAM_TOKENS, **seed, **fields))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(STREAMS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tokens = sum(int(one.usage["completion_tokens"]) for one in heard)
    return tokens / (time.perf_counter() - began)


def _gap(peers: tuple[Peer, Peer], rounds: int) -> None:
    """How long one who listens waits for a token, while a prompt of somebody else is read."""

    def worst(peer: Peer, turn: int) -> float:
        with ThreadPoolExecutor(1) as pool:
            listening = pool.submit(
                peer.ask, "dense", _question(f"Go on {turn}"), max_tokens=LISTENER_TOKENS
            )
            time.sleep(1.0)
            long = peer.ask("dense", _question(_text(LONG_TOKENS, seed=turn)), max_tokens=1)
            gaps = listening.result().gaps(long.began, long.began + long.first)
        return statistics.quantiles([*gaps, gaps[-1]], n=100, method="inclusive")[-1] * 1000

    pairs = _turns(peers, max(2, rounds - 2), worst)
    _compare(
        f"p99 gap while {LONG_TOKENS} tokens are read, ms", pairs, "aim: at most 0.50",
        "mlx_lm.server",
    )  # fmt: skip


# A session


def _session(peers: tuple[Peer, Peer], model: str) -> None:
    """Turns of a recorded conversation with tools, each sent with all that was before; then short
    questions after the same beginning, of which next to nothing has to be read."""
    turns: dict[str, list[Heard]] = {peer.name: [] for peer in peers}
    short: dict[str, list[Heard]] = {peer.name: [] for peer in peers}
    for turn in range(TURNS):
        for peer in peers:
            messages = _conversation(turn)
            turns[peer.name].append(peer.ask(model, messages, tools=[TOOL], max_tokens=2))
    for turn in range(TURNS):
        for peer in peers:
            messages = _beginning(f"Mend {turn}.")
            short[peer.name].append(peer.ask(model, messages, tools=[TOOL], max_tokens=2))
    cold = {name: heard[0].first for name, heard in turns.items()}
    length = turns[peers[0].name][0].usage["prompt_tokens"]
    shares = {name: min(one.cached_share for one in heard[1:]) for name, heard in turns.items()}
    print(f"{model}, first token of {length} tokens, ms: {_each(cold, 1000)}")
    print(f"  cached of {TURNS - 1} turns, at least: {_each(shares)}   aim: 0.95")
    _first_tokens(f"  of {TURNS - 1} turns, ms", {n: heard[1:] for n, heard in turns.items()}, cold)
    _first_tokens(f"  of {TURNS} short questions, ms", short, cold, "aim: at least 50")


def _first_tokens(
    what: str, heard: dict[str, list[Heard]], cold: dict[str, float], aim: str = ""
) -> None:
    """Medians, how much faster than a cold prompt, and ours as a share of theirs."""
    warm = {name: statistics.median(one.first for one in all_) for name, all_ in heard.items()}
    faster = {name: cold[name] / seconds for name, seconds in warm.items()}
    ours, theirs = ([one.first for one in all_] for all_ in heard.values())
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    print(f"{what}: {_each(warm, 1000)}   ratio {ratio:.2f}   aim: at most 1.00")
    print(f"{'':{len(what)}}  times as fast as cold: {_each(faster)}   {aim}", flush=True)


def _each(figures: dict[str, float], scale: float = 1) -> str:
    return "   ".join(f"{name} {scale * figure:9.3f}" for name, figure in figures.items())


def _beginning(words: str) -> list[dict[str, Any]]:
    return [
        {"role": "system", "content": _text(PREFIX_TOKENS, seed=1)},
        {"role": "user", "content": words},
    ]


def _conversation(turn: int) -> list[dict[str, Any]]:
    messages = _beginning("Mend the test that fails.")
    for past in range(turn):
        call = {"name": "read_file", "arguments": json.dumps({"path": f"src/file{past}.py"})}
        messages += [
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": f"call_{past}", "type": "function", "function": call}],
            },
            {"role": "tool", "tool_call_id": f"call_{past}", "content": _text(60, seed=past)},
        ]
    return messages


def _text(tokens: int, seed: int) -> str:
    """About so many tokens, of words that no other seed has."""
    import random

    letters = random.Random(seed)
    return " ".join(
        "".join(letters.choices("abcdefghijklmnop", k=3)) for _ in range(max(1, tokens // 4))
    )


# Comparing


def _turns(
    peers: tuple[Peer, Peer], rounds: int, measure: Callable[[Peer, int], float]
) -> list[tuple[float, float]]:
    return [(measure(peers[0], turn), measure(peers[1], turn)) for turn in range(rounds)]


def _compare(what: str, pairs: Sequence[tuple[float, float]], aim: str, other: str) -> None:
    ours, theirs = (statistics.median(values) for values in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(
        f"{what:<44} router {ours:8.1f}   {other} {theirs:8.1f}   ratio {ratio:5.2f}   {aim}",
        flush=True,
    )


if __name__ == "__main__":
    main()
