"""Performs the scheduler's Actions: the only place that starts and stops an engine."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from backends.base import ENDLESS, Instance, InstanceOptions, InstanceStatus
from backends.errors import EngineMemoryError, EngineRefusedError
from backends.headers import context_length
from router import explain, failures
from router.entry import ModelEntry
from router.errors import ClientGoneError, ModelBusyError, RouterError, UnknownModelError
from router.keep_alive import KeepAlive
from router.registry import Registry
from router.scheduler import Action, Grant, Reject, Scheduler, SlotState, Start, Stay, Stop
from router.tally import Tally
from router.ways import Ways

log = logging.getLogger("router")

PROGRESS_SECONDS = 5.0
STOP_GRACE_SECONDS = 5.0

Gone = Callable[[], Awaitable[None]]
"""Returns when the client has left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """One loaded model in `GET /router/status`."""

    model: str
    engine: str
    state: str
    leases: int
    queue: int
    """Requests that wait for it."""
    reserved_bytes: int
    measured_bytes: int | None
    """None until it was measured, and while it holds nothing."""
    weights_bytes: int
    loading_seconds: float | None
    """So far; None once it is loaded."""
    pinned: bool
    idle_left_seconds: float | None
    """Until it is unloaded; None while it is used, and where nothing but need unloads it."""
    instance: InstanceStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One request that waits: for what, and for how long already."""

    model: str
    reason: str
    needed_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """A model that has failed: how often in a row, why at last, and when it may be tried again."""

    model: str
    failures: int
    reason: str
    retry_seconds: float


@dataclass(slots=True)
class _Running:
    """An instance and the tasks that belong to it. `entry` is what the registry says of its model,
    `way` how it is really run; `began` is in monotonic seconds."""

    entry: ModelEntry
    way: ModelEntry
    instance: Instance
    options: InstanceOptions
    stay: Stay
    began: float
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    measured_bytes: int | None = None
    corrected: bool = False


class Lease:
    """The right to use one instance: `async with pool.lease(entry, gone) as instance`."""

    def __init__(self, pool: Pool, entry: ModelEntry, gone: Gone, stay: Stay) -> None:
        self._pool = pool
        self._entry = entry
        self._gone = gone
        self._stay = stay
        self._number = next(pool.numbers)

    async def __aenter__(self) -> Instance:
        return await self._pool.admit(self._number, self._entry, self._gone, self._stay)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.release(self._number, answered=kind is None)


class Pool:
    """Owns every instance from its start to its end. Leaving the `with` block ends them all.

    `idle_seconds` is for models whose own settings say nothing; 0 keeps them.
    """

    def __init__(
        self,
        ways: Ways,
        scheduler: Scheduler,
        idle_seconds: float = 0.0,
    ) -> None:
        self.ways = ways
        self.scheduler = scheduler
        self.idle_seconds = idle_seconds
        self.numbers = itertools.count(1)
        self.tally = Tally()
        self._running: dict[str, _Running] = {}
        self._stuck: dict[Instance, int] = {}
        """Stopped, and what each still holds, in bytes."""
        self._entries: dict[str, ModelEntry] = {}
        self._tickets: dict[int, asyncio.Future[Instance]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.shield(self.stop_all(STOP_GRACE_SECONDS))

    def __repr__(self) -> str:
        return f"<Pool {', '.join(map(repr, self.status())) or 'empty'}>"

    # Leases

    def lease(self, entry: ModelEntry, gone: Gone, keep_alive: KeepAlive | None = None) -> Lease:
        """The instance of `entry`, loaded if need be; `keep_alive` says how long it stays.

        Entering raises `RouterError` when it is refused or fails to load, and `ClientGoneError`
        when `gone` returns first.
        """
        return Lease(self, entry, gone, self._stay(entry, keep_alive))

    async def load(self, entry: ModelEntry) -> None:
        """Have it ready; raises what a request for it would."""
        async with self.lease(entry, _nobody_leaves):
            pass

    def preload(self, entries: Iterable[ModelEntry]) -> None:
        """Begin to load them, as their memory allows; what fails is told in the log."""
        for entry in entries:
            self._spawn(self._preload(entry))

    async def _preload(self, entry: ModelEntry) -> None:
        try:
            await self.load(entry)
        except RouterError as error:
            log.error("%s: not preloaded: %s", entry.id, error.message)

    def unload(self, entry: ModelEntry) -> None:
        """End its instance, if there is one and it is not used.

        Raises:
            ModelBusyError: it answers, is loading, or is waited for.
        """
        slot = self.scheduler.slots.get(entry.id)
        if slot is None or slot.state is SlotState.STOPPING:
            return
        if not slot.idle:
            raise ModelBusyError(f"{entry.id} is in use; ask again when it is idle.", param="model")
        self._perform(self.scheduler.retire(entry.id))

    def keep(self, entry: ModelEntry, keep_alive: KeepAlive | None) -> None:
        """How long its instance stays from now on, if there is one."""
        self._perform(self.scheduler.keep(entry.id, self._stay(entry, keep_alive)))

    def _stay(self, entry: ModelEntry, asked: KeepAlive | None) -> Stay:
        if asked is not None:
            return Stay(asked.seconds, entry.settings.pin)
        own = entry.settings.idle_seconds
        seconds = self.idle_seconds if own is None else own
        return Stay(seconds or None, entry.settings.pin)

    async def admit(self, number: int, entry: ModelEntry, gone: Gone, stay: Stay) -> Instance:
        """Wait for ticket `number` to be granted; on any other end it is withdrawn."""
        way = self.ways.way(entry)
        if entry.id not in self.scheduler.slots:
            error = self.ways.too_big(way, self.scheduler.usable_bytes)
            if error is not None:
                raise error
        needed = self.ways.needed_bytes(way)
        granted: asyncio.Future[Instance] = asyncio.get_running_loop().create_future()
        self._tickets[number] = granted
        self._entries[entry.id] = entry
        try:
            self._perform(self.scheduler.request(number, entry.id, needed, stay))
            return await _unless(gone, granted)
        except BaseException:
            if granted.done():
                granted.exception()  # a refusal that came too late: asyncio wants it looked at
            self._tickets.pop(number, None)
            self._perform(self.scheduler.cancel(number))
            raise

    def release(self, number: int, *, answered: bool) -> None:
        self._perform(self.scheduler.release(number, answered=answered))

    def follow(self, registry: Registry) -> list[str]:
        """Instances of models that are gone, or that would run otherwise now, answer what they have
        begun and end, and are named; who waits for one gets the model as it is now."""
        for key in list(self.scheduler.circuits):
            entry = registry.by_id(key)
            if entry is None or not entry.runs_like(self._entries[key]):
                self._perform(self.scheduler.rearm(key))
        for key in {ticket.key for ticket in self.scheduler.queue.values()}:
            self._perform(self._revise(key, registry))
        retired: list[str] = []
        for key, running in list(self._running.items()):
            entry = registry.by_id(key)
            if entry is not None and entry.servable and self._runs_on(running, entry):
                self._perform(self._kept(running, entry))
            else:
                retired.append(key)
                self._perform(self.scheduler.retire(key))
        return retired

    def _runs_on(self, running: _Running, entry: ModelEntry) -> bool:
        """Whether it would be started in the same way now."""
        options = (running.options, self.ways.options_for(entry))
        then, now = (_as_started(entry, one) for one in options)
        same = entry.runs_like(running.entry) or entry.runs_like(running.way)
        return same and then == now

    def _kept(self, running: _Running, entry: ModelEntry) -> list[Action]:
        """How long it stays by the settings of now, if they are others than before: else a request
        may have said otherwise."""
        stay, before = self._stay(entry, None), running.stay
        running.stay = stay
        return self.scheduler.keep(entry.id, stay) if stay != before else []

    def _revise(self, key: str, registry: Registry) -> list[Action]:
        if registry.by_id(key) is None:
            gone = UnknownModelError(
                f"{key!r} was removed while the request waited.", param="model"
            )
            return self.scheduler.withdraw(key, gone)
        try:
            entry = registry.resolve(key)
        except RouterError as error:
            return self.scheduler.withdraw(key, error)
        self._entries[key] = entry
        return self.scheduler.revise(key, self.ways.needed_bytes(self.ways.way(entry)))

    def status(self) -> list[ModelStatus]:
        """One snapshot of everything that holds memory."""
        slots = self.scheduler.slots
        return [self._status(key, r) for key, r in self._running.items() if key in slots]

    def waits(self) -> list[Wait]:
        now = time.monotonic()
        return [
            Wait(
                model=t.key,
                reason=t.waiting.value,
                needed_bytes=t.needed_bytes,
                seconds=now - t.since,
            )
            for t in self.scheduler.queue.values()
        ]

    def failing(self) -> list[Failing]:
        now = time.monotonic()
        return [
            Failing(
                model=key,
                failures=circuit.failures,
                reason=circuit.because.message,
                retry_seconds=max(0.0, circuit.retry_at - now),
            )
            for key, circuit in self.scheduler.circuits.items()
        ]

    def _status(self, key: str, running: _Running) -> ModelStatus:
        slot = self.scheduler.slots[key]
        starting = slot.state is SlotState.STARTING
        return ModelStatus(
            model=key,
            engine=running.way.choice.engine or "",
            state=slot.state.value,
            leases=len(slot.leases),
            queue=sum(ticket.key == key for ticket in self.scheduler.queue.values()),
            reserved_bytes=slot.reserved_bytes,
            measured_bytes=running.measured_bytes,
            weights_bytes=running.way.info.weights_bytes,
            loading_seconds=time.monotonic() - running.began if starting else None,
            pinned=slot.stay.pinned,
            idle_left_seconds=_left(slot.leaves_at),
            instance=running.instance.status(),
        )

    def progress(self, key: str) -> str:
        """What those who wait for a model are told."""
        slot, running = self.scheduler.slots.get(key), self._running.get(key)
        if slot is None or running is None or slot.state is not SlotState.STARTING:
            waits = [t.waiting for t in self.scheduler.queue.values() if t.key == key]
            return f"{key} waits for {waits[0]}." if waits else f"{key} is ready."
        return f"{key} is loading, {_so_far(running)}."

    # Memory

    def instances(self) -> list[Instance]:
        """Those that run, and those that were stopped and still hold memory."""
        return [*(running.instance for running in self._running.values()), *self._stuck]

    def measured(self, readings: Mapping[Instance, int | None]) -> None:
        """What instances really hold: corrects what is reserved for them."""
        for running in list(self._running.values()):
            if running.instance in readings:
                running.measured_bytes = readings[running.instance]
                self._correct(running)
        # One that was stopped while the others were measured has no reading yet.
        held = {one: readings.get(one, known) for one, known in self._stuck.items()}
        self._stuck = {one: nbytes for one, nbytes in held.items() if nbytes}
        self._tell_lost()

    def _tell_lost(self) -> None:
        nbytes = sum(self._stuck.values())
        if nbytes == self.scheduler.lost_bytes:
            return
        if nbytes > self.scheduler.lost_bytes:
            log.error(
                "%s are held by what was stopped, and are not given out", explain.size(nbytes)
            )
        self._perform(self.scheduler.lost(nbytes))

    def _correct(self, running: _Running) -> None:
        slot, used = self.scheduler.slots.get(running.way.id), running.measured_bytes
        if slot is None or slot.state is not SlotState.READY or used is None:
            return
        needed = max(used, slot.reserved_bytes)
        if not running.corrected:
            # Weights that are mapped come into memory as they are used.
            loaded = max(used, running.way.info.weights_bytes)
            needed = loaded + self.ways.footprint(running.way).growing_bytes
            running.corrected = True
        if needed != slot.reserved_bytes:
            log.info(
                "%s: takes %s, and not %s as was thought",
                running.way.id,
                explain.size(needed),
                explain.size(slot.reserved_bytes),
            )
            self._perform(self.scheduler.measured(running.way.id, needed))

    def machine(self, room_bytes: int, short_bytes: int) -> None:
        """What the machine can still give before it gets short, and what it lacks already."""
        self._perform(self.scheduler.machine(room_bytes, short_bytes))

    def _remember(self, *ending: _Running) -> None:
        slots = self.scheduler.slots
        measured = [one for one in ending if one.corrected and one.way.id in slots]
        for one in measured:
            self.ways.took(one.way, slots[one.way.id].reserved_bytes)
        if measured:
            self.ways.experience.save()

    # Actions

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Start(key):
                    self._start(self._entries[key])
                case Stop(key) if not self._closing:
                    self._spawn(self._stop(self._running[key]))
                case Grant(number, key):
                    self._settle(number, self._running[key].instance)
                case Reject(number, error):
                    self._settle(number, error)
        self._set_timer()
        if not self.busy:
            self._idle.set()
        else:
            self._idle.clear()

    def _settle(self, number: int, outcome: Instance | RouterError) -> None:
        granted = self._tickets.pop(number, None)
        if granted is None or granted.done():
            return
        if isinstance(outcome, RouterError):
            granted.set_exception(outcome)
        else:
            granted.set_result(outcome)

    def _start(self, entry: ModelEntry) -> None:
        way = self.ways.way(entry)
        options = self.ways.options_for(way)
        try:
            instance = self.ways.create(way)
        except Exception as error:
            failures.log_start(way, error)
            self._perform(self.scheduler.start_failed(way.id, failures.start_error(way, error)))
            return
        stay = self._stay(entry, None)
        running = _Running(entry, way, instance, options, stay, time.monotonic())
        self._running[entry.id] = running
        self._spawn(self._load(running), running)

    async def _load(self, running: _Running) -> None:
        way = running.way
        log.info(
            "%s: loading %s with %s",
            way.id,
            explain.size(way.info.weights_bytes),
            way.choice.engine,
        )
        try:
            async with _progress_told(running):
                await running.instance.ensure_ready()
        except Exception as error:
            self._tell_load(running, worked=False)
            failures.log_start(way, error)
            await self._end(running.instance, STOP_GRACE_SECONDS)
            self._running.pop(way.id, None)
            self._perform(self._after_failure(running, error))
            return
        log.info("%s: ready after %.1f s", way.id, time.monotonic() - running.began)
        self._tell_load(running, worked=True)
        self.ways.worked(way)
        self._spawn(self._watch(running), running)
        self._perform(self.scheduler.ready(way.id))

    def _tell_load(self, running: _Running, *, worked: bool) -> None:
        seconds = time.monotonic() - running.began
        self.tally.loaded(running.way.choice.engine or "", seconds, worked=worked)

    def _after_failure(self, running: _Running, error: Exception) -> list[Action]:
        """Try in another way what may work in another way; else tell those who wait."""
        changed = self.scheduler.slots[running.way.id].retired
        actions = None if changed else self._try_again(running, error)
        if actions is not None:
            return actions
        self.ways.failed(running.entry)
        reason = failures.start_error(running.way, error)
        return self.scheduler.start_failed(running.way.id, reason)

    def _try_again(self, running: _Running, error: Exception) -> list[Action] | None:
        key = running.way.id
        match error:
            case EngineMemoryError() if self.ways.alone(running.entry):
                log.warning("%s: memory ran out; tried again when what is idle has left", key)
                return self.scheduler.start_alone(key)
            case EngineRefusedError():
                other = self.ways.another(running.entry, running.way, error.message)
                if other is not None:
                    log.warning("%s: %s is tried instead", key, other.choice.engine)
                    return self.scheduler.start_again(key, self.ways.needed_bytes(other))
        return None

    async def _watch(self, running: _Running) -> None:
        await running.instance.wait_failed()
        status = running.instance.status()
        failures.log_death(status)
        self._perform(self.scheduler.died(running.way.id, failures.death(status)))

    async def _stop(self, running: _Running) -> None:
        key = running.entry.id
        log.info("%s: unloading", key)
        self.tally.unloads[running.way.choice.engine or ""] += 1
        self._remember(running)
        for task in running.tasks:
            task.cancel()
        await self._end(running.instance, STOP_GRACE_SECONDS)
        if self._running.get(key) is running:
            del self._running[key]
        self._perform(self.scheduler.stopped(key))

    async def _end(self, instance: Instance, grace_seconds: float) -> None:
        try:
            await instance.stop(grace_seconds)
        except Exception:
            log.exception("%s: could not be stopped cleanly", instance.status().model)
        if held_bytes := instance.used_bytes():
            self._stuck[instance] = held_bytes
            self._tell_lost()

    # The end

    def close(self) -> None:
        """Refuse what waits and what comes; let what runs go on."""
        self._perform(self.scheduler.close())

    @property
    def busy(self) -> bool:
        """Whether anything is answered right now."""
        return any(slot.leases for slot in self.scheduler.slots.values())

    async def drained(self) -> None:
        """Return when no lease is left."""
        await self._idle.wait()

    async def stop_all(self, grace_seconds: float) -> None:
        """End every instance, at the same time; returns when they are gone."""
        self._closing = True
        self.close()
        if self._timer is not None:
            self._timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        running = list(self._running.values())
        self._remember(*running)
        await asyncio.gather(*(self._end(r.instance, grace_seconds) for r in running))
        self._running.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Helpers

    def _spawn(self, work: Coroutine[Any, Any, None], running: _Running | None = None) -> None:
        if self._closing:
            work.close()
            return
        task = asyncio.create_task(work)
        owners = [self._tasks] if running is None else [self._tasks, running.tasks]
        for owner in owners:
            owner.add(task)
            task.add_done_callback(owner.discard)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.scheduler.next_deadline
        if deadline is not None and not self._closing:
            delay = max(0.0, deadline - time.monotonic())
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(delay, lambda: self._perform(self.scheduler.expire()))


def _as_started(entry: ModelEntry, options: InstanceOptions) -> InstanceOptions:
    """What an engine is told of them: no more context than there is, and no limits of time."""
    context = context_length(entry.info, options)
    return replace(options, context_length=context, start_timeout_seconds=0.0, patience=ENDLESS)


async def _nobody_leaves() -> None:
    await asyncio.Event().wait()


def _left(at: float | None) -> float | None:
    return None if at is None else max(0.0, at - time.monotonic())


async def _unless(gone: Gone, granted: asyncio.Future[Instance]) -> Instance:
    """What was granted, unless the client leaves first."""
    if granted.done():
        return granted.result()
    leaving = asyncio.ensure_future(gone())
    try:
        await asyncio.wait((granted, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
    if granted.done():
        return granted.result()
    raise ClientGoneError


@contextlib.asynccontextmanager
async def _progress_told(running: _Running) -> AsyncIterator[None]:
    ticker = asyncio.create_task(_tell_progress(running))
    try:
        yield
    finally:
        ticker.cancel()


async def _tell_progress(running: _Running) -> None:
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        log.info("%s: still loading, %s", running.way.id, _so_far(running))


def _so_far(running: _Running) -> str:
    seconds = f"{time.monotonic() - running.began:.0f} s so far"
    held, weights = running.measured_bytes, running.way.info.weights_bytes
    if not held:
        return seconds
    return f"{seconds}, {explain.size(min(held, weights))} of {explain.size(weights)}"
