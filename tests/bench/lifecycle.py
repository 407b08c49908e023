"""What the router adds to a load and to a swap, and how fast it answers meanwhile: `python -m
tests.bench.lifecycle [ROUNDS] [--llama-server FILE]`, which is `make bench-lifecycle`.

Medians in milliseconds. The engine alone takes turns with the router, on the same models, so that
both have the same share of a busy machine; and a server that does nothing takes turns with the
daemon, because a busy machine keeps anybody waiting.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import http.server
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from router.gauge import LOOK_SECONDS
from tests.bench.alone import Alone, MLXAlone, ServerAlone
from tests.bench.asking import connection, first_token, get_seconds, post, status
from tests.bench.detect import write_tree
from tests.e2e.daemon import Daemon, serving
from tests.tiny.variants import build

ROUNDS = 15
FIRST_ROUNDS = 3
LOAD_AIM_MS, SWAP_AIM_MS, LATENCY_AIM_MS = 60, 150, 50
MEASURED_SECONDS = 3 * LOOK_SECONDS
"""After which what is reserved is what was measured."""
PROBE_SECONDS = 15.0
PROBE_PAUSE_SECONDS = 0.002
SCANNED_MODELS = 300
PATHS = ("/livez", "/v1/models", "/router/status")


@dataclass(frozen=True, slots=True)
class Case:
    """An engine, and the variant of its two models; `flags` are the daemon's."""

    engine: str
    variant: str
    flags: tuple[str, ...] = ()


CASES = (
    Case("mlx", "mlx-4bit"),
    Case("llama.cpp", "gguf-q8_0"),
    Case("mistral.rs", "safetensors"),
)


@contextlib.contextmanager
def two_models(case: Case, root: Path) -> Iterator[tuple[Daemon, Mapping[str, Path]]]:
    """A daemon with room for one, and the folders of `a` and `b`."""
    models, cache = root / case.engine, root / f"{case.engine}-cache"
    folders = {name: build(case.variant, models / name) for name in "ab"}
    chosen = [word for name in folders for word in ("--engine", f"{name}={case.engine}")]
    flags = ("--cache-dir", str(cache), *chosen, *case.flags)
    with serving(models, flags=flags) as daemon:
        memory = room_for_one(daemon, list(folders))
    with serving(models, flags=("--memory", memory, *flags)) as daemon:
        yield daemon, folders


def room_for_one(daemon: Daemon, models: Sequence[str]) -> str:
    """By what they were measured to take, which the next daemon knows, and not by an estimate."""
    with contextlib.closing(connection(daemon.url)) as to:
        for model in models:
            routed(daemon, model)
        time.sleep(MEASURED_SECONDS)
        taken = [instance["reserved_bytes"] for instance in status(to)["instances"]]
    if len(taken) != len(models):
        raise RuntimeError(f"{len(taken)} of {len(models)} models fit into this machine")
    return str(round(1.5 * max(taken)))


# Loads and swaps


def routed(daemon: Daemon, model: str) -> float:
    with contextlib.closing(connection(daemon.url)) as to:
        began = time.perf_counter()
        first_token(to, model)
        return time.perf_counter() - began


def emptied(daemon: Daemon) -> None:
    with contextlib.closing(connection(daemon.url)) as to:
        while instances := status(to)["instances"]:
            if instances[0]["state"] == "ready" and not instances[0]["leases"]:
                post(to, f"/router/models/{instances[0]['model']}/unload")
            time.sleep(0.005)


def load_seconds(daemon: Daemon) -> float:
    """Of the load itself, as the daemon tells it: what is left is the request's."""
    with contextlib.closing(connection(daemon.url)) as to:
        (instance,) = status(to)["instances"]
        return float(instance["load_seconds"])


def commands(daemon: Daemon, models: Sequence[str]) -> dict[str, Sequence[str]]:
    """The words that the daemon starts its engine with, `{socket}` for its own."""
    found: dict[str, Sequence[str]] = {}
    for model in models:
        routed(daemon, model)
        (guard,) = psutil.Process(daemon.process.pid).children()
        words = guard.children()[0].cmdline()
        found[model] = ["{socket}" if word.endswith(".sock") else word for word in words]
    return found


def alone(case: Case, daemon: Daemon, folders: Mapping[str, Path]) -> MLXAlone | ServerAlone:
    if case.engine == "mlx":
        return MLXAlone(dict(folders))
    return ServerAlone(commands(daemon, list(folders)))


def compare(what: str, ours: Sequence[float], theirs: Sequence[float], aim: str) -> None:
    """The median of the differences is that of neighbours in time."""
    differences = [1000 * (our - their) for our, their in zip(ours, theirs, strict=True)]
    our, their = (1000 * statistics.median(times) for times in (ours, theirs))
    print(
        f"{what:34} router {our:8.1f}   alone {their:8.1f}   "
        f"difference {statistics.median(differences):+8.1f}   ratio {our / their:5.2f}   {aim}",
        flush=True,
    )


def check_alone(daemon: Daemon, model: str) -> None:
    """Nothing was swapped if the other one is still there."""
    with contextlib.closing(connection(daemon.url)) as to:
        told = status(to)
    loaded = {one["model"]: one["reserved_bytes"] for one in told["instances"]}
    if list(loaded) != [model]:
        budget = told["budget_bytes"]
        raise RuntimeError(f"{model} should be loaded alone; there are {loaded} in {budget} bytes")


def loads(case: Case, daemon: Daemon, engine: Alone, rounds: int) -> None:
    ours, told, theirs = [], [], []
    routed(daemon, "a")
    engine.swap("a")
    for _ in range(rounds):
        emptied(daemon)
        engine.stop()
        ours.append(routed(daemon, "a"))
        told.append(load_seconds(daemon))
        theirs.append(engine.swap("a"))
    aim = f"aim: at most {LOAD_AIM_MS:+} ms"
    compare(f"{case.engine}: load to first token", ours, theirs, aim)
    print(f"{'  of which until ready':34} router {1000 * statistics.median(told):8.1f}")


def swaps(case: Case, daemon: Daemon, engine: Alone, rounds: int) -> None:
    ours, theirs = [], []
    routed(daemon, "b")
    engine.swap("b")
    for number in range(rounds):
        model = "ab"[number % 2]
        ours.append(routed(daemon, model))
        check_alone(daemon, model)
        theirs.append(engine.swap(model))
    aim = f"aim: at most {SWAP_AIM_MS:+} ms"
    compare(f"{case.engine}: swap to first token", ours, theirs, aim)


def first_loads(case: Case, root: Path) -> None:
    """Of a fresh daemon and a fresh process, with the import of mlx-lm."""
    ours, theirs = [], []
    for _ in range(FIRST_ROUNDS):
        with two_models(case, root) as (daemon, folders):
            ours.append(routed(daemon, "a"))
        with MLXAlone(dict(folders)) as engine:
            theirs.append(engine.swap("a"))
    compare(f"{case.engine}: first load, with its import", ours, theirs, "")


# How fast the daemon answers meanwhile


class _Nothing(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def _serve_nothing(port: Connection) -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Nothing)
    port.send(server.server_port)
    server.serve_forever()


@contextlib.contextmanager
def serving_nothing() -> Iterator[str]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_nothing, args=(theirs,), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{ours.recv()}"
    process.kill()
    process.join()


@contextlib.contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[threading.Thread]:
    """`work` again and again in a thread, until the block ends."""
    ending = threading.Event()

    def again() -> None:
        while not ending.is_set():
            work()

    thread = threading.Thread(target=again, daemon=True)
    thread.start()
    yield thread
    ending.set()
    thread.join()


def probe(title: str, daemon: Daemon, nothing: str, more: Callable[[], bool]) -> None:
    """Ask the endpoints by turns for as long as there is more to see."""
    where: dict[str, http.client.HTTPConnection] = {path: connection(daemon.url) for path in PATHS}
    where["a server that does nothing"] = connection(nothing)
    times: dict[str, list[float]] = {path: [] for path in where}
    while more():
        for path, to in where.items():
            times[path].append(1000 * get_seconds(to, path if path in PATHS else "/"))
            time.sleep(PROBE_PAUSE_SECONDS)
    print(f"{title}:")
    for path, taken in times.items():
        where[path].close()
        median, p99 = statistics.median(taken), sorted(taken)[int(0.99 * len(taken))]
        aim = f"aim: p99 below {LATENCY_AIM_MS} ms" if path in PATHS else ""
        print(
            f"  {path:32} median {median:6.1f}   p99 {p99:6.1f}   most {max(taken):6.1f} ms   "
            f"of {len(taken):5}   {aim}",
            flush=True,
        )


def for_seconds(seconds: float) -> Callable[[], bool]:
    ends_at = time.monotonic() + seconds
    return lambda: time.monotonic() < ends_at


@contextlib.contextmanager
def one_of_each(root: Path) -> Iterator[Daemon]:
    models = root / "models"
    for case in CASES:
        build(case.variant, models / case.engine.replace(".", "-"))
    flags = ("--memory", "1000M", "--engine", "mistral-rs=mistral.rs")
    with serving(models, flags=flags) as daemon:
        yield daemon


def latencies(root: Path) -> None:
    with serving_nothing() as nothing, one_of_each(root) as daemon:
        first = threading.Thread(target=routed, args=(daemon, "mlx"))
        first.start()
        probe("during the first load of mlx", daemon, nothing, first.is_alive)
        turns = iter(lambda: [routed(daemon, model) for model in MODELS], None)
        with meanwhile(lambda: next(turns)):
            probe("during loads and evictions", daemon, nothing, for_seconds(PROBE_SECONDS))
        tree = write_tree(root / "aside", SCANNED_MODELS)
        with meanwhile(lambda: _come_and_go(tree, root / "models" / "many")):
            probe(f"during scans of {SCANNED_MODELS} models", daemon, nothing,
                  for_seconds(PROBE_SECONDS))  # fmt: skip


MODELS = tuple(case.engine.replace(".", "-") for case in CASES)


def _come_and_go(tree: Path, served: Path) -> None:
    """Each time with files that were never seen, as far as one can tell."""
    for file in tree.rglob("*.*"):
        os.utime(file)
    tree.rename(served)
    time.sleep(3)
    served.rename(tree)
    time.sleep(1)


def loads_and_swaps(case: Case, root: Path, rounds: int) -> None:
    with two_models(case, root) as (daemon, folders), alone(case, daemon, folders) as engine:
        loads(case, daemon, engine, rounds)
        swaps(case, daemon, engine, rounds)


def main() -> None:
    arguments = _arguments()
    print(f"load average {', '.join(f'{load:.2f}' for load in os.getloadavg())}")
    root = Path(tempfile.mkdtemp(prefix="router-bench-"))
    try:
        if arguments.llama_server:
            binary = Case("llama.cpp", "gguf-q8_0", ("--llama-server", arguments.llama_server))
            loads_and_swaps(binary, root, arguments.rounds)
            return
        for case in CASES:
            loads_and_swaps(case, root, arguments.rounds)
        first_loads(CASES[0], root)
        latencies(root)
    finally:
        shutil.rmtree(root)
        print(f"load average {', '.join(f'{load:.2f}' for load in os.getloadavg())}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.bench.lifecycle")
    parser.add_argument("rounds", nargs="?", type=int, default=ROUNDS)
    parser.add_argument("--llama-server", metavar="FILE", help="measure this binary alone")
    return parser.parse_args()


if __name__ == "__main__":
    main()
