"""What one request gets, on its way from an engine's thread to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

from backends.errors import EngineError

T = TypeVar("T")


class Feed(Generic[T]):
    """Made on the event loop; iterating it there gives what a thread puts in, until None, and
    raises an error that it puts in."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[T | EngineError | None] = asyncio.Queue()

    def put(self, item: T | EngineError | None) -> None:
        """From the thread; None is the end. A loop that has ended has nobody left to tell."""
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        except RuntimeError:
            pass

    async def __aiter__(self) -> AsyncIterator[T]:
        while (item := await self._queue.get()) is not None:
            if isinstance(item, EngineError):
                raise item
            yield item
