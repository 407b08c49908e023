from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from backends.base import InstanceOptions, InstanceState
from backends.served import ServedByChild
from detect.types import ModelInfo
from router.entry import ModelEntry
from router.errors import (
    CircuitOpenError,
    ClientGoneError,
    ModelTooBigError,
    OutOfMemoryError,
    QueueFullError,
    QueueTimeoutError,
    RouterError,
    ShuttingDownError,
    StartFailedError,
    UnknownModelError,
    UnservableModelError,
)
from router.model_settings import ModelSettings
from router.pool import Pool
from router.preference import Choice
from router.registry import Registry
from router.scheduler import SlotState, Waiting
from tests.router.entries import entry, no, yes
from tests.router.pools import Engines, alive, family, pooled, stays
from tests.slack import run
from tests.waiting import until

A, B, C = entry("a"), entry("b"), entry("c")

Gone = Callable[[], Awaitable[None]]


@pytest.fixture
def fake(tmp_path: Path) -> Engines:
    return Engines(tmp_path)


async def visit(pool: Pool, model: ModelEntry, gone: Gone = stays) -> int | None:
    """Lease and let go; the pid of the process that would have answered."""
    async with pool.lease(model, gone) as instance:
        return instance.status().pid


async def load(pool: Pool, *models: ModelEntry) -> None:
    for model in models:
        await visit(pool, model)


def waiting(pool: Pool) -> dict[str, Waiting]:
    return {ticket.key: ticket.waiting for ticket in pool.scheduler.queue.values()}


def leases(pool: Pool) -> dict[str, int]:
    return {status.model: status.leases for status in pool.status()}


# Leases


def test_a_lease_loads_a_cold_model_and_leaves_it_loaded(fake: Engines) -> None:
    async def main() -> None:
        async with pooled(fake) as pool:
            assert pool.status() == []
            async with pool.lease(A, stays) as instance:
                (status,) = pool.status()
                assert instance.status().state is InstanceState.READY
                assert (status.model, status.engine, status.state) == ("a", "fake", "ready")
                assert (status.leases, status.reserved_bytes) == (1, 10)
                assert status.instance == instance.status()
            assert leases(pool) == {"a": 0}
            assert alive(fake.engine("a").pids())
            await load(pool, A, A)
        assert len(fake.engine("a").records("listening")) == 1

    run(main())


def test_concurrent_cold_requests_share_one_start(fake: Engines) -> None:
    async def main() -> None:
        async with pooled(fake) as pool:
            pids = await asyncio.gather(*(visit(pool, A) for _ in range(10)))
            assert len(set(pids)) == 1
            assert leases(pool) == {"a": 0}
        assert len(fake.engine("a").records("canary")) == 1

    run(main())


def test_a_lease_is_released_when_its_block_raises(fake: Engines) -> None:
    async def main() -> None:
        async with pooled(fake) as pool:
            with pytest.raises(ZeroDivisionError):
                async with pool.lease(A, stays):
                    raise ZeroDivisionError
            assert leases(pool) == {"a": 0}

    run(main())


def test_two_models_that_fit_are_loaded_side_by_side(fake: Engines) -> None:
    async def main() -> None:
        async with (
            pooled(fake, budget_bytes=20) as pool,
            pool.lease(A, stays),
            pool.lease(B, stays),
        ):
            assert leases(pool) == {"a": 1, "b": 1}
            assert len(alive(fake.engine("a").pids() + fake.engine("b").pids())) == 2

    run(main())


# Memory


def test_an_idle_model_is_ended_before_the_next_one_starts_when_memory_is_short(
    fake: Engines,
) -> None:
    async def main() -> None:
        async with pooled(fake, budget_bytes=10) as pool:
            await load(pool, A)
            async with pool.lease(B, stays):
                assert not alive(fake.engine("a").pids())
                assert leases(pool) == {"b": 1}
            await load(pool, A)
            assert leases(pool) == {"a": 0}
        assert len(fake.engine("a").records("listening")) == 2

    run(main())


def test_the_least_recently_used_model_is_the_one_that_leaves(fake: Engines) -> None:
    async def main() -> None:
        async with pooled(fake, budget_bytes=20) as pool:
            await load(pool, A, B)
            # Long, beside what their loads differ by: it counts in proportion to that.
            await asyncio.sleep(1.0)
            await load(pool, A, C)
            assert leases(pool) == {"a": 0, "c": 0}

    run(main())


def test_a_leased_model_is_never_stopped_and_the_other_waits(fake: Engines) -> None:
    async def main() -> None:
        async with pooled(fake, budget_bytes=10) as pool:
            async with pool.lease(A, stays):
                waits = asyncio.create_task(visit(pool, B))
                await until(lambda: waiting(pool))
                assert waiting(pool) == {"b": Waiting.MEMORY}
                await asyncio.sleep(0.1)
                assert alive(fake.engine("a").pids())
                assert fake.engine("b").records("listening") == []
                assert leases(pool) == {"a": 1}
            assert await waits
            assert not alive(fake.engine("a").pids())

    run(main())


def test_a_model_that_never_fits_is_refused_and_evicts_nobody(fake: Engines) -> None:
    async def main() -> None:
        async with pooled(fake, budget_bytes=10) as pool:
            await load(pool, A)
            with pytest.raises(ModelTooBigError):
                await visit(pool, entry("huge", weights_bytes=11))
            assert leases(pool) == {"a": 0}

    run(main())


def test_a_wait_for_memory_ends_after_the_time_allowed(fake: Engines) -> None:
    async def main() -> None:
        async with pooled(fake, budget_bytes=10, queue_seconds=0.05) as pool:
            async with pool.lease(A, stays):
                with pytest.raises(QueueTimeoutError):
                    await visit(pool, B)
                assert waiting(pool) == {}
            assert await visit(pool, A)

    run(main())


def test_a_full_queue_refuses_at_once(fake: Engines) -> None:
    async def main() -> None:
        async with pooled(fake, max_queue=1) as pool:
            first = asyncio.create_task(visit(pool, A))
            await until(lambda: waiting(pool))
            with pytest.raises(QueueFullError):
                await visit(pool, B)
            assert await first

    run(main())


# Crashes and failed starts


def test_a_model_that_crashed_while_leased_is_started_again_by_the_next_request(
    fake: Engines,
) -> None:
    async def main() -> None:
        async with pooled(fake, budget_bytes=10) as pool:
            async with pool.lease(A, stays) as instance:
                before = instance.status().pid
                os.kill(fake.engine("a").pids()[0], signal.SIGKILL)
                await until(lambda: not pool.status())
                async with pool.lease(A, stays) as another:
                    assert another is not instance
                    assert another.status().pid != before
                    assert leases(pool) == {"a": 1}
            assert leases(pool) == {"a": 0}
            assert pool.scheduler.reserved_bytes == 10

    run(main())


def test_a_failed_start_is_told_to_all_who_wait_and_tried_again_at_the_next_request(
    fake: Engines,
) -> None:
    engine = fake.engine("a")
    engine.behave(exit_at_start=3, start_seconds=0.1, words=["cannot open /home/me/secret"])

    async def main() -> None:
        async with pooled(fake, budget_bytes=10) as pool:
            attempts = [visit(pool, A) for _ in range(3)]
            told = await asyncio.gather(*attempts, return_exceptions=True)
            assert [type(error) for error in told] == [StartFailedError] * 3
            assert str(told[0]) == (
                "a could not be loaded with fake: fake ended while it loaded the model."
            )
            assert pool.status() == []
            assert pool.scheduler.reserved_bytes == 0
            engine.behave()
            assert await visit(pool, A)

    run(main())


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ({"exit_at_start": 0}, "ended while it loaded the model"),
        ({"exit_at_canary": 1}, "ended at its first token"),
        ({"canary_status": 500}, "could not generate a token (status 500)"),
        ({"never_ready": True}, "was not ready after 0.5 s"),
        ({"canary_hangs": True}, "was not ready after 0.5 s"),
    ],
    ids=str,
)
def test_a_start_that_fails_in_any_way_leaves_no_process_and_no_memory_reserved(
    fake: Engines, behaviour: dict[str, object], words: str
) -> None:
    fake.engine("a").behave(**behaviour)

    async def main() -> None:
        async with pooled(fake, start_seconds=0.5 if "0.5" in words else 60.0) as pool:
            with pytest.raises(StartFailedError, match=r"^a could not be loaded") as caught:
                await visit(pool, A)
            assert words in caught.value.message
            assert pool.scheduler.slots == {}
            assert not alive(fake.engine("a").pids())

    run(main())


class Vanished(Engines):
    """Cannot even make an instance: the model's folder was deleted after the scan."""

    def create(self, model_id: str, info: ModelInfo, options: InstanceOptions) -> ServedByChild:
        raise FileNotFoundError("/home/me/secret")


def test_an_instance_that_cannot_be_made_is_a_failed_start_too(tmp_path: Path) -> None:
    async def main() -> None:
        async with pooled(Vanished(tmp_path)) as pool:
            for _ in range(2):
                with pytest.raises(StartFailedError) as caught:
                    await visit(pool, A)
                assert "secret" not in caught.value.message
            assert pool.scheduler.slots == {}

    run(main())


# Clients that leave


def test_a_client_that_leaves_the_queue_takes_its_ticket_along(fake: Engines) -> None:
    async def main() -> None:
        left = asyncio.Event()

        async def gone() -> None:
            await left.wait()

        async with pooled(fake, budget_bytes=10) as pool, pool.lease(A, stays):
            leaver = asyncio.create_task(visit(pool, B, gone))
            await until(lambda: waiting(pool))
            behind = asyncio.create_task(visit(pool, A))
            await until(lambda: len(waiting(pool)) == 2)
            left.set()
            with pytest.raises(ClientGoneError):
                await leaver
            assert await behind
            assert waiting(pool) == {}
            assert leases(pool) == {"a": 1}

    run(main())


def test_a_client_that_leaves_while_its_model_loads_does_not_end_the_load(
    fake: Engines,
) -> None:
    fake.engine("a").behave(start_seconds=0.2)

    async def gone() -> None:
        return

    async def main() -> None:
        async with pooled(fake) as pool:
            with pytest.raises(ClientGoneError):
                await visit(pool, A, gone)
            assert waiting(pool) == {}
            assert pool.scheduler.slots["a"].state is SlotState.STARTING
            assert await visit(pool, A)
        assert len(fake.engine("a").records("listening")) == 1

    run(main())


def test_a_cancelled_request_takes_its_ticket_along(fake: Engines) -> None:
    async def main() -> None:
        async with pooled(fake, budget_bytes=10) as pool, pool.lease(A, stays):
            task = asyncio.create_task(visit(pool, B))
            await until(lambda: waiting(pool))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert waiting(pool) == {}

    run(main())


def test_a_request_cancelled_in_the_moment_it_is_granted_gives_its_lease_back(
    fake: Engines,
) -> None:
    async def main() -> None:
        async with pooled(fake) as pool:
            task = asyncio.create_task(visit(pool, A))
            await until(lambda: waiting(pool))
            while not pool.scheduler.slots["a"].leases:  # noqa: ASYNC110 - the very next turn
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert leases(pool) == {"a": 0}

    run(main())


# The end


def test_a_pool_that_has_done_nothing_is_drained(fake: Engines) -> None:
    async def main() -> None:
        async with pooled(fake) as pool:
            assert repr(pool) == "<Pool empty>"
            await pool.drained()

    run(main())


def test_after_close_what_waits_and_comes_is_refused_and_what_runs_goes_on(
    fake: Engines,
) -> None:
    async def main() -> None:
        async with pooled(fake, budget_bytes=10) as pool:
            async with pool.lease(A, stays):
                waits = asyncio.create_task(visit(pool, B))
                await until(lambda: waiting(pool))
                pool.close()
                with pytest.raises(ShuttingDownError):
                    await waits
                with pytest.raises(ShuttingDownError):
                    await visit(pool, A)
                draining = asyncio.create_task(pool.drained())
                await asyncio.sleep(0.05)
                assert not draining.done()
                assert alive(fake.engine("a").pids())
            await draining
            assert leases(pool) == {"a": 0}

    run(main())


def test_stop_all_ends_every_process_even_under_a_lease(fake: Engines) -> None:
    async def main() -> None:
        async with pooled(fake) as pool, pool.lease(A, stays):
            await load(pool, B)
            processes = [pid for s in pool.status() for pid in family(s.instance.pid)]
            assert len(alive(processes)) >= 4  # a guard and an engine each
            await pool.stop_all(5.0)
            assert not alive(processes)
            assert pool.status() == []
            await pool.stop_all(0.0)
            with pytest.raises(ShuttingDownError):
                await visit(pool, A)

    run(main())


def test_leaving_the_block_with_an_error_ends_every_process_and_passes_it_on(
    fake: Engines,
) -> None:
    async def main() -> None:
        async with pooled(fake) as pool:
            await load(pool, A, B)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main())
    pids = fake.engine("a").pids() + fake.engine("b").pids()
    assert len(pids) == 2
    assert not alive(pids)


def test_leaving_the_block_in_the_middle_of_a_load_leaves_no_process(fake: Engines) -> None:
    fake.engine("a").behave(start_seconds=60.0, grandchild="group")

    async def main() -> list[int]:
        async with pooled(fake) as pool:
            asking = asyncio.create_task(visit(pool, A))
            await until(lambda: fake.engine("a").records("grandchild"))
            (status,) = pool.status()
            assert status.state == "starting"
            processes = family(status.instance.pid)
            assert len(processes) >= 3
        with pytest.raises(ShuttingDownError):
            await asking
        return processes

    assert not alive(run(main()))


def test_an_engine_that_ignores_the_request_to_end_is_killed_by_a_second_impatient_call(
    fake: Engines,
) -> None:
    fake.engine("a").behave(deaf=True)

    async def main() -> None:
        async with pooled(fake) as pool:
            await load(pool, A)
            patient = asyncio.create_task(pool.stop_all(600.0))
            await until(lambda: pool.status()[0].instance.state is InstanceState.STOPPING)
            assert alive(fake.engine("a").pids())
            await pool.stop_all(0.0)
            await patient
            assert not alive(fake.engine("a").pids())

    run(main())


# Everything at once


def test_in_a_storm_of_requests_everyone_is_served_and_memory_is_kept(fake: Engines) -> None:
    chance = random.Random(7)
    models = [A, B, C, entry("d", weights_bytes=20)]
    over: list[int] = []

    async def client(pool: Pool, number: int) -> str:
        async def gone() -> None:
            await asyncio.sleep(0.02 if number % 7 == 0 else 3600)

        await asyncio.sleep(chance.random() * 0.3)
        try:
            async with pool.lease(chance.choice(models), gone) as instance:
                pid = instance.status().pid
                await asyncio.sleep(chance.random() * 0.05)
                assert instance.status().pid == pid
                assert instance.status().state is InstanceState.READY
                over.append(max(0, pool.scheduler.reserved_bytes - 20))
                return "served"
        except (ClientGoneError, RouterError) as error:
            return type(error).__name__

    async def main() -> None:
        async with pooled(fake, budget_bytes=20) as pool:
            ends = await asyncio.gather(*(client(pool, n) for n in range(1, 41)))
            assert set(ends) <= {"served", "ClientGoneError"}
            assert ends.count("served") >= 30
            assert not any(over)
            assert pool.scheduler.queue == {}
            assert not any(leases(pool).values())

    run(main())
    assert not alive(pid for m in models for pid in fake.engine(m.id).pids())


# Models that change


def other(model: ModelEntry) -> ModelEntry:
    """The same name, with other files behind it."""
    return replace(model, fingerprint=(("m.gguf", 1, 2, 3),))


def test_a_changed_model_is_loaded_anew_and_others_run_on(fake: Engines) -> None:
    async def main() -> None:
        async with pooled(fake) as pool:
            await load(pool, A, B)
            pids = {status.model: status.instance.pid for status in pool.status()}
            pool.follow(Registry([other(A), B]))
            await until(lambda: [status.model for status in pool.status()] == ["b"])
            assert await visit(pool, other(A)) != pids["a"]
            assert await visit(pool, B) == pids["b"]

    run(main())


def test_a_removed_model_ends_when_its_last_answer_is_done(fake: Engines) -> None:
    async def main() -> None:
        async with pooled(fake) as pool:
            async with pool.lease(A, stays):
                pool.follow(Registry([B]))
                assert leases(pool) == {"a": 1}
            await until(lambda: pool.status() == [])

    run(main())


def test_who_waited_while_the_model_changed_gets_the_new_one(fake: Engines) -> None:
    async def main() -> None:
        async with pooled(fake) as pool:
            async with pool.lease(A, stays) as instance:
                old = instance.status().pid
                pool.follow(Registry([other(A)]))
                waiter = asyncio.create_task(visit(pool, other(A)))
                await until(lambda: waiting(pool) == {"a": Waiting.UNLOADING})
            assert await waiter != old
            pool.follow(Registry([other(A)]))
            assert [status.state for status in pool.status()] == ["ready"]

    run(main())


def test_a_registry_that_says_the_same_changes_nothing(fake: Engines) -> None:
    async def main() -> None:
        async with pooled(fake) as pool:
            pid = await visit(pool, A)
            pool.follow(Registry([entry("a")]))
            assert await visit(pool, A) == pid

    run(main())


def test_a_model_that_would_be_started_otherwise_now_is_started_anew(fake: Engines) -> None:
    async def main() -> None:
        small = entry("small", context_length=512)
        own = replace(A, settings=ModelSettings(id="a", context_length=2048))
        registry = Registry([own, B, small])
        async with pooled(fake) as pool:
            pool.ways.options = replace(pool.ways.options, context_length=4096)
            await load(pool, own, B, small)
            assert pool.follow(registry) == []
            pool.ways.options = replace(
                pool.ways.options, context_length=1024, start_timeout_seconds=9.0
            )
            # One has its own bound, and one has no more context than before.
            assert pool.follow(registry) == ["b"]
            await until(lambda: sorted(leases(pool)) == ["a", "small"])
            pool.ways.options = replace(pool.ways.options, parallel=7)
            assert pool.follow(registry) == ["a", "small"]

    run(main())


def test_a_context_that_is_said_and_is_the_usual_one_changes_nothing(fake: Engines) -> None:
    async def main() -> None:
        async with pooled(fake) as pool:
            pool.ways.options = replace(pool.ways.options, context_length=4096)
            await load(pool, A)
            own = replace(A, settings=ModelSettings(id="a", context_length=4096))
            assert pool.follow(Registry([own])) == []

    run(main())


def test_a_loaded_model_stays_as_it_is_told_now(fake: Engines) -> None:
    async def main() -> None:
        async with pooled(fake) as pool:
            await load(pool, A, B)
            pool.follow(Registry([replace(A, settings=ModelSettings(id="a", pin=True)), B]))
            assert {status.model: status.pinned for status in pool.status()} == {
                "a": True, "b": False
            }  # fmt: skip
            pool.idle_seconds = 0.01
            pool.follow(Registry([A, B]))
            await until(lambda: pool.status() == [])

    run(main())


def test_who_waits_for_a_model_that_is_removed_or_cannot_be_run_is_told(fake: Engines) -> None:
    async def main() -> None:
        async with pooled(fake, budget_bytes=10) as pool:
            for registry, refusal in (
                (Registry([A]), UnknownModelError),
                (Registry([A, entry("b", no("fake"))]), UnservableModelError),
            ):
                async with pool.lease(A, stays):
                    waiter = asyncio.create_task(visit(pool, B))
                    await until(lambda: waiting(pool) == {"b": Waiting.MEMORY})
                    pool.follow(registry)
                    with pytest.raises(refusal):
                        await waiter

    run(main())


def test_a_removed_model_that_answers_until_the_end_ends_with_the_rest(fake: Engines) -> None:
    async def main() -> None:
        async with pooled(fake) as pool, pool.lease(A, stays):
            pool.follow(Registry([B]))
            await pool.stop_all(0.0)
            assert pool.status() == []

    run(main())


def test_a_refusal_that_meets_a_cancellation_leaves_no_complaint(fake: Engines) -> None:
    async def main() -> None:
        complaints: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        async with pooled(fake, budget_bytes=10) as pool, pool.lease(A, stays):
            waiter = asyncio.create_task(visit(pool, B))
            await until(lambda: waiting(pool) == {"b": Waiting.MEMORY})
            pool.close()
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
            del waiter
            gc.collect()
        assert complaints == []

    run(main())


# Engines that refuse, starve, and fail again and again


class Second(Engines):
    name = "second"


def either(model_id: str) -> ModelEntry:
    both = replace(entry(model_id, yes("fake"), yes("second")), choice=Choice("fake", "first"))
    return replace(both, fingerprint=((model_id, 1, 2, 3),))


def test_a_model_that_one_engine_refuses_is_run_by_the_next(tmp_path: Path) -> None:
    first, second = Engines(tmp_path / "1"), Second(tmp_path / "2")
    first.engine("a").behave(exit_at_start=1, words=["no such tensor"])

    async def main() -> None:
        async with pooled(first, second) as pool:
            learned = asyncio.Event()
            pool.ways.learned = learned.set
            pids = await asyncio.gather(*(visit(pool, either("a")) for _ in range(3)))
            assert len(set(pids)) == 1
            (status,) = pool.status()
            assert status.engine == "second"
            assert learned.is_set()
            pool.follow(Registry([either("a")]))
            assert leases(pool) == {"a": 0}
            pool.unload(either("a"))
            await until(lambda: pool.status() == [])
            await load(pool, either("a"))
        assert len(second.engine("a").pids()) == 2

    run(main())
    assert first.engine("a").pids() == []


def test_a_model_that_every_engine_refuses_fails_with_the_last_one_and_is_left_alone(
    tmp_path: Path,
) -> None:
    first, second = Engines(tmp_path / "1"), Second(tmp_path / "2")
    for engines in (first, second):
        engines.engine("a").behave(exit_at_start=1, words=["no such tensor"])

    async def main() -> None:
        async with pooled(first, second) as pool:
            with pytest.raises(StartFailedError, match="with second") as caught:
                await load(pool, either("a"))
            assert caught.value.engine_said == ("no such tensor",)
            assert pool.scheduler.circuits["a"].failures == 1
            await load(pool, B)

    run(main())


def test_a_start_that_runs_out_of_memory_is_tried_once_more_without_the_idle_ones(
    fake: Engines,
) -> None:
    fake.engine("a").behave(exit_at_canary=1, words=["CUDA error: out of memory"])

    async def main() -> None:
        async with pooled(fake) as pool:
            await load(pool, B)
            async with pool.lease(C, stays):
                with pytest.raises(OutOfMemoryError):
                    await load(pool, A)
                assert leases(pool) == {"c": 1}
        assert len(fake.engine("a").records("canary")) == 2

    run(main())


def test_a_model_that_fails_is_left_alone_and_changed_files_arm_it_again(fake: Engines) -> None:
    fake.engine("a").behave(exit_at_start=1)

    async def main() -> None:
        async with pooled(fake) as pool:
            for _ in range(3):
                with pytest.raises(StartFailedError):
                    await load(pool, A)
            starts = len(fake.engine("a").records("listening"))
            with pytest.raises(CircuitOpenError, match="failed 3 times in a row"):
                await load(pool, A)
            await load(pool, B)
            assert len(fake.engine("a").records("listening")) == starts
            fake.engine("a").behave()
            pool.follow(Registry([A, B]))
            with pytest.raises(CircuitOpenError):
                await load(pool, A)
            pool.follow(Registry([other(A), B]))
            await load(pool, other(A))

    run(main())


def test_what_was_measured_is_remembered_for_the_next_load(fake: Engines) -> None:
    async def main() -> None:
        async with pooled(fake) as pool:
            async with pool.lease(A, stays) as instance:
                pool.measured({instance: 30})
                assert pool.status()[0].reserved_bytes == 30
                pool.measured({instance: 20})
                assert pool.status()[0].reserved_bytes == 30
                pool.measured({instance: None})
                assert pool.status()[0].reserved_bytes == 30
            pool.unload(A)
            await until(lambda: pool.status() == [])
            await load(pool, A)
            assert pool.status()[0].reserved_bytes == 30

    run(main())
