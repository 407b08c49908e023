"""The MLX engine under random load: `python -m tests.lifecycle.mlx_load SECONDS [SEED]`, which is
`make mlx-load`. Nothing grows, nobody is stuck, and what is said stays right.

The engine runs in this process, with a dense model and one whose state cannot be trimmed, on one
engine thread, as in the daemon.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil

from backends.errors import BadRequestError
from backends.mlx import library
from backends.mlx.engine import SUPPORTED, Engine
from backends.mlx.model import give_back_memory
from backends.mlx.options import EngineOptions
from backends.mlx.thread import EngineThread
from backends.wire.events import TextDelta
from backends.wire.request import GenerationRequest, parse
from tests.bench import mlx_models
from tests.lifecycle.check import Check, none, report
from tests.tiny import dialogues as d
from tests.tiny.variants import build
from tests.waiting import until

CLIENTS = 6
PREFIX_BYTES = 24 * 2**20
WARM_UP_SHARE = 0.4
"""Until then caches fill."""
GROWTH_MIB = 48.0
"""Of resident memory from the warm-up to the end: allocators breathe."""

RECITED = {d.QUESTION: d.SENTENCE, d.FOOD_QUESTION: d.FOOD}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


class Load:
    """Clients that ask and leave at random, until `seconds` are over."""

    def __init__(self, parrot: Engine, hybrid: Engine, seed: int) -> None:
        self.engines = (parrot, hybrid)
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.memory: list[tuple[float, float, int]] = []
        """Seconds, resident MiB and bytes that MLX holds."""
        self._random = random.Random(seed)
        self._began = time.monotonic()

    async def run(self, seconds: float) -> None:
        end = self._began + seconds
        clients = [self._client(end) for _ in range(CLIENTS)]
        await asyncio.gather(self._measure(end), *clients)

    async def _client(self, end: float) -> None:
        while time.monotonic() < end:
            await self._one()

    async def _one(self) -> None:
        chance, engine = self._random, self._random.choice(self.engines)
        question = chance.choice([*RECITED, d.SONG_QUESTION, d.WEATHER_QUESTION])
        fields, plain = _fields(chance)
        leaves_after = chance.choice([None, None, None, 0, 1, 5, 20])
        said = ""
        try:
            request = _request(chance, question, fields)
            async with aclosing(engine.generate(request)) as events:
                count = 0
                async for event in events:
                    said += event.text if isinstance(event, TextDelta) else ""
                    count += 1
                    if count == leaves_after:
                        self.counts["left"] += 1
                        return
        except BadRequestError:
            self.counts["refused"] += 1
            return
        self.counts["answered"] += 1
        if engine is self.engines[0] and plain and question in RECITED:
            self.counts["recited"] += 1
            if said != RECITED[question]:
                self.wrong.append(said)

    async def _measure(self, end: float) -> None:
        process, mx = psutil.Process(), library.load("mlx.core")
        while time.monotonic() < end:
            await asyncio.sleep(min(1.0, max(0.1, end - time.monotonic())))
            resident = process.memory_info().rss / 2**20
            self.memory.append((time.monotonic() - self._began, resident, mx.get_active_memory()))


def _fields(chance: random.Random) -> tuple[dict[str, Any], bool]:
    """Of a request, and whether its answer is the one that was trained."""
    kind = chance.randrange(8)
    if kind == 0:
        return {"temperature": 1.0, "seed": chance.randrange(5)}, False
    if kind == 1:
        schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
        return {"response_format": schema, "max_tokens": 24}, False
    if kind == 2:
        return {"n": 3, "logprobs": True, "top_logprobs": 4, "max_tokens": 12}, False
    if kind == 3:
        return {"repetition_penalty": 1.3, "logit_bias": {"5": 2}, "max_tokens": 30}, False
    if kind == 4:
        return {"tools": [d.WEATHER_TOOL], "max_tokens": 30}, False
    if kind == 5:
        return {"top_p": 2}, False
    return {"max_tokens": 60}, True


def _request(chance: random.Random, question: str, fields: dict[str, Any]) -> GenerationRequest:
    """Some bring a long conversation, of which there are a few."""
    messages = [d.user(question)]
    if "max_tokens" in fields and chance.random() < 0.2 and fields["max_tokens"] < 60:
        past = d.system("You are a parrot of the sea. " * chance.choice([10, 40, 80]))
        messages = [past, *messages]
    body = {"messages": messages, "temperature": 0, "max_tokens": 40, **fields}
    return parse(json.dumps(body).encode(), chat=True, engine="mlx", supported=SUPPORTED)


async def _loaded(seconds: float, seed: int, root: Path) -> list[Check]:
    thread = EngineThread()
    before = await thread.call(library.load("mlx.core").get_active_memory)
    folders = (
        build("mlx-4bit", root / "parrot"),
        mlx_models.write(root / "hybrid", mlx_models.HYBRID),
    )
    options = EngineOptions(
        max_rows=4, context_length=2048, prefix_bytes=PREFIX_BYTES,
        disk_folder=root / "prompts", disk_bytes=64 * 2**20,
    )  # fmt: skip
    engines = [Engine(folder.name, folder, options, thread=thread) for folder in folders]
    for engine in engines:
        await engine.load()
    load = Load(engines[0], engines[1], seed)
    await load.run(seconds)
    rows = [engine._feeds or None for engine in engines]
    await until(lambda: not any(engine._decoding for engine in engines))
    kept = [engine.prefix_cache for engine in engines]
    for engine in engines:
        await engine.close()
    await thread.call(give_back_memory)
    left = library.load("mlx.core").get_active_memory() - before
    print(f"{seconds:g} s: {dict(load.counts)}; kept {kept}")
    return [
        none("wrong answers", load.wrong),
        none("rows that nobody reads", [row for row in rows if row]),
        none("caches beyond their bytes", [k for k in kept if k and k.nbytes > PREFIX_BYTES]),
        Check("recitals", str(load.counts["recited"]), "some", load.counts["recited"] > 0),
        _flat(load.memory, seconds),
        Check("bytes that MLX holds at the end", str(left), "below 1 MiB", left < 2**20),
    ]


def _flat(memory: Sequence[tuple[float, float, int]], seconds: float) -> Check:
    """The highest of the last fifth beside the highest at the end of the warm-up."""
    warm = [mib for at, mib, _ in memory if at <= seconds * WARM_UP_SHARE]
    last = [mib for at, mib, _ in memory if at >= seconds * 0.8]
    grown = max(last, default=0.0) - max(warm, default=0.0)
    said = f"{max(warm, default=0.0):.0f} then {max(last, default=0.0):.0f} MiB"
    return Check("resident memory", said, f"at most {GROWTH_MIB:g} MiB more", grown <= GROWTH_MIB)


def mlx_load(seconds: float, seed: int) -> list[Check]:
    with tempfile.TemporaryDirectory(prefix="router-load-") as folder:
        return asyncio.run(_loaded(seconds, seed, Path(folder)))


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1] else 1800.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**31)
    print(f"seed {seed}", flush=True)
    sys.exit(report(mlx_load(seconds, seed)))


if __name__ == "__main__":
    main()
