"""Who gets which model, when: a pure state machine. Events in, Actions out; it awaits nothing.

The rules, each held by a property test:

- a leased instance is never stopped (one that died on its own is only cleared away);
- the memory reserved never exceeds the budget: it is reserved before a start and given back
  only when the instance is gone;
- one key has at most one instance, however many ask for it;
- every ticket ends exactly once: granted, rejected or cancelled;
- first come, first served: a model that waits for memory cannot be starved by requests for
  the models that are in its way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from router.errors import (
    ModelTooBigError,
    QueueFullError,
    QueueTimeoutError,
    RouterError,
    ShuttingDownError,
)
from router.policy import Resident, make_room


class SlotState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


class Waiting(StrEnum):
    """Why a ticket waits: the name shown in `router status`."""

    LOADING = "the model is loading"
    UNLOADING = "the model's last instance is ending"
    MEMORY = "memory that other models hold"


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
    last_used: float = 0.0
    retired: bool = False

    @property
    def idle(self) -> bool:
        return self.state is SlotState.READY and not self.leases

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
    deadline: float
    stay: Stay = Stay()
    waiting: Waiting = Waiting.LOADING


class Scheduler:
    """`clock` gives monotonic seconds; `max_queue` bounds the tickets that wait."""

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
        self._leases: dict[int, Slot] = {}
        self._clock = clock
        self.closed = False

    @property
    def reserved_bytes(self) -> int:
        return sum(slot.reserved_bytes for slot in self.slots.values())

    @property
    def next_deadline(self) -> float | None:
        """When `expire` is due, in the clock's seconds. A load has a deadline of its own."""
        given_up = [t.deadline for t in self.queue.values() if t.waiting is not Waiting.LOADING]
        leaving = [at for slot in self.slots.values() if (at := slot.leaves_at) is not None]
        return min(given_up + leaving, default=None)

    # Events

    def request(
        self, number: int, key: str, needed_bytes: int, stay: Stay = Stay()
    ) -> list[Action]:
        """A client asks for `key`, which needs `needed_bytes` if it must be loaded."""
        refusal = self._refusal(key, needed_bytes)
        if refusal is not None:
            return [Reject(number, refusal)]
        deadline = self._clock() + self.queue_seconds
        self.queue[number] = Ticket(number, key, needed_bytes, deadline, stay)
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

    def release(self, number: int) -> list[Action]:
        """The last byte of a granted request was sent."""
        slot = self._leases.pop(number, None)
        if slot is None:
            return []
        slot.leases.discard(number)
        slot.last_used = self._clock()
        return self._advance()

    def ready(self, key: str) -> list[Action]:
        """The instance started for `key` has generated a token."""
        slot = self.slots.get(key)
        if slot is not None and slot.state is SlotState.STARTING:
            slot.state = SlotState.READY
            slot.last_used = self._clock()
        return self._advance()

    def start_failed(self, key: str, error: RouterError) -> list[Action]:
        """The start failed and nothing of it is left: all that waited for it get the reason, unless
        the model is another one by now."""
        slot = self.slots.pop(key, None)
        if slot is not None and slot.retired:
            return self._advance()
        return self.withdraw(key, error)

    def died(self, key: str) -> list[Action]:
        """A ready instance ended on its own. Its leases end by themselves."""
        slot = self.slots.get(key)
        if slot is None or slot.state is not SlotState.READY:
            return []
        slot.state = SlotState.STOPPING
        return [Stop(key), *self._advance()]

    def retire(self, key: str) -> list[Action]:
        """The files of its model are gone, or are others now: what it answers it may finish, what
        comes waits for its successor."""
        slot = self.slots.get(key)
        if slot is None:
            return []
        slot.retired = True
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

    def expire(self) -> list[Action]:
        """Reject the tickets whose deadline has passed, and end what was idle for long enough."""
        now = self._clock()
        waiting = (t for t in self.queue.values() if t.waiting is not Waiting.LOADING)
        late = [ticket for ticket in waiting if ticket.deadline <= now]
        for ticket in late:
            del self.queue[ticket.number]
        leaving = [s for s in self.slots.values() if (at := s.leaves_at) is not None and at <= now]
        for slot in leaving:
            slot.retired = True
        rejections = [Reject(t.number, _timed_out(t, self.queue_seconds)) for t in late]
        return [*rejections, *self._advance()] if late or leaving else []

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
        if slot is None and needed_bytes > self.budget_bytes:
            return _too_big(key, needed_bytes, self.budget_bytes)
        must_wait = slot is None or slot.retired or slot.state is not SlotState.READY
        if must_wait and len(self.queue) >= self.max_queue:
            return _queue_full(len(self.queue))
        return None

    def _advance(self) -> list[Action]:
        """Let every ticket that can, go on; in order of arrival."""
        actions: list[Action] = self._stop_retired()
        claimed: set[str] = set()
        memory_wanted = False
        for ticket in list(self.queue.values()):
            slot = self.slots.get(ticket.key)
            if slot is None and ticket.needed_bytes > self.budget_bytes:
                # It has grown, or a smaller one under its name has gone, since it was admitted.
                del self.queue[ticket.number]
                error = _too_big(ticket.key, ticket.needed_bytes, self.budget_bytes)
                actions.append(Reject(ticket.number, error))
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
        for slot in ending:
            slot.state = SlotState.STOPPING
        return [Stop(slot.key) for slot in ending]

    def _grant(self, ticket: Ticket, slot: Slot, actions: list[Action]) -> None:
        del self.queue[ticket.number]
        slot.leases.add(ticket.number)
        slot.last_used = self._clock()
        self._leases[ticket.number] = slot
        actions.append(Grant(ticket.number, ticket.key))

    def _load(self, ticket: Ticket, actions: list[Action], claimed: set[str]) -> bool:
        """Reserve and start, or begin to make room; False while memory is not there yet."""
        if ticket.needed_bytes <= self.budget_bytes - self.reserved_bytes:
            self.slots[ticket.key] = Slot(ticket.key, ticket.needed_bytes, ticket.stay)
            ticket.waiting = Waiting.LOADING
            actions.append(Start(ticket.key))
            return True
        ticket.waiting = Waiting.MEMORY
        plan = make_room(ticket.needed_bytes, self._free_bytes_soon(), self._residents())
        if plan is not None and plan.claim:
            # The idle ones stay loaded until the busy ones are idle, too: the ticket may leave.
            claimed.update(plan.claim, plan.evict)
        elif plan is not None:
            for key in plan.evict:
                self.slots[key].state = SlotState.STOPPING
                actions.append(Stop(key))
        return False

    def _free_bytes_soon(self) -> int:
        staying = (s for s in self.slots.values() if s.state is not SlotState.STOPPING)
        return self.budget_bytes - sum(slot.reserved_bytes for slot in staying)

    def _residents(self) -> list[Resident]:
        wanted = {ticket.key for ticket in self.queue.values()}
        return [
            Resident(
                key=slot.key,
                reserved_bytes=slot.reserved_bytes,
                leased=bool(slot.leases) or (slot.state is SlotState.STARTING),
                last_used=slot.last_used if slot.key not in wanted else self._clock(),
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


def _too_big(key: str, needed_bytes: int, budget_bytes: int) -> RouterError:
    needed, budget = needed_bytes / 2**30, budget_bytes / 2**30
    return ModelTooBigError(
        f"{key} needs about {needed:.2f} GiB and all models together may take {budget:.2f} GiB: "
        f"{needed - budget:.2f} GiB too much. Raise --memory, lower --context-length, or take a "
        "smaller quantisation.",
        param="model",
    )


def _shutting_down() -> RouterError:
    return ShuttingDownError("The router is shutting down.", retry_after_seconds=5)
