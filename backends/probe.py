"""Which architectures an installed engine knows: asked of the engine itself, kept on disk."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from backends.child import GUARD, engine_environment
from detect.whole_file import write_whole

GUARD_GRACE_SECONDS = 1.0
WORKER_SECONDS = 60.0
"""For one worker and all its names; a name takes some milliseconds, a cold start a second."""

KILL_SECONDS = 3.0

Ask = Callable[[Sequence[str]], Mapping[str, str]]
"""Runs the engine once for all these names. An answer says how it knows the name, or is empty
when it does not; a name that it says nothing about is left out."""


class ArchitectureProbe:
    """The answers of one build of an engine.

    `build` identifies it: answers of another one are forgotten. What the engine does not answer
    (it crashed, hung, or cannot be asked) is not asked again by this process, and not kept.
    A file that is corrupt or cannot be written costs time and nothing else.
    """

    def __init__(self, ask: Ask, *, build: str, file: Path) -> None:
        self._ask = ask
        self._build = build
        self._file = file
        self._asked: set[str] = set()
        self._noted: dict[str, None] | None = None
        self._lock = threading.RLock()

    def answer(self, name: str) -> str | None:
        """How the engine knows `name`; empty if it does not, None if it did not say."""
        return self.answers([name]).get(name)

    def knows(self, name: str) -> bool | None:
        answer = self.answer(name)
        return None if answer is None else bool(answer)

    def answers(self, names: Iterable[str]) -> dict[str, str]:
        """The same for many names: those that are new are asked together."""
        wanted = list(dict.fromkeys(names))
        with self._lock:
            new = [n for n in wanted if n not in self._known and n not in self._asked]
            if self._noted is not None:
                self._noted.update(dict.fromkeys(new))
            elif new:
                self._asked.update(new)
                self._known.update(self._ask(new))
                self._write()
            return {name: self._known[name] for name in wanted if name in self._known}

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is new in here is not answered yet, and asked all at once when it ends: a process
        takes longer to start than to answer."""
        with self._lock:
            noted: dict[str, None] = {}
            self._noted = noted
            try:
                yield
            finally:
                self._noted = None
            self.answers(noted)

    @cached_property
    def _known(self) -> dict[str, str]:
        try:
            kept = json.loads(self._file.read_bytes())
            answers = kept["answers"] if kept["build"] == self._build else {}
            return {name: answer for name, answer in answers.items() if isinstance(answer, str)}
        except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
            return {}

    def _write(self) -> None:
        kept = json.dumps({"build": self._build, "answers": self._known})
        try:
            write_whole(self._file, kept.encode())
        except OSError:
            pass


def ask_worker(module: str, names: Sequence[str]) -> dict[str, str]:
    """The answers that `python -m module NAME…` prints, one JSON array `[name, answer]` a line.

    One that does not end in time, or crashes over a name, has answered for the names before it.
    """
    finished = run([sys.executable, "-m", module, *names], timeout_seconds=WORKER_SECONDS)
    lines = finished.stdout.splitlines() if finished else []
    pairs = (_pair(line) for line in lines)
    return {name: answer for name, answer in pairs if name in names}


def _pair(line: str) -> tuple[str, str]:
    try:
        name, answer = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return "", ""
    return str(name), str(answer)


def build_of(version: str | None, path: Path | None) -> str:
    """What changes when another build of an engine is installed at the same place."""
    try:
        stamp = path.stat().st_mtime_ns if path else None
    except OSError:
        stamp = None
    return f"{version} {path} {stamp}"


@dataclass(frozen=True, slots=True)
class Finished:
    status: int
    stdout: str
    stderr: str


def run(argv: Sequence[str], *, timeout_seconds: float) -> Finished | None:
    """Run a program under the guard, so that neither our end nor its hanging leaves it behind.

    None when it could not be started or did not end in time. Never raises.
    """
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARD), str(GUARD_GRACE_SECONDS), *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=engine_environment(os.environ),
            start_new_session=True,
        )
    except (OSError, ValueError):
        # ValueError: an argument from a strange file is nothing that a process can be given.
        return None
    with process:
        try:
            # Its standard input stays open: end of file tells the guard that we are gone.
            stdin, process.stdin = process.stdin, None
            stdout, stderr = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if stdin is not None:
                stdin.close()
            _end(process)
    text = (output.decode("utf-8", "replace") for output in (stdout, stderr))
    return Finished(process.returncode, *text)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(KILL_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
