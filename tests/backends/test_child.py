from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import child as module
from backends.child import LAST_LINES, LINE_BYTES, Child, LastWords, engine_environment
from tests.fake_engine import FakeEngine
from tests.processes import alive, linux, none_alive, open_descriptors
from tests.slack import run, soon, within
from tests.waiting import until

KILLED = 128 + signal.SIGKILL
SLOW = "trap 'sleep 1; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
Scenario = Callable[[Child], Awaitable[None]]


def with_child(command: list[str], scenario: Scenario) -> None:
    async def main() -> None:
        child = await Child.spawn(command)
        try:
            await scenario(child)
        finally:
            await child.stop(0)

    run(main())


def with_script(script: str, scenario: Scenario) -> None:
    with_child(["sh", "-c", script], scenario)


async def status(child: Child) -> int:
    return await asyncio.wait_for(asyncio.shield(child.exited), within(5))


async def first_line(child: Child) -> str:
    await until(child.last_words)
    return child.last_words()[0]


def output_of(*command: str) -> tuple[str, ...]:
    lines: list[tuple[str, ...]] = []

    async def scenario(child: Child) -> None:
        assert await status(child) == 0
        lines.append(child.last_words())

    with_child([*command], scenario)
    return lines[0]


# Last words


def test_the_last_lines_are_kept_from_both_streams() -> None:
    assert output_of("sh", "-c", "echo one; echo two >&2; printf three") == ("one", "two", "three")


def test_only_so_many_lines_are_kept() -> None:
    lines = output_of("sh", "-c", "seq 10000")
    assert len(lines) == LAST_LINES
    assert (lines[0], lines[-1]) == (str(10001 - LAST_LINES), "10000")


def test_a_flood_without_a_newline_neither_blocks_nor_grows() -> None:
    lines = output_of("sh", "-c", "head -c 50000000 /dev/zero | tr '\\0' x; echo; echo end")
    assert lines[-1] == "end"
    assert len(lines) <= LAST_LINES
    assert max(map(len, lines)) <= LINE_BYTES


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert output_of("printf", r"caf\303\251 \377\n") == ("café �",)


def test_each_line_is_told_as_it_comes() -> None:
    told: list[str] = []

    async def main() -> None:
        child = await Child.spawn(["sh", "-c", "echo a; echo; echo b"], on_line=told.append)
        await child.exited

    run(main())
    assert told == ["a", "b"]


@given(st.lists(st.text("ab é", max_size=5), max_size=6), st.lists(st.integers(0, 40), max_size=6))
def test_lines_are_the_same_however_the_bytes_arrive(lines: list[str], cuts: list[int]) -> None:
    data = "\n".join(lines).encode()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    words = LastWords()
    for start, end in pairwise(places):
        words.data_received(data[start:end])
    words.connection_lost(None)
    assert list(words.lines) == [line.strip() for line in lines if line.strip()]


# What it may see of us


SECRETS = {
    "OPENAI_API_KEY": "canary-1",
    "HF_TOKEN": "canary-2",
    "LLAMA_API_KEY": "canary-3",
    "MISTRALRS_PASSWORD": "canary-4",
    "ROUTER_API_KEYS": "canary-5",
    "AWS_PROFILE": "canary-6",
    "http_proxy": "canary-7",
    "GGML_SECRET": "canary-8",
    "TOKENIZERS_TOKEN": "canary-9",
}


def test_the_environment_of_an_engine_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    lines = output_of("env")
    assert any(line.startswith("PATH=") for line in lines)
    assert not [line for line in lines if "canary" in line]


@pytest.mark.parametrize(
    "name", ["PATH", "HOME", "LC_ALL", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES",
             "GGML_METAL_PATH_RESOURCES", "TOKENIZERS_PARALLELISM"]
)  # fmt: skip
def test_what_an_engine_is_tuned_with_is_passed_on(name: str) -> None:
    assert engine_environment({name: "x"})[name] == "x"


def test_an_engine_fetches_nothing_whatever_we_may() -> None:
    environment = engine_environment({"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"})
    assert environment["HF_HUB_OFFLINE"] == environment["TRANSFORMERS_OFFLINE"] == "1"


@linux
def test_an_engine_inherits_no_descriptor() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        assert output_of("sh", "-c", "ls /proc/$$/fd") == ("0", "1", "2")


# The end


@pytest.mark.parametrize(
    ("script", "expected"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", KILLED)]
)
def test_the_exit_status_is_the_engines(script: str, expected: int) -> None:
    async def scenario(child: Child) -> None:
        assert await status(child) == expected
        assert not child.running

    with_script(script, scenario)


def test_a_program_that_cannot_be_run_ends_with_a_sentence() -> None:
    async def scenario(child: Child) -> None:
        assert await status(child) == 126
        assert child.last_words() == ("cannot run /does/not/exist: No such file or directory",)

    with_child(["/does/not/exist"], scenario)


def test_a_folder_that_does_not_exist_is_an_error_that_leaves_nothing_open(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        before = open_descriptors()
        with pytest.raises(FileNotFoundError):
            await Child.spawn(["true"], folder=tmp_path / "missing")
        assert open_descriptors() == before

    run(main())


def test_stopping_waits_as_long_as_it_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GUARD_GRACE_SECONDS", 0.05)

    async def scenario(child: Child) -> None:
        await first_line(child)
        await child.stop(60)
        assert await status(child) == 7

    with_script(SLOW, scenario)


def test_a_deaf_engine_is_killed_with_its_deaf_grandchildren(tmp_path: Path) -> None:
    for where in ("group", "session"):
        engine = FakeEngine(tmp_path / where, deaf=True, grandchild=where)

        async def scenario(child: Child, engine: FakeEngine = engine) -> None:
            await until(lambda: len(engine.pids()) == 2)
            await child.stop(0.2)
            assert await status(child) == KILLED
            assert none_alive(engine.pids())

        with_child(engine.command("--unix", str(engine.folder / "s")), scenario)


def test_a_second_stop_may_be_less_patient() -> None:
    async def scenario(child: Child) -> None:
        await first_line(child)
        patient = [asyncio.create_task(child.stop(600)) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert child.running
        await child.stop(0)
        await asyncio.gather(*patient)
        assert await status(child) == KILLED

    with_script("trap '' TERM; echo ready; while :; do sleep 600; done", scenario)


def test_a_stop_that_is_cancelled_still_stops() -> None:
    async def scenario(child: Child) -> None:
        await first_line(child)
        stopping = asyncio.create_task(child.stop(600))
        await asyncio.sleep(0)
        stopping.cancel()
        assert await status(child) == 128 + signal.SIGTERM

    with_script("echo ready; exec sleep 600", scenario)


def test_stopping_what_has_ended_does_nothing() -> None:
    async def scenario(child: Child) -> None:
        assert await status(child) == 3
        await child.stop(600)
        await child.stop(0)
        assert await status(child) == 3

    with_script("exit 3", scenario)


def test_a_stop_while_it_starts_is_not_lost() -> None:
    async def main() -> None:
        for _ in range(10):
            child = await Child.spawn(["sleep", "600"])
            await child.stop(600)
            assert await status(child) == 128 + signal.SIGTERM

    run(main())


@linux
def test_a_guard_that_is_killed_is_noticed_and_its_engine_is_gone() -> None:
    async def scenario(child: Child) -> None:
        engine = int(await first_line(child))
        os.kill(child.pid, signal.SIGKILL)
        assert await status(child) == KILLED
        await until(lambda: not alive(engine))

    with_script("echo $$; exec sleep 600", scenario)


@linux
def test_a_stranger_that_holds_the_output_holds_nothing_up() -> None:
    async def scenario(child: Child) -> None:
        before = open_descriptors()
        escaped = int(await first_line(child))
        os.kill(child.pid, signal.SIGKILL)
        try:
            while child.running:  # also in the moment between its end and the end of its output
                await asyncio.wait_for(child.stop(600), within(5))
            await asyncio.sleep(0)
            assert open_descriptors() < before
        finally:
            os.kill(escaped, signal.SIGKILL)

    with_script("setsid sleep 600 & echo $!; exec sleep 600", scenario)


@linux
def test_the_moment_between_its_end_and_the_end_of_its_output_is_safe_to_stop_in() -> None:
    async def scenario(child: Child) -> None:
        escaped = int(await first_line(child))
        os.kill(child.pid, signal.SIGKILL)
        try:
            await until(lambda: not alive(child.pid))
            await asyncio.sleep(module.DRAIN_SECONDS / 4)
            await child.stop(600)
            assert await status(child) == KILLED
        finally:
            os.kill(escaped, signal.SIGKILL)

    with_script("setsid sleep 600 & echo $!; exec sleep 600", scenario)


def test_many_lives_leave_nothing_behind() -> None:
    async def main() -> None:
        async def life() -> None:
            child = await Child.spawn(["sleep", "600"])
            await child.stop(600)

        await life()
        before = open_descriptors()
        for _ in range(5):
            await asyncio.gather(*(life() for _ in range(4)))
        await asyncio.sleep(0)
        assert open_descriptors() == before

    run(main())
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


DAEMON = """
import asyncio, sys
from pathlib import Path
from backends.child import Child
async def main():
    child = await Child.spawn(sys.argv[1:])
    print(child.pid, flush=True)
    await child.exited
asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_engine_outlives_the_daemon(tmp_path: Path, number: signal.Signals) -> None:
    engine = FakeEngine(tmp_path, deaf=number == signal.SIGKILL, grandchild="group")
    command = engine.command("--unix", str(tmp_path / "s"))
    with subprocess.Popen([sys.executable, "-c", DAEMON, *command], stdout=-1) as daemon:
        assert daemon.stdout is not None
        guard = int(daemon.stdout.readline())
        soon(lambda: len(engine.pids()) == 2, 5)
        daemon.send_signal(number)
        assert daemon.wait() == -number
    soon(lambda: none_alive([guard, *engine.pids()]), 5)
