"""The engines without the router: what a load and a swap cost at the least."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from backends.child import engine_environment
from tests.bench.asking import UnixConnection, first_token, get_seconds

POLL_SECONDS = 0.001


class Alone(Protocol):
    """One engine by itself. `swap` stops what runs, if anything, starts `model` and returns the
    seconds until its first token."""

    def swap(self, model: str) -> float: ...
    def stop(self) -> None: ...


class ServerAlone:
    """An engine's server, started as the daemon starts it: `commands` gives the words for each
    model, with `{socket}` in them."""

    def __init__(self, commands: dict[str, Sequence[str]]) -> None:
        self._commands = commands
        self._folder = tempfile.TemporaryDirectory(prefix="router-bench-")
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._folder.cleanup()

    def swap(self, model: str) -> float:
        began = time.perf_counter()
        self.stop()
        self._count += 1
        socket = Path(self._folder.name, f"{self._count}.sock")
        argv = [str(socket) if word == "{socket}" else word for word in self._commands[model]]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            argv, stdin=quiet, stdout=quiet, stderr=quiet, env=engine_environment(os.environ)
        )
        _await_health(socket)
        with contextlib.closing(UnixConnection(socket)) as to:
            first_token(to, model)
            return time.perf_counter() - began

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


def _await_health(socket: Path) -> None:
    while True:
        try:
            with contextlib.closing(UnixConnection(socket)) as to:
                get_seconds(to, "/health")
            return
        except (OSError, RuntimeError):
            time.sleep(POLL_SECONDS)


class MLXAlone:
    def __init__(self, folders: dict[str, Path]) -> None:
        self._folders = folders
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.mlx_alone"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def swap(self, model: str) -> float:
        """The first one includes the import of mlx-lm."""
        return self._told(str(self._folders[model]))

    def stop(self) -> None:
        self._told("")

    def _told(self, line: str) -> float:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())
