"""The settings change under the running daemon: by editing the file of --config, or by SIGHUP."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.daemon import Daemon, serving
from tests.processes import alive
from tests.slack import soon, within
from tests.tiny import dialogues as d

GGUF, MLX = "parrot-gguf", "parrot-mlx-4bit"
SEEN_SECONDS = 2.0


@pytest.fixture
def file(demo_models: Path, tmp_path: Path) -> Path:
    file = tmp_path / "router.toml"
    file.write_text(f'models-dir = ["{demo_models}"]\nmemory = "4G"\n')
    return file


@pytest.fixture
def daemon(file: Path) -> Iterator[Daemon]:
    with serving(flags=("--config", str(file))) as running:
        yield running


def add(file: Path, text: str) -> None:
    """As editors save: a new file in the place of the old one."""
    new = file.with_suffix(".new")
    new.write_text(f"{file.read_text()}{text}\n")
    new.replace(file)


def seen(true: Callable[[], object]) -> None:
    soon(true, SEEN_SECONDS)


def answers(daemon: Daemon, name: str) -> bool:
    answer = daemon.chat(name, d.QUESTION)
    return answer.status_code == 200 and d.SENTENCE in answer.text


def pids(daemon: Daemon) -> dict[str, int | None]:
    return {one["model"]: one["pid"] for one in daemon.status()["instances"]}


def test_a_new_alias_answers_while_an_answer_goes_on(daemon: Daemon, file: Path) -> None:
    assert answers(daemon, GGUF)
    before = pids(daemon)
    body = {"model": GGUF, "prompt": "a", "max_tokens": 900, "stream": True, "ignore_eos": True}
    with daemon.client() as client, client.stream("POST", "/v1/completions", json=body) as stream:
        lines = stream.iter_lines()
        next(lines)
        add(file, f'[models.{GGUF}]\naliases = ["gpt-4o"]\npin = true')
        seen(lambda: answers(daemon, "gpt-4o"))
        assert [line for line in lines if line][-1] == "data: [DONE]"
    assert pids(daemon) == before
    assert daemon.status()["instances"][0]["pinned"]
    assert "Settings read again; changed: single models." in daemon.output


def test_a_broken_file_leaves_the_old_settings_and_says_where(daemon: Daemon, file: Path) -> None:
    right = file.read_text()
    add(file, "paralel = 3")
    seen(lambda: f"{file} (line 3) has 'paralel'" in daemon.output)
    assert "did you mean 'parallel'?" in daemon.output
    assert daemon.status()["budget_bytes"] == 4 * 2**30
    assert answers(daemon, GGUF)
    file.write_text(right.replace("4G", "3G"))
    seen(lambda: daemon.status()["budget_bytes"] == 3 * 2**30)


def test_an_instance_that_would_run_otherwise_is_loaded_anew_and_others_are_not(
    daemon: Daemon, file: Path
) -> None:
    assert answers(daemon, GGUF)
    assert answers(daemon, MLX)
    before = pids(daemon)
    add(file, f"[models.{GGUF}]\ncontext-length = 256")
    soon(lambda: list(pids(daemon)) == [MLX], SEEN_SECONDS + 5)
    assert daemon.chat(GGUF, "la " * 300).status_code == 400
    assert pids(daemon)[GGUF] != before[GGUF]


def test_a_smaller_budget_ends_no_answer(daemon: Daemon, file: Path) -> None:
    assert answers(daemon, GGUF)
    body = {"model": GGUF, "prompt": "a", "max_tokens": 600, "stream": True, "ignore_eos": True}
    with daemon.client() as client, client.stream("POST", "/v1/completions", json=body) as stream:
        lines = stream.iter_lines()
        next(lines)
        file.write_text(file.read_text().replace("4G", "1M"))
        seen(lambda: daemon.status()["budget_bytes"] == 2**20)
        assert [line for line in lines if line][-1] == "data: [DONE]"
    assert daemon.chat(MLX, d.QUESTION).json()["error"]["code"] == "memory.too_big"
    assert answers(daemon, GGUF)


def test_a_key_holds_at_once_and_a_log_file_at_the_next_start(daemon: Daemon, file: Path) -> None:
    add(file, f'api-key = "canary"\nport = 1\nlog-file = "{file}.log"')
    seen(lambda: daemon.chat(GGUF, d.QUESTION).status_code == 401)
    seen(lambda: "log-file takes effect at the next start." in daemon.output)
    assert "port takes" not in daemon.output  # it was given by a flag, which goes before the file
    assert "canary" not in daemon.output


def test_sighup_reads_the_file_again_where_nothing_is_watched(file: Path) -> None:
    add(file, "watch = false")
    with serving(flags=("--config", str(file))) as daemon:
        daemon.send(signal.SIGHUP)
        seen(lambda: "Settings read again; nothing changed." in daemon.output)
        add(file, f'[models.{GGUF}]\naliases = ["gpt-4o"]')
        daemon.send(signal.SIGHUP)
        seen(lambda: answers(daemon, "gpt-4o"))


def test_sighup_without_a_file_looks_through_the_folders(demo_models: Path) -> None:
    with serving(demo_models) as daemon:
        daemon.send(signal.SIGHUP)
        seen(lambda: "There is no --config file to read again" in daemon.output)
        assert httpx.get(f"{daemon.url}/readyz", trust_env=False).status_code == 200


def test_a_daemon_whose_terminal_is_closed_ends(demo_models: Path, tmp_path: Path) -> None:
    command = [
        "import os, pty, sys; pid, terminal = pty.fork()",
        "pid or os.execv(sys.executable, [sys.executable, '-m', 'router', *sys.argv[1:]])",
        "print(pid, flush=True)",
        "text = b''\nwhile b'Listening' not in text: text += os.read(terminal, 999)",
    ]
    arguments = ("serve", "--port", "0", "--cache-dir", str(tmp_path), str(demo_models))
    # The one who holds the terminal ends as soon as the daemon listens.
    holder = subprocess.run(
        [sys.executable, "-c", "\n".join(command), *arguments],
        capture_output=True, text=True, timeout=within(20), check=True,
    )  # fmt: skip
    daemon = int(holder.stdout)
    soon(lambda: not alive(daemon), 5)
