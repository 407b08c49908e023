"""Looks from time to time at what instances really hold, and at what the machine has left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from backends.base import Instance
from backends.memory import MachineMemory, machine_memory
from router import explain
from router.pool import Pool

log = logging.getLogger("router")

LOOK_SECONDS = 1.0

SOFT, HARD = 0.85, 0.95
"""Shares of the machine's memory in use: from the first on nothing is loaded beside what is
loaded already, from the second on what is idle leaves."""


@dataclass(frozen=True, slots=True)
class Look:
    machine: MachineMemory
    used_bytes: Mapping[Instance, int | None] = field(default_factory=dict)

    @property
    def room_bytes(self) -> int:
        """What it can give before it gets short; negative where it is."""
        return self.machine.available_bytes - int(self.machine.total_bytes * (1 - SOFT))

    @property
    def short_bytes(self) -> int:
        """What it lacks, badly."""
        least_bytes = int(self.machine.total_bytes * (1 - HARD))
        return max(0, least_bytes - self.machine.available_bytes)


def look(instances: Sequence[Instance]) -> Look:
    """Takes milliseconds for each."""
    return Look(machine_memory(), {one: one.used_bytes() for one in instances})


class Gauge:
    def __init__(self, pool: Pool, looks: Callable[[Sequence[Instance]], Look] = look) -> None:
        self._pool = pool
        self._looks = looks
        self._short = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gauge")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._look_on())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _look_on(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                instances = self._pool.instances()
                self._tell(await loop.run_in_executor(self._thread, self._looks, instances))
            except Exception:
                # Whatever it is, the next look may be luckier.
                log.exception("The memory in use could not be looked at")
            await asyncio.sleep(LOOK_SECONDS)

    def _tell(self, seen: Look) -> None:
        short = seen.room_bytes < 0
        if short and not self._short:
            log.warning(
                "The machine has %s of %s left: no model is loaded beside others until it has more",
                explain.size(seen.machine.available_bytes),
                explain.size(seen.machine.total_bytes),
            )
        self._short = short
        self._pool.measured(seen.used_bytes)
        self._pool.machine(seen.room_bytes, seen.short_bytes)
