"""Who gets which model, when: a pure state machine. Events in, Actions out; it awaits nothing.

The rules, each held by a property test:

- a leased instance is never stopped (one that died on its own is only cleared away);
- memory is reserved before a start and given back only when the instance is gone; nothing is
  started that does not fit into the budget. What is reserved can exceed it only because an
  instance was measured to take more than was thought: then idle ones leave;
- one key has at most one instance, however many ask for it;
- a model that fails is left alone for a while (`circuit`), and other models do not notice;
- every ticket ends exactly once: granted, rejected or cancelled;
- first come, first served: a model that waits for memory cannot be starved by requests for
  the models that are in its way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import StrEnum

from router.circuit import STEADY_SECONDS, Circuit, failed
from router.errors import (
    CircuitOpenError,
    QueueFullError,
    QueueTimeoutError,
    RouterError,
    ShuttingDownError,
)
from router.fit import too_big
from router.policy import Plan, Resident, make_room, relieve


class SlotState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


class Waiting(StrEnum):
    """Why a ticket waits: the name shown in `router status`."""

    LOADING = "the model is loading"
    UNLOADING = "the model's last instance is ending"
    MEMORY = "memory that other models hold"
    PAUSE = "the pause after its engine failed"


@dataclass(frozen=True, slots=True)
class Start:
    key: str


@dataclass(frozen=True, slots=True)
class Stop:
    key: str


@dataclass(frozen=True, slots=True)
class Grant:
    ticket: int
    key: str


@dataclass(frozen=True, slots=True)
class Reject:
    ticket: int
    error: RouterError


Action = Start | Stop | Grant | Reject


@dataclass(frozen=True, slots=True)
class Stay:
    """How long a model stays loaded that nobody uses: `idle_seconds`, None for as long as its
    room is not needed. A pinned one does not leave for another model."""

    idle_seconds: float | None = None
    pinned: bool = False


@dataclass(slots=True)
class Slot:
    """One instance as the scheduler sees it, from its reservation to its end."""

    key: str
    reserved_bytes: int
    stay: Stay = Stay()
    state: SlotState = SlotState.STARTING
    leases: set[int] = field(default_factory=set)
    started_at: float = 0.0
    ready_at: float = 0.0
    last_used: float = 0.0
    retired: bool = False

    @property
    def idle(self) -> bool:
        return self.state is SlotState.READY and not self.leases

    @property
    def load_seconds(self) -> float:
        return self.ready_at - self.started_at

    @property
    def leaves_at(self) -> float | None:
        """When it has been idle for long enough, in the clock's seconds."""
        if not self.idle or self.stay.idle_seconds is None:
            return None
        return self.last_used + self.stay.idle_seconds


@dataclass(slots=True)
class Ticket:
    """One request that waits for its model."""

    number: int
    key: str
    needed_bytes: int
    since: float
    stay: Stay = Stay()
    waiting: Waiting = Waiting.LOADING


class Scheduler:
    """`clock` gives monotonic seconds; `max_queue` bounds the tickets that wait, and
    `queue_seconds` how long each does: both may change, also for those that wait already."""

    def __init__(
        self,
        budget_bytes: int,
        *,
        max_queue: int,
        queue_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self.budget_bytes = budget_bytes
        self.max_queue = max_queue
        self.queue_seconds = queue_seconds
        self.slots: dict[str, Slot] = {}
        self.queue: dict[int, Ticket] = {}
        self.circuits: dict[str, Circuit] = {}
        self.room_bytes: int | None = None
        """What the machine can give before it gets short, as last told; None if never."""
        self.evictions = 0
        """Idle ones that had to leave, so far."""
        self.lost_bytes = 0
        """Held by what was stopped and did not give it back."""
        self._leases: dict[int, Slot] = {}
        self._clock = clock
        self.closed = False

    @property
    def usable_bytes(self) -> int:
        return self.budget_bytes - self.lost_bytes

    @property
    def reserved_bytes(self) -> int:
        return sum(slot.reserved_bytes for slot in self.slots.values())

    @property
    def next_deadline(self) -> float | None:
        """When `expire` is due, in the clock's seconds. A load has a deadline of its own."""
        waiting = (t for t in self.queue.values() if t.waiting is not Waiting.LOADING)
        given_up = [ticket.since + self.queue_seconds for ticket in waiting]
        leaving = [at for slot in self.slots.values() if (at := slot.leaves_at) is not None]
        pausing = {t.key for t in self.queue.values() if t.waiting is Waiting.PAUSE}
        retrying = [self.circuits[key].retry_at for key in pausing if key in self.circuits]
        return min(given_up + leaving + retrying, default=None)

    # Events

    def request(
        self, number: int, key: str, needed_bytes: int, stay: Stay = Stay()
    ) -> list[Action]:
        """A client asks for `key`, which needs `needed_bytes` if it must be loaded."""
        refusal = self._refusal(key, needed_bytes)
        if refusal is not None:
            return [Reject(number, refusal)]
        self.queue[number] = Ticket(number, key, needed_bytes, self._clock(), stay)
        actions = self._advance()
        if number in self.queue and len(self.queue) > self.max_queue:
            # Its model is ready but claimed by an earlier ticket: nothing was begun for this one.
            del self.queue[number]
            return [*actions, Reject(number, _queue_full(len(self.queue)))]
        return actions

    def cancel(self, number: int) -> list[Action]:
        """The client left: its ticket or its lease ends. Unknown numbers are ignored."""
        if self.queue.pop(number, None) is not None:
            return self._advance()
        return self.release(number)

    def release(self, number: int, *, answered: bool = False) -> list[Action]:
        """A granted request is over; `answered` if its last byte was sent: then its model works,
        whatever failed before."""
        slot = self._leases.pop(number, None)
        if slot is None:
            return []
        slot.leases.discard(number)
        slot.last_used = self._clock()
        if answered and slot.state is SlotState.READY:
            self.circuits.pop(slot.key, None)
        return self._advance()

    def ready(self, key: str) -> list[Action]:
        """The instance started for `key` has generated a token."""
        slot = self.slots.get(key)
        if slot is not None and slot.state is SlotState.STARTING:
            slot.state = SlotState.READY
            slot.ready_at = slot.last_used = self._clock()
        return self._advance()

    def start_failed(self, key: str, error: RouterError) -> list[Action]:
        """The start failed and nothing of it is left: all that waited for it get the reason, unless
        the model is another one by now."""
        slot = self.slots.pop(key, None)
        if slot is not None and slot.retired:
            return self._advance()
        self.circuits[key] = failed(self.circuits.get(key), error, self._clock())
        return self.withdraw(key, error)

    def start_again(self, key: str, needed_bytes: int) -> list[Action]:
        """The start failed, nothing of it is left, and there is another way to run the model:
        those who wait for it go on waiting, for one that takes `needed_bytes`."""
        self.slots.pop(key, None)
        return self.revise(key, needed_bytes)

    def start_alone(self, key: str) -> list[Action] | None:
        """The start ran out of memory, and nothing of it is left: try again once everything idle
        has left. None when nothing is: then it has failed."""
        idle = {r.key for r in self._residents() if not r.leased and r.key != key}
        if not idle:
            return None
        held = (slot for slot in self.slots.values() if slot.key not in idle | {key})
        return self.start_again(key, self.usable_bytes - sum(slot.reserved_bytes for slot in held))

    def died(self, key: str, because: RouterError) -> list[Action]:
        """A ready instance ended on its own. Its leases end by themselves."""
        slot = self.slots.get(key)
        if slot is None or slot.state is not SlotState.READY:
            return []
        slot.state = SlotState.STOPPING
        now = self._clock()
        steady = now - slot.ready_at >= STEADY_SECONDS
        circuit = failed(None if steady else self.circuits.get(key), because, now)
        self.circuits[key] = circuit
        waiting = self.withdraw(key, self._left_alone(key, circuit)) if circuit.open else []
        return [Stop(key), *waiting, *self._advance()]

    def rearm(self, key: str) -> list[Action]:
        """Its files are others now: what failed before says nothing of them."""
        self.circuits.pop(key, None)
        return self._advance()

    def measured(self, key: str, needed_bytes: int) -> list[Action]:
        """It takes so much, whatever was thought before. Where it is more, idle ones make room for
        that; one that takes less takes nothing from others, however small the budget is by now."""
        slot = self.slots.get(key)
        if slot is None or slot.state is not SlotState.READY:
            return []
        grown_bytes = needed_bytes - slot.reserved_bytes
        slot.reserved_bytes = needed_bytes
        excess_bytes = min(grown_bytes, self._staying_bytes() - self.usable_bytes)
        return [*self._relieve(excess_bytes), *self._advance()]

    def machine(self, room_bytes: int, short_bytes: int) -> list[Action]:
        """The machine can give `room_bytes` before it gets short; `short_bytes` is what it lacks
        already, so badly that what is idle has to leave."""
        self.room_bytes = room_bytes
        return [*self._relieve(short_bytes), *self._advance()]

    def retire(self, key: str) -> list[Action]:
        """The files of its model are gone, or are others now: what it answers it may finish, what
        comes waits for its successor."""
        slot = self.slots.get(key)
        if slot is None:
            return []
        slot.retired = True
        return self._advance()

    def keep(self, key: str, stay: Stay) -> list[Action]:
        """Its model is the same, and stays for so long from now on."""
        held: list[Slot | Ticket] = [*self.slots.values(), *self.queue.values()]
        for one in held:
            if one.key == key:
                one.stay = stay
        return self._advance()

    def revise(self, key: str, needed_bytes: int) -> list[Action]:
        """Its model is another one now: those who wait for it need so much."""
        for ticket in self.queue.values():
            if ticket.key == key:
                ticket.needed_bytes = needed_bytes
        return self._advance()

    def withdraw(self, key: str, error: RouterError) -> list[Action]:
        """There is nothing to wait for: all that wait for it get the reason."""
        waiting = [number for number, ticket in self.queue.items() if ticket.key == key]
        for number in waiting:
            del self.queue[number]
        return [*(Reject(number, error) for number in waiting), *self._advance()]

    def stopped(self, key: str) -> list[Action]:
        """A stopped instance is gone and its memory free."""
        self.slots.pop(key, None)
        return self._advance()

    def lost(self, nbytes: int) -> list[Action]:
        """So much is held by what was stopped, as of now."""
        self.lost_bytes = nbytes
        return self._advance()

    def expire(self) -> list[Action]:
        """Reject the tickets whose deadline has passed, and end what was idle for long enough."""
        now = self._clock()
        waiting = (t for t in self.queue.values() if t.waiting is not Waiting.LOADING)
        late = [ticket for ticket in waiting if ticket.since + self.queue_seconds <= now]
        for ticket in late:
            del self.queue[ticket.number]
        leaving = [s for s in self.slots.values() if (at := s.leaves_at) is not None and at <= now]
        for slot in leaving:
            slot.retired = True
        rejections = [Reject(t.number, _timed_out(t, self.queue_seconds)) for t in late]
        return [*rejections, *self._advance()]

    def close(self) -> list[Action]:
        """No more requests: those that wait are rejected, those that run go on."""
        self.closed = True
        waiting = list(self.queue)
        self.queue.clear()
        return [Reject(number, _shutting_down()) for number in waiting]

    # Decisions

    def _refusal(self, key: str, needed_bytes: int) -> RouterError | None:
        if self.closed:
            return _shutting_down()
        slot = self.slots.get(key)
        if slot is None and needed_bytes > self.usable_bytes:
            return too_big(key, needed_bytes, self.usable_bytes)
        must_wait = slot is None or slot.retired or slot.state is not SlotState.READY
        circuit = self.circuits.get(key)
        if must_wait and circuit is not None and circuit.open and not self._may_probe(key, circuit):
            return self._left_alone(key, circuit)
        if must_wait and len(self.queue) >= self.max_queue:
            return _queue_full(len(self.queue))
        return None

    def _may_probe(self, key: str, circuit: Circuit) -> bool:
        """One request tries whether the model works again, and the others do not wait for it."""
        tried = key in self.slots or any(ticket.key == key for ticket in self.queue.values())
        return not tried and not circuit.waits(self._clock())

    def _left_alone(self, key: str, circuit: Circuit) -> RouterError:
        return _circuit_open(key, circuit, max(0.0, circuit.retry_at - self._clock()))

    def _pauses(self, key: str) -> bool:
        circuit = self.circuits.get(key)
        return circuit is not None and circuit.waits(self._clock())

    def _advance(self) -> list[Action]:
        """Let every ticket that can, go on; in order of arrival."""
        actions: list[Action] = self._stop_retired()
        claimed: set[str] = set()
        memory_wanted = False
        for ticket in list(self.queue.values()):
            slot = self.slots.get(ticket.key)
            if slot is None and ticket.needed_bytes > self.usable_bytes:
                # It has grown, or a smaller one under its name has gone, since it was admitted.
                del self.queue[ticket.number]
                error = too_big(ticket.key, ticket.needed_bytes, self.usable_bytes)
                actions.append(Reject(ticket.number, error))
            elif slot is None and self._pauses(ticket.key):
                ticket.waiting = Waiting.PAUSE
            elif slot is None:
                if memory_wanted:
                    ticket.waiting = Waiting.MEMORY
                elif not self._load(ticket, actions, claimed):
                    memory_wanted = True
            elif slot.state is SlotState.READY and not slot.retired and ticket.key not in claimed:
                self._grant(ticket, slot, actions)
            else:
                ticket.waiting = _waiting_for(slot)
        return actions

    def _stop_retired(self) -> list[Action]:
        ending = [slot for slot in self.slots.values() if slot.retired and slot.idle]
        return [self._stop(slot) for slot in ending]

    def _stop(self, slot: Slot) -> Stop:
        """An idle one: it works, whatever failed before it."""
        slot.state = SlotState.STOPPING
        self.circuits.pop(slot.key, None)
        return Stop(slot.key)

    def _relieve(self, excess_bytes: int) -> list[Action]:
        return self._evict(relieve(excess_bytes, self._residents())) if excess_bytes > 0 else []

    def _evict(self, keys: Collection[str]) -> list[Action]:
        self.evictions += len(keys)
        return [self._stop(self.slots[key]) for key in keys]

    def _grant(self, ticket: Ticket, slot: Slot, actions: list[Action]) -> None:
        del self.queue[ticket.number]
        slot.leases.add(ticket.number)
        slot.last_used = self._clock()
        slot.stay = ticket.stay
        self._leases[ticket.number] = slot
        actions.append(Grant(ticket.number, ticket.key))

    def _load(self, ticket: Ticket, actions: list[Action], claimed: set[str]) -> bool:
        """Reserve and start, or begin to make room; False while memory is not there yet."""
        if ticket.needed_bytes <= self._free_bytes():
            self.slots[ticket.key] = Slot(
                ticket.key, ticket.needed_bytes, ticket.stay, started_at=self._clock()
            )
            ticket.waiting = Waiting.LOADING
            actions.append(Start(ticket.key))
            return True
        ticket.waiting = Waiting.MEMORY
        plan = self._plan(ticket.needed_bytes)
        if plan is not None and plan.claim:
            # The idle ones stay loaded until the busy ones are idle, too: the ticket may leave.
            claimed.update(plan.claim, plan.evict)
        elif plan is not None:
            actions += self._evict(plan.evict)
        return False

    def _plan(self, needed_bytes: int) -> Plan | None:
        residents = self._residents()
        plan = make_room(needed_bytes, self._free_bytes_soon(), residents)
        if plan is not None or any(slot.stay.pinned for slot in self.slots.values()):
            return plan
        # The machine is short of memory because of others: it is all ours or nothing.
        return make_room(sum(resident.reserved_bytes for resident in residents), 0, residents)

    def _free_bytes(self) -> int:
        """What a new instance may take. One that has the machine to itself may always be tried,
        as far as the budget goes: waiting would not help."""
        free_bytes = self.usable_bytes - self.reserved_bytes
        if self.room_bytes is None or not self.slots:
            return free_bytes
        return min(free_bytes, self.room_bytes - self._starting_bytes())

    def _free_bytes_soon(self) -> int:
        """The same, once what is stopping has ended."""
        stopping = (s for s in self.slots.values() if s.state is SlotState.STOPPING)
        return self._free_bytes() + sum(slot.reserved_bytes for slot in stopping)

    def _staying_bytes(self) -> int:
        staying = (s for s in self.slots.values() if s.state is not SlotState.STOPPING)
        return sum(slot.reserved_bytes for slot in staying)

    def _starting_bytes(self) -> int:
        """Reserved, and perhaps not taken from the machine yet."""
        starting = (s for s in self.slots.values() if s.state is SlotState.STARTING)
        return sum(slot.reserved_bytes for slot in starting)

    def _residents(self) -> list[Resident]:
        wanted = {ticket.key for ticket in self.queue.values()}
        now = self._clock()
        return [
            Resident(
                key=slot.key,
                reserved_bytes=slot.reserved_bytes,
                leased=bool(slot.leases) or (slot.state is SlotState.STARTING),
                idle_seconds=0.0 if slot.key in wanted else now - slot.last_used,
                load_seconds=slot.load_seconds,
            )
            for slot in self.slots.values()
            if slot.state is not SlotState.STOPPING and not slot.stay.pinned
        ]


def _waiting_for(slot: Slot) -> Waiting:
    if slot.state is SlotState.STARTING:
        return Waiting.LOADING
    going = slot.retired or slot.state is SlotState.STOPPING
    return Waiting.UNLOADING if going else Waiting.MEMORY


def _queue_full(waiting: int) -> RouterError:
    return QueueFullError(
        f"{waiting} requests wait for models already; try again in a moment.",
        retry_after_seconds=5,
    )


def _timed_out(ticket: Ticket, seconds: float) -> RouterError:
    return QueueTimeoutError(
        f"The request waited {seconds:g} s for {ticket.waiting} and was given up; "
        "try again, or raise --queue-seconds.",
        retry_after_seconds=10,
    )


def _circuit_open(key: str, circuit: Circuit, wait_seconds: float) -> RouterError:
    return CircuitOpenError(
        f"{key} failed {circuit.failures} times in a row, and is left alone until it is tried "
        f"again in {wait_seconds:.0f} s, or its files change. The last time: "
        f"{circuit.because.message}",
        retry_after_seconds=max(1, round(wait_seconds)),
    )


def _shutting_down() -> RouterError:
    return ShuttingDownError("The router is shutting down.", retry_after_seconds=5)
