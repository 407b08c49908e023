"""The demonstration once more with mlx in a worker, and what a worker is for."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.daemon import Daemon, gone, serving
from tests.e2e.test_demo import *  # noqa: F403 - every test of it, on the daemon below
from tests.tiny import dialogues as d
from tests.waiting import until

MLX = "parrot-mlx-4bit"


@pytest.fixture(scope="module")
def daemon(demo_models: Path) -> Iterator[Daemon]:
    flags = ("--engine", "parrot-safetensors=mistral.rs", "--isolation", "worker")
    with serving(demo_models, flags=flags) as running:
        yield running


@pytest.fixture(params=[MLX])
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def worker(daemon: Daemon) -> psutil.Process:
    """The engine itself, below its guard."""
    (found,) = [p for p in daemon.family() if "backends.workers.mlx" in p.cmdline() and guarded(p)]
    return found


def guarded(process: psutil.Process) -> bool:
    parent = process.parent()
    return parent is not None and any(word.endswith("guard.py") for word in parent.cmdline())


def test_it_runs_in_a_process_of_its_own(daemon: Daemon) -> None:
    assert daemon.chat(MLX, d.QUESTION).status_code == 200
    (instance,) = [i for i in daemon.status()["instances"] if i["model"] == MLX]
    assert instance["engine"] == "mlx"
    assert instance["pid"] != daemon.process.pid


def test_its_prefix_cache_is_told_of_as_if_it_were_ours(daemon: Daemon) -> None:
    for _ in range(2):
        assert daemon.chat(MLX, d.QUESTION).status_code == 200

    def told() -> bool:
        (instance,) = [i for i in daemon.status()["instances"] if i["model"] == MLX]
        kept = instance["prefix_cache"]
        return bool(kept and kept["hits"] >= 1 and kept["nbytes"] > 0)

    asyncio.run(until(told))
    with daemon.client() as client:
        assert f'router_prefix_cache_hits_total{{model="{MLX}"' in client.get("/metrics").text


def test_an_abort_in_the_middle_of_a_stream_costs_that_stream_alone(daemon: Daemon) -> None:
    song = [{"role": "user", "content": d.SONG_QUESTION}]
    body = {"model": MLX, "messages": song, "temperature": 0, "stream": True}
    assert daemon.chat(MLX, d.QUESTION).status_code == 200
    said: list[bytes] = []
    with daemon.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as got:
        pieces = got.iter_raw()
        said.append(next(pieces))
        engine = worker(daemon)
        os.kill(engine.pid, signal.SIGABRT)
        with pytest.raises(httpx.RemoteProtocolError):
            said.extend(pieces)
    assert b'data: {"error"' in b"".join(said)
    assert b"[DONE]" not in b"".join(said)
    assert daemon.process.poll() is None
    assert daemon.chat(MLX, d.QUESTION).json()["choices"][0]["message"]["content"] == d.SENTENCE
    assert worker(daemon).pid != engine.pid


def test_nothing_of_it_is_left_when_it_is_unloaded(daemon: Daemon) -> None:
    assert daemon.chat(MLX, d.QUESTION).status_code == 200
    engine = worker(daemon)
    with daemon.client() as client:
        assert client.post(f"/router/models/{MLX}/unload").status_code == 200
    assert gone([engine], 10)
