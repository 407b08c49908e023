from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from concurrent.futures import CancelledError
from functools import partial

import pytest

from backends.errors import EngineSilentError
from backends.mlx.thread import EngineThread, Work, once
from tests.slack import run


def steps(log: list[str], name: str, count: int) -> Work[str]:
    for i in range(count):
        log.append(f"{name}{i}")
        yield
    return name


def test_works_take_turns_step_by_step() -> None:
    thread = EngineThread()
    log: list[str] = []
    held = threading.Event()
    thread.submit(once(held.wait))
    futures = [thread.submit(steps(log, name, 3)) for name in "ab"]
    held.set()
    assert [future.result(5) for future in futures] == ["a", "b"]
    assert log == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_single_steps_are_taken_in_the_order_they_came() -> None:
    thread = EngineThread()
    log: list[int] = []
    futures = [thread.submit(once(partial(log.append, i))) for i in range(50)]
    futures[-1].result(5)
    assert log == list(range(50))


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1)])
def test_what_a_work_raises_ends_that_work_alone(error: BaseException) -> None:
    def fail() -> None:
        raise error

    thread = EngineThread()
    with pytest.raises(type(error)):
        thread.submit(once(fail)).result(5)
    assert thread.submit(once(lambda: "alive")).result(5) == "alive"


def test_a_cancelled_work_is_closed_before_its_next_step() -> None:
    thread = EngineThread()
    closed = threading.Event()
    stepped = threading.Event()

    def endless() -> Work[None]:
        try:
            while True:
                stepped.set()
                yield
        finally:
            closed.set()

    future = thread.submit(endless())
    assert stepped.wait(5)
    assert future.cancel()
    assert closed.wait(5)
    with pytest.raises(CancelledError):
        future.result(5)


def test_a_coroutine_that_is_cancelled_takes_its_work_along() -> None:
    closed = threading.Event()

    def endless() -> Work[None]:
        try:
            while True:
                yield
        finally:
            closed.set()

    async def main() -> None:
        task = asyncio.create_task(EngineThread().run(endless()))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    assert closed.wait(5)


def test_nothing_of_a_finished_work_is_kept() -> None:
    class Weight:
        pass

    def work(weight: Weight) -> Work[None]:
        yield

    thread = EngineThread()
    weight = Weight()
    gone = weakref.ref(weight)
    thread.submit(work(weight)).result(5)
    del weight
    thread.submit(once(gc.collect)).result(5)
    assert gone() is None


def test_nobody_waits_for_a_step_that_does_not_come_back() -> None:
    async def main() -> None:
        thread, held = EngineThread(stall_seconds=0.2), threading.Event()
        first = asyncio.create_task(thread.call(held.wait))
        await asyncio.sleep(0)
        with pytest.raises(EngineSilentError, match="restart that, or run mlx with"):
            await thread.call(lambda: None)
        with pytest.raises(EngineSilentError):
            await first
        held.set()
        thread.submit(once(lambda: None)).result(5)
        assert await thread.call(lambda: "back") == "back"

    run(main())


def test_a_step_that_computes_for_long_is_not_taken_for_stuck() -> None:
    def compute() -> str:
        ends_at = time.monotonic() + 2.0
        while time.monotonic() < ends_at:
            sum(range(1000))
        return "done"

    async def main() -> None:
        assert await EngineThread(stall_seconds=1.0).call(compute) == "done"

    run(main())
