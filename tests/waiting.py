"""Waiting for what nobody announces; the test's own time limit ends a wait for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(true: Callable[[], object]) -> None:
    while not true():  # noqa: ASYNC110 - the condition is outside this event loop's reach
        await asyncio.sleep(0.005)
