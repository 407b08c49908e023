"""The one thread of this process that touches MLX: it runs works in turn, a step of each.

A work is a generator whose every step is short: loading yields between slices of weights, decoding
between tokens. So a model that loads or prefills never holds up another one for longer than a step.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
Work = Generator[None, None, T]


@dataclass(slots=True)
class _Job:
    work: Work[Any]
    result: Future[Any]


class EngineThread:
    """Starts with its first work and then waits for more; a daemon thread, so it never delays
    the process's end."""

    def __init__(self) -> None:
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

    async def run(self, work: Work[T]) -> T:
        return await asyncio.wrap_future(self.submit(work))

    async def call(self, function: Callable[[], T]) -> T:
        return await self.run(once(function))

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
            if _step(job):
                jobs.append(job)
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
