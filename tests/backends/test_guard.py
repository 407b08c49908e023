"""The guard as the program that it is, around engines that are shell scripts."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backends.child import GUARD
from tests.processes import alive, linux, none_alive
from tests.slack import soon, within

TERMINATED, KILLED = 128 + signal.SIGTERM, 128 + signal.SIGKILL
SLEEPER = "echo $$; exec sleep 600"
DEAF = "trap '' TERM; echo $$; while :; do sleep 600; done"
SLOW = "trap 'sleep 1; exit 7' TERM; echo $$; while :; do sleep 0.05; done"
"""Ends well, a second after it was asked to."""


class Guard:
    def __init__(self, grace_seconds: float, *command: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARD), str(grace_seconds), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            bufsize=0,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def pid(self) -> int:
        return int(self.line())

    def tell(self, words: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(words)

    def leave(self) -> None:
        """What happens to its standard input when the daemon ends."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def terminate(self) -> None:
        self.process.terminate()

    def status(self, seconds: float = 2) -> int:
        return self.process.wait(within(seconds))


@contextlib.contextmanager
def guarding(script: str, *, grace_seconds: float = 600) -> Iterator[Guard]:
    with guarding_program("sh", "-c", script, grace_seconds=grace_seconds) as guard:
        yield guard


@contextlib.contextmanager
def guarding_program(*command: str, grace_seconds: float = 600) -> Iterator[Guard]:
    guard = Guard(grace_seconds, *command)
    with guard.process:
        try:
            yield guard
        finally:
            if guard.process.poll() is None:
                with contextlib.suppress(OSError):
                    guard.tell(b"k")


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", KILLED)]
)
def test_it_ends_with_the_status_of_the_engine(script: str, status: int) -> None:
    with guarding(script) as guard:
        assert guard.status() == status


def test_the_engine_ends_when_the_daemon_is_gone() -> None:
    with guarding(SLEEPER) as guard:
        engine = guard.pid()
        assert alive(engine)
        guard.leave()
        assert guard.status() == TERMINATED
        assert not alive(engine)


def test_the_engine_ends_when_the_guard_is_terminated() -> None:
    with guarding(SLEEPER) as guard:
        engine = guard.pid()
        guard.terminate()
        assert guard.status() == TERMINATED
        assert not alive(engine)


@pytest.mark.parametrize("end", [Guard.leave, Guard.terminate])
def test_an_engine_deaf_to_sigterm_is_killed_after_the_grace(
    end: Callable[[Guard], None],
) -> None:
    with guarding(DEAF, grace_seconds=0.2) as guard:
        engine = guard.pid()
        end(guard)
        assert guard.status() == KILLED
        assert not alive(engine)


def test_k_kills_at_once() -> None:
    with guarding(DEAF) as guard:
        engine = guard.pid()
        guard.tell(b"k")
        assert guard.status() == KILLED
        assert not alive(engine)


def test_after_t_the_engine_may_take_longer_than_the_guards_own_grace() -> None:
    with guarding(SLOW, grace_seconds=0.05) as guard:
        guard.pid()
        guard.tell(b"t")
        assert guard.status() == 7


def test_without_t_the_same_engine_is_killed() -> None:
    with guarding(SLOW, grace_seconds=0.05) as guard:
        guard.pid()
        guard.leave()
        assert guard.status() == KILLED


def test_k_ends_the_patience_of_t() -> None:
    with guarding(DEAF, grace_seconds=0.05) as guard:
        engine = guard.pid()
        guard.tell(b"t")
        with pytest.raises(subprocess.TimeoutExpired):
            guard.process.wait(0.3)
        guard.tell(b"k")
        assert guard.status() == KILLED
        assert not alive(engine)


def test_the_end_of_the_daemon_ends_the_patience_of_t() -> None:
    with guarding(DEAF, grace_seconds=0.05) as guard:
        engine = guard.pid()
        guard.tell(b"t")
        guard.leave()
        assert guard.status() == KILLED
        assert not alive(engine)


def test_a_word_said_while_the_engine_starts_is_not_lost() -> None:
    for _ in range(8):
        with guarding_program("sleep", "600") as guard:
            guard.tell(b"t")
            assert guard.status() == TERMINATED


@linux
def test_a_descendant_in_a_session_of_its_own_is_ended_too() -> None:
    with guarding("setsid sleep 600 & echo $!; exec sleep 600") as guard:
        daemonised = guard.pid()
        guard.leave()
        assert guard.status() == TERMINATED
        assert not alive(daemonised)


@linux
def test_a_deaf_descendant_in_a_session_of_its_own_is_killed_too() -> None:
    script = "trap '' TERM; setsid sleep 600 & echo $!; wait"
    with guarding(script, grace_seconds=0.1) as guard:
        daemonised = guard.pid()
        guard.leave()
        assert guard.status() == KILLED
        assert not alive(daemonised)


def test_the_server_that_a_wrapper_leaves_behind_is_followed() -> None:
    with guarding("echo $$; sleep 600 & echo $!; exit 0") as guard:
        wrapper, server = guard.pid(), guard.pid()
        soon(lambda: not alive(wrapper), 2)
        with pytest.raises(subprocess.TimeoutExpired):
            guard.process.wait(0.2)
        assert alive(server)
        guard.leave()
        assert guard.status() == 0
        assert not alive(server)


def test_it_ends_with_the_last_of_a_wrappers_processes() -> None:
    with guarding("sleep 0.3 & echo $!; exit 0") as guard:
        server = guard.pid()
        assert guard.status() == 0
        assert not alive(server)


def test_an_engine_that_crashes_takes_its_descendants_along() -> None:
    with guarding("sleep 600 & echo $!; exit 3") as guard:
        helper = guard.pid()
        assert guard.status() == 3
        assert not alive(helper)


@linux
def test_the_kernel_kills_the_engine_of_a_guard_that_is_killed() -> None:
    with guarding("trap '' TERM; echo $$; exec sleep 600") as guard:
        engine = guard.pid()
        guard.process.kill()
        assert guard.status() == -signal.SIGKILL
        soon(lambda: none_alive([engine]), 1)


def test_a_program_that_does_not_exist_is_named() -> None:
    with guarding_program("/does/not/exist") as guard:
        assert guard.status() == 126
        assert guard.line() == "cannot run /does/not/exist: No such file or directory"


def test_a_program_with_a_name_of_strange_bytes_is_named() -> None:
    with guarding_program("/does/not/\udcff") as guard:
        assert guard.status() == 126
        assert guard.process.stdout is not None
        assert b"/does/not/\xff" in guard.process.stdout.readline()


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [(b"#!/bin/sh\n", 0o600, "Permission denied"), (b"\0\1\2", 0o700, "Exec format error")],
)
def test_a_file_that_is_no_program_is_named(
    tmp_path: Path, content: bytes, mode: int, reason: str
) -> None:
    program = tmp_path / "engine"
    program.write_bytes(content)
    program.chmod(mode)
    with guarding_program(str(program)) as guard:
        assert guard.status() == 126
        assert guard.line() == f"cannot run {program}: {reason}"


def test_the_engine_reads_nothing() -> None:
    with guarding("cat; echo end") as guard:
        assert guard.line() == "end"
        assert guard.status() == 0


@linux
def test_the_engine_gets_its_signals_untouched() -> None:
    with guarding_program("cat", "/proc/self/status") as guard:
        lines = iter(guard.line, "")
        masks = dict(line.split(":\t") for line in lines if line.startswith("Sig"))
        # Those above are libc's own; some starters of tests ignore one.
        known = [int(masks[name], 16) % 2**31 for name in ("SigBlk", "SigIgn", "SigCgt")]
        assert known == [0, 0, 0]
