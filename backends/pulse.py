"""Signs of life of one engine: what it sends, and what it computes.

A health endpoint that answers proves nothing: engines deadlock behind it. One that has requests,
sends nothing and uses no processor time is taken for dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterator

import psutil

from backends.base import Message, Patience, Send

IDLE_SHARE = 0.01
"""Of one processor: one that uses less waits for something that does not come."""

LOOKS = 4
"""In the time after which it is taken for dead."""


class Pulse:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._requests = 0
        self._heard_at = 0.0

    @contextlib.contextmanager
    def request(self, send: Send) -> Iterator[Send]:
        """A request that the engine has; what it answers is to go through the `send` given."""
        if not self._requests:
            self._heard_at = self._clock()
        self._requests += 1

        async def heard(message: Message) -> None:
            if not _is_heartbeat(message):
                self._heard_at = self._clock()
            await send(message)

        try:
            yield heard
        finally:
            self._requests -= 1

    @property
    def silent_seconds(self) -> float:
        """Since it has last said something; 0 while nobody has asked."""
        return self._clock() - self._heard_at if self._requests else 0.0

    async def lost(self, patience: Patience, computed_seconds: Callable[[], float]) -> float:
        """Returns when it is to be taken for dead, with the seconds that it was silent: while it
        computed nothing, or for longer than any first piece of an answer may take.

        `computed_seconds` is asked in a thread, for the processor time used so far.
        """
        stall_seconds, silent_seconds = patience.stall_seconds, patience.first_seconds
        pause = min(stall_seconds, silent_seconds) / LOOKS
        if math.isinf(pause):
            await asyncio.Event().wait()
        idle_since, computed = self._clock(), 0.0
        while True:
            await asyncio.sleep(pause)
            now, before = self._clock(), computed
            computed = await asyncio.to_thread(computed_seconds) if self._requests else before
            if computed - before > IDLE_SHARE * pause or self.silent_seconds < pause:
                idle_since = now
            silent = self.silent_seconds
            stalled = min(silent, self._clock() - idle_since)
            if stalled >= stall_seconds or silent >= silent_seconds:
                return silent


def _is_heartbeat(message: Message) -> bool:
    """A comment in a stream of events."""
    return bool(message.get("body", b"").startswith(b":"))


def computed_seconds(pid: int) -> float:
    """Processor time that a process and its descendants have used. Takes milliseconds."""
    try:
        root = psutil.Process(pid)
        return sum(_used(process) for process in (root, *root.children(recursive=True)))
    except psutil.Error:
        return 0.0


def _used(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
        return float(times.user + times.system)
    except psutil.Error:
        return 0.0
