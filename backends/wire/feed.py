"""What one request gets, on its way from an engine's thread to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Generic, TypeVar

from backends.wire.events import Choice, Event

T = TypeVar("T")


class Feed(Generic[T]):
    """Made on the event loop; iterating it there gives what a thread puts in, until None, and
    raises an error that it puts in."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[T | Exception | None] = asyncio.Queue()

    def put(self, item: T | Exception | None) -> None:
        """From the thread; None is the end. A loop that has ended has nobody left to tell."""
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        except RuntimeError:
            pass

    async def __aiter__(self) -> AsyncIterator[T]:
        while (item := await self._queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item


async def side_by_side(
    answers: Sequence[AsyncGenerator[Event, None]],
) -> AsyncGenerator[Choice, None]:
    """The events of all `answers` as they come. Closing it closes them, and so does the first error
    of one, which it raises."""
    feed = Feed[Choice]()
    tasks = [asyncio.create_task(_pass_on(i, answer, feed)) for i, answer in enumerate(answers)]
    left = len(tasks)
    try:
        while left:
            async for choice in feed:
                yield choice
            left -= 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_on(index: int, answer: AsyncGenerator[Event, None], feed: Feed[Choice]) -> None:
    """None is put after the last event, and an error instead of what is missing."""
    async with aclosing(answer):
        try:
            async for event in answer:
                feed.put(Choice(index, event))
        except Exception as error:
            feed.put(error)
        else:
            feed.put(None)
