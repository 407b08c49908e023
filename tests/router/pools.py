"""A pool of fake engines, and who is alive in it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable

import psutil

from backends.base import Backend, InstanceOptions
from router.pool import Pool
from router.runtime import runtime_dir
from router.scheduler import Scheduler
from router.ways import Ways
from tests import processes
from tests.fake_engine import FakeBackend, FakeEngine
from tests.slack import within


class Engines(FakeBackend):
    """Fake engines that keep behaving as they were told, however often they are named."""

    def engine(self, model: str) -> FakeEngine:
        known = self._engines.get(model)
        return known if known is not None else super().engine(model)


@contextlib.asynccontextmanager
async def pooled(
    *engines: Backend,
    budget_bytes: int = 100,
    max_queue: int = 64,
    queue_seconds: float = 600.0,
    start_seconds: float = 60.0,
) -> AsyncIterator[Pool]:
    scheduler = Scheduler(
        budget_bytes, max_queue=max_queue, queue_seconds=queue_seconds, clock=time.monotonic
    )
    with runtime_dir() as folder:
        options = InstanceOptions(runtime_dir=folder, start_timeout_seconds=start_seconds)
        backends = {backend.name: backend for backend in engines}
        # An idle uvloop does not hear the alarm that ends a test which waits for ever.
        async with (
            asyncio.timeout(within(10)),
            Pool(Ways(backends, options), scheduler) as pool,
        ):
            yield pool


async def stays() -> None:
    """A client that does not leave."""
    await asyncio.Event().wait()


def alive(pids: Iterable[int]) -> list[int]:
    return [pid for pid in pids if processes.alive(pid)]


def family(pid: int | None) -> list[int]:
    """A process and all that come of it."""
    assert pid is not None
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
