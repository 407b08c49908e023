"""How long nothing was said in a stream: clients and proxies give up on one that is silent."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

QUIET_SECONDS = 10.0
"""The longest silence. An error before its end still has a status of its own, and clients and
proxies give up after a minute at the earliest."""


class Silence:
    """It is broken whenever something is said."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def broken(self) -> None:
        self._since = time.monotonic()

    async def ends(self) -> AsyncIterator[None]:
        """Each time it has lasted for long enough; then another one begins."""
        while True:
            left = self._since + QUIET_SECONDS - time.monotonic()
            if left > 0:
                await asyncio.sleep(left)
            else:
                self.broken()
                yield


@contextlib.asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do it while the block lasts; what it raises is nobody's."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
