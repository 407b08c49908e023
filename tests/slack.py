"""Limits on time, for machines that are busy: stated for a quiet one, multiplied here."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

SLACK = float(os.environ.get("TEST_SLACK", "5"))

T = TypeVar("T")


def within(seconds: float) -> float:
    """The limit for what takes at most `seconds` on a quiet machine."""
    return seconds * SLACK


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run on the event loop that the daemon runs on."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def soon(true: Callable[[], object], seconds: float) -> None:
    """Wait, outside of an event loop, for what should be true within quiet `seconds`."""
    deadline = time.monotonic() + within(seconds)
    while not true():
        assert time.monotonic() < deadline, f"not within {within(seconds):g} s"
        time.sleep(0.01)
