from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from backends.base import Instance
from backends.memory import MachineMemory
from router.errors import ModelTooBigError
from router.gauge import Gauge, Look
from tests.router.entries import entry
from tests.router.pools import Engines, pooled, stays
from tests.slack import run
from tests.waiting import until

GIB = 2**30
PLENTY = MachineMemory(total_bytes=100 * GIB, available_bytes=80 * GIB)


def test_a_machine_has_room_up_to_the_soft_mark_and_is_short_from_the_hard_one_on() -> None:
    seen = [Look(MachineMemory(100, available)) for available in (80, 15, 10, 4)]
    assert [one.room_bytes for one in seen] == [65, 0, -5, -11]
    assert [one.short_bytes for one in seen] == [0, 0, 0, 1]


def test_a_loaded_model_is_measured_and_what_is_reserved_corrected(tmp_path: Path) -> None:
    def looks(instances: Sequence[Instance]) -> Look:
        return Look(PLENTY, dict.fromkeys(instances, 42))

    async def main() -> None:
        async with pooled(Engines(tmp_path)) as pool, Gauge(pool, looks).running():
            async with pool.lease(entry("a"), stays):
                await until(lambda: pool.status()[0].reserved_bytes == 42)
            (status,) = pool.status()
            assert status.measured_bytes == 42

    run(main())


def test_what_a_stopped_one_does_not_give_back_is_not_given_out_until_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An engine that is stuck in the daemon keeps its memory, and may come back."""
    engines, held = Engines(tmp_path), [7]

    def looks(instances: Sequence[Instance]) -> Look:
        return Look(PLENTY, dict.fromkeys(instances, held[0] or None))

    async def main() -> None:
        async with pooled(engines, budget_bytes=10) as pool:
            async with pool.lease(entry("a", weights_bytes=5), stays):
                (instance,) = pool.instances()
            monkeypatch.setattr(type(instance), "used_bytes", lambda _: held[0])
            pool.unload(entry("a", weights_bytes=5))
            await until(lambda: pool.scheduler.lost_bytes == 7 and not pool.status())
            with pytest.raises(ModelTooBigError):
                await pool.load(entry("b", weights_bytes=5))
            pool.measured({})
            assert pool.scheduler.lost_bytes == 7
            async with Gauge(pool, looks).running():
                held[0] = 0
                await until(lambda: pool.scheduler.lost_bytes == 0)
            await pool.load(entry("b", weights_bytes=5))
            assert pool.scheduler.reserved_bytes == 5
        assert "are held by what was stopped" in caplog.text

    run(main())


def test_a_short_machine_is_told_once_and_keeps_new_models_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    available = [10 * GIB]
    looked = 0

    def looks(instances: Sequence[Instance]) -> Look:
        nonlocal looked
        looked += 1
        return Look(MachineMemory(100 * GIB, available[0]))

    async def main() -> None:
        async with pooled(Engines(tmp_path)) as pool, Gauge(pool, looks).running():
            await until(lambda: pool.scheduler.room_bytes is not None)
            async with pool.lease(entry("a"), stays):
                waiter = asyncio.create_task(pool.load(entry("b")))
                await until(lambda: "b" in {t.key for t in pool.scheduler.queue.values()})
                seen = looked
                await until(lambda: looked > seen + 1)
                assert not waiter.done()
                available[0] = 80 * GIB
                await waiter

    with caplog.at_level(logging.WARNING, "router"):
        run(main())
    assert caplog.text.count("The machine has 10.0 GiB of 100.0 GiB left") == 1


def test_a_look_that_fails_is_not_the_last(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    looked = 0

    def looks(instances: Sequence[Instance]) -> Look:
        nonlocal looked
        looked += 1
        if looked == 1:
            raise ZeroDivisionError
        return Look(PLENTY)

    async def main() -> None:
        async with pooled(Engines(tmp_path)) as pool, Gauge(pool, looks).running():
            await until(lambda: pool.scheduler.room_bytes is not None)

    run(main())
    assert "ZeroDivisionError" in caplog.text
