"""The one thread of this process that touches MLX: it runs works in turn, a step of each.

A work is a generator whose every step is short: loading yields between slices of weights, decoding
between tokens. So a model that loads or prefills never holds up another one for longer than a step.
A step that never ends cannot be ended either: it is noticed, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from backends.errors import EngineSilentError

T = TypeVar("T")
Work = Generator[None, None, T]

BUSY_SHARE = 0.1
"""Of one processor, during a step: MLX on a CPU uses more, even on a busy machine, and the rest of
the daemon mostly less."""

LOOKS = 4
"""In the time after which a step is taken for stuck."""


@dataclass(slots=True)
class _Job:
    work: Work[Any]
    result: Future[Any]


@dataclass(frozen=True, slots=True)
class _Began:
    """When a step began, and the processor time that the process had used by then, in seconds."""

    at: float
    computed: float


class EngineThread:
    """Starts with its first work and then waits for more; a daemon thread, so it never delays
    the process's end. A step that computes nothing for `stall_seconds` is taken for stuck."""

    def __init__(self, stall_seconds: float = math.inf) -> None:
        self.stall_seconds = stall_seconds
        self._step: _Began | None = None
        self._inbox: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def submit(self, work: Work[T]) -> Future[T]:
        """Run `work`; the future has what it returns or raises. Cancelling the future closes the
        work before its next step."""
        job = _Job(work, Future())
        self._ensure_started()
        self._inbox.put(job)
        return job.result

    async def run(self, work: Work[T], *, in_any_case: bool = False) -> T:
        """What `work` returns or raises. It is closed when nobody waits for it any more, unless it
        is to be done `in_any_case`, as soon as the thread comes back.

        Raises:
            EngineSilentError: a step is stuck, of this work or of another one.
        """
        result = asyncio.wrap_future(self.submit(work))
        stuck = asyncio.create_task(self.stuck())
        either: list[asyncio.Future[Any]] = [result, stuck]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not result.done():
                raise stuck.result()
            return result.result()
        finally:
            if not in_any_case:
                result.cancel()
            stuck.cancel()

    async def call(self, function: Callable[[], T]) -> T:
        return await self.run(once(function))

    async def stuck(self) -> EngineSilentError:
        """Returns when a step is stuck, with what to say to those who wait."""
        if math.isinf(self.stall_seconds):
            await asyncio.Event().wait()
        while (seconds := self._idle_seconds()) < self.stall_seconds:  # noqa: ASYNC110 - it is a clock
            await asyncio.sleep(min(self.stall_seconds - seconds, self.stall_seconds / LOOKS))
        return EngineSilentError(
            f"mlx has been in one step for {seconds:.0f} s and computes nothing. "
            "Nothing within the router can end it: "
            "restart that, or run mlx with --isolation worker.",
            engine="mlx",
        )

    def _idle_seconds(self) -> float:
        """Of the step that is going on; 0 where it computes, or there is none."""
        if (step := self._step) is None:
            return 0.0
        seconds = time.monotonic() - step.at
        computed = time.process_time() - step.computed
        return seconds if computed < BUSY_SHARE * seconds else 0.0

    def _ensure_started(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="mlx-engine", daemon=True)
                self._thread.start()

    def _serve(self) -> None:
        jobs: deque[_Job] = deque()
        while True:
            self._take_new(jobs)
            job = jobs.popleft()
            self._step = _Began(time.monotonic(), time.process_time())
            if _step(job):
                jobs.append(job)
            self._step = None
            # Nothing of a finished job may outlive it: its frame holds the model's memory.
            del job

    def _take_new(self, jobs: deque[_Job]) -> None:
        """Everything that was submitted meanwhile; waits for it where there is nothing to do."""
        if not jobs:
            jobs.append(self._inbox.get())
        while not self._inbox.empty():
            jobs.append(self._inbox.get())


def once(function: Callable[[], T]) -> Work[T]:
    """A work of a single step."""
    result = function()
    yield from ()
    return result


def _step(job: _Job) -> bool:
    """Whether the work has more steps."""
    if job.result.cancelled():
        job.work.close()
        return False
    try:
        next(job.work)
    except StopIteration as end:
        _settle(job.result, end.value, None)
    except BaseException as error:
        # Even SystemExit, which a model's module may raise, ends this work alone.
        _settle(job.result, None, error)
    else:
        return True
    return False


def _settle(result: Future[Any], value: object, error: BaseException | None) -> None:
    if not result.set_running_or_notify_cancel():
        return
    if error is None:
        result.set_result(value)
    else:
        result.set_exception(error)
