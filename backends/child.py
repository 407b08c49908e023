"""One OS process with an engine in it: spawned under the guard, drained, stopped and reaped."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

GUARD = Path(__file__).with_name("guard.py")
GUARD_GRACE_SECONDS = 3.0
"""What the guard gives the engine when we are gone ourselves; orphans must be gone in 5 s."""

KILL_SECONDS = 2.0
"""How long the guard may take to kill before its group is killed over its head."""

LAST_LINES = 200
LINE_BYTES = 4096
DRAIN_SECONDS = 0.2

PASSED_ON = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LANGUAGE",
    "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH",
    "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "SSL_CERT_FILE",
)  # fmt: skip
PASSED_ON_PREFIXES = (
    "LC_", "OMP_", "MKL_", "OPENBLAS_", "VECLIB_", "RAYON_", "TOKENIZERS_", "CUDA_", "NVIDIA_",
    "HIP_", "ROCR_", "HSA_", "GGML_", "LLAMA_", "MISTRALRS_", "MTL_", "METAL_", "MLX_", "VK_",
)  # fmt: skip
NO_SECRETS_PREFIX = "TOKENIZERS_"
SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")


def engine_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What an engine may see of ours: an allow-list, without anything that smells of a secret.

    Nothing is ever fetched by an engine: what it runs is on this disk.
    """
    passed = {
        name: value
        for name, value in environment.items()
        if (name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES))
        and not any(word in name.upper().removeprefix(NO_SECRETS_PREFIX) for word in SECRET_WORDS)
    }
    return {**passed, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


class LastWords(asyncio.Protocol):
    """Reads everything a process prints and keeps the last lines: no flood blocks or grows."""

    def __init__(self, on_line: Callable[[str], None] | None = None) -> None:
        self.lines: deque[str] = deque(maxlen=LAST_LINES)
        self.ended = asyncio.Event()
        self._partial = b""
        self._on_line = on_line
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, rest = (self._partial + data).split(b"\n")
        for line in lines:
            self._keep(line)
        if len(rest) > LINE_BYTES:
            self._keep(rest)
            rest = b""
        self._partial = rest

    def connection_lost(self, error: Exception | None) -> None:
        if self._partial:
            self._keep(self._partial)
            self._partial = b""
        self.ended.set()

    def close(self) -> None:
        """Stop reading, whoever may still hold the other end."""
        if self._transport is not None:
            self._transport.close()

    def _keep(self, line: bytes) -> None:
        text = line[:LINE_BYTES].decode("utf-8", "replace").strip()
        if text:
            self.lines.append(text)
            if self._on_line is not None:
                self._on_line(text)


class Child:
    """A running engine process. Made by `spawn` on the event loop's thread, which must be the
    main one: the kernel ends children whose spawning thread ends.

    `pid` is the guard's, which is also the group's id. `exited` resolves to the exit status
    (128 + n for signal n) when everything is dead and reaped.
    """

    def __init__(self, process: subprocess.Popen[bytes], output: LastWords) -> None:
        self.pid = process.pid
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._process = process
        self._output = output
        self._ending = asyncio.create_task(self._reap())

    @classmethod
    async def spawn(
        cls,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> Child:
        """Start `argv` under the guard, in a session of its own, with no descriptor of ours.

        Raises:
            OSError: not even the guard could be started.
        """
        reader, writer = os.pipe()
        try:
            process = subprocess.Popen(  # noqa: ASYNC220 - PDEATHSIG wants this very thread
                [sys.executable, "-I", "-S", str(GUARD), str(GUARD_GRACE_SECONDS), *argv],
                stdin=subprocess.PIPE,
                stdout=writer,
                stderr=writer,
                env=dict(
                    environment if environment is not None else engine_environment(os.environ)
                ),
                cwd=folder,
                start_new_session=True,
                bufsize=0,
            )
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        output = LastWords(on_line)
        pipe = os.fdopen(reader, "rb", buffering=0)
        await asyncio.get_running_loop().connect_read_pipe(lambda: output, pipe)
        return cls(process, output)

    @property
    def running(self) -> bool:
        return not self.exited.done()

    def last_words(self) -> tuple[str, ...]:
        return tuple(self._output.lines)

    async def stop(self, grace_seconds: float) -> None:
        """Ask, wait, kill; returns when everything is gone. Safe to call again, with less grace."""
        await asyncio.shield(self._stop(grace_seconds))

    async def _stop(self, grace_seconds: float) -> None:
        if grace_seconds > 0:
            self._tell(b"t")
            await asyncio.wait([self.exited], timeout=grace_seconds)
        if self.running:
            self._tell(b"k")
            await asyncio.wait([self.exited], timeout=KILL_SECONDS)
        if self.running:
            self._kill_group()
            await asyncio.wait([self.exited])

    def _tell(self, word: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(word)
        except (OSError, ValueError):
            pass  # it is dead, or even reaped

    def _kill_group(self) -> None:
        if self._process.returncode is not None:
            return  # its id may be another's by now
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except OSError:
            pass

    async def _reap(self) -> None:
        await ended(self.pid)
        # The dead guard is not reaped yet: nobody else can have its id, and its group is ours.
        self._kill_group()
        status = self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._output.ended.wait(), DRAIN_SECONDS)
        except TimeoutError:
            pass
        self._output.close()
        self.exited.set_result(status if status >= 0 else 128 - status)


async def ended(pid: int) -> None:
    """Return when our child `pid` is dead, without reaping it."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def tell() -> None:
        if not done.done():
            done.set_result(None)

    stop_watching = _watch(pid, tell)
    try:
        await done
    finally:
        stop_watching()


def _watch_pidfd(pid: int, tell: Callable[[], object]) -> Callable[[], None]:
    loop = asyncio.get_running_loop()
    descriptor = os.pidfd_open(pid)
    loop.add_reader(descriptor, tell)

    def stop_watching() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)

    return stop_watching


def _watch_kqueue(pid: int, tell: Callable[[], object]) -> Callable[[], None]:
    """macOS: Python 3.11 has no waitid there; the kernel's queue tells without reaping."""
    loop = asyncio.get_running_loop()

    def watch() -> None:
        queue: Any = getattr(select, "kqueue")()  # noqa: B009 - unknown to mypy on Linux
        event = getattr(select, "kevent")(  # noqa: B009
            pid, filter=_KQ_FILTER_PROC, flags=_KQ_EV_ADD, fflags=_KQ_NOTE_EXIT
        )
        try:
            queue.control([event], 1)
        except OSError:
            pass  # it is dead already
        finally:
            queue.close()
        loop.call_soon_threadsafe(tell)

    threading.Thread(target=watch, name=f"watch-{pid}", daemon=True).start()
    return lambda: None


_KQ_FILTER_PROC, _KQ_EV_ADD, _KQ_NOTE_EXIT = -5, 0x1, 0x80000000
_watch = _watch_pidfd if sys.platform == "linux" else _watch_kqueue
