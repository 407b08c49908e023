"""However the daemon ends, no engine outlives it."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.conftest import MODELS
from tests.e2e.daemon import SLACK, Daemon, gone, serving
from tests.tiny import dialogues as d

FLAGS = ("--engine", "parrot-safetensors=mistral.rs")


def load_all(daemon: Daemon) -> list[psutil.Process]:
    for model in MODELS:
        assert daemon.chat(model, d.QUESTION).status_code == 200
    processes = daemon.family()
    assert len(processes) >= 4  # a guard and an engine for each of the two children
    return processes


def test_kill_9_leaves_no_engine(demo_models: Path) -> None:
    with serving(demo_models, flags=FLAGS) as daemon:
        processes = load_all(daemon)
        daemon.process.kill()
        assert daemon.wait(5) == -signal.SIGKILL
        assert gone(processes, within_seconds=5 / SLACK)


def test_kill_9_while_a_model_is_loading_leaves_no_engine(demo_models: Path) -> None:
    with serving(demo_models, flags=FLAGS) as daemon:
        asking = threading.Thread(target=ask_in_vain, args=(daemon, "parrot-safetensors"))
        asking.start()
        processes: list[psutil.Process] = []
        while not processes:
            processes = daemon.family()
        daemon.process.kill()
        assert gone(processes, within_seconds=5 / SLACK)
        asking.join()


def ask_in_vain(daemon: Daemon, model: str) -> None:
    with pytest.raises(httpx.TransportError):
        daemon.chat(model, d.QUESTION)


def test_sigterm_ends_it_cleanly(demo_models: Path) -> None:
    with serving(demo_models, flags=FLAGS) as daemon:
        processes = load_all(daemon)
        daemon.send(signal.SIGTERM)
        assert daemon.wait(2) == 0
        assert gone(processes, within_seconds=1)
        assert "Traceback" not in daemon.output


def test_ctrl_c_twice_ends_it_at_once_in_the_middle_of_answers(demo_models: Path) -> None:
    with serving(demo_models, flags=FLAGS) as daemon:
        processes = load_all(daemon)
        with daemon.client() as api, song(api, "parrot-mlx-4bit", 2000) as answer:
            next(answer.iter_lines())
            daemon.send(signal.SIGINT)
            await_line(daemon, "Ending")
            daemon.send(signal.SIGINT)
            daemon.wait(2)
        assert gone(processes, within_seconds=5 / SLACK)
        assert "Traceback" not in daemon.output


def test_running_answers_may_finish_and_new_requests_are_refused(demo_models: Path) -> None:
    with serving(demo_models, flags=FLAGS) as daemon:
        with daemon.client() as api, song(api, "parrot-mlx-4bit", 300) as answer:
            lines = answer.iter_lines()
            next(lines)
            daemon.send(signal.SIGTERM)
            await_line(daemon, "Ending")
            assert httpx.get(f"{daemon.url}/readyz", trust_env=False).status_code == 503
            refused = daemon.chat("parrot-mlx-4bit", d.QUESTION)
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert daemon.wait(5) == 0


def test_answers_longer_than_the_drain_time_look_cut(demo_models: Path) -> None:
    flags = (*FLAGS, "--drain-seconds", "0.2")
    with serving(demo_models, flags=flags) as daemon:
        with daemon.client() as api, song(api, "parrot-mlx-4bit", 2000) as answer:
            lines = answer.iter_lines()
            next(lines)
            daemon.send(signal.SIGTERM)
            said: list[str] = []
            with pytest.raises(httpx.RemoteProtocolError):
                said.extend(lines)
        assert "data: [DONE]" not in said
        assert any('"error"' in line for line in said)
        assert daemon.wait(5) == 0


@pytest.mark.parametrize("model", ["parrot-gguf", "parrot-safetensors"])
def test_a_killed_engine_is_started_again_by_the_next_request(
    demo_models: Path, model: str
) -> None:
    with serving(demo_models, flags=FLAGS) as daemon:
        first = daemon.chat(model, d.QUESTION)
        assert first.status_code == 200, first.text
        (instance,) = daemon.status()["instances"]
        (engine,) = psutil.Process(instance["pid"]).children()
        os.kill(engine.pid, signal.SIGKILL)
        assert gone([engine], within_seconds=2)
        answers = [daemon.chat(model, d.QUESTION) for _ in range(3)]
        assert answers[-1].json()["choices"][0]["message"]["content"] == d.SENTENCE


def song(api: httpx.Client, model: str, max_tokens: int) -> AbstractContextManager[httpx.Response]:
    body = {
        "model": model,
        "messages": [d.user(d.SONG_QUESTION)],
        "temperature": 0,
        "max_tokens": max_tokens,
        "stream": True,
    }
    return api.stream("POST", "/v1/chat/completions", json=body)


def await_line(daemon: Daemon, text: str) -> None:
    while text not in daemon.output:
        assert daemon.process.poll() is None
