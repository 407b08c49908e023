"""Whom to evict so that a model fits. Pure: facts in, names out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEAST_LOAD_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """One instance that holds memory and could be asked to leave."""

    key: str
    reserved_bytes: int
    leased: bool
    idle_seconds: float
    """Since the last grant or release; 0 for one that somebody waits for."""
    load_seconds: float = LEAST_LOAD_SECONDS
    """What it costs to have it back."""

    @property
    def worth(self) -> float:
        """Least recently used leaves first, weighted by what its next load would take: one that
        loads in 20 s may be idle for ten times as long as one that loads in 2 s."""
        return -self.idle_seconds / max(self.load_seconds, LEAST_LOAD_SECONDS)


@dataclass(frozen=True, slots=True)
class Plan:
    """`evict` are idle; `claim` are busy and get no new requests until they are idle, too.

    A plan with neither means that the memory being freed already will do.
    """

    evict: tuple[str, ...] = ()
    claim: tuple[str, ...] = ()


def make_room(needed_bytes: int, free_bytes: int, residents: Sequence[Resident]) -> Plan | None:
    """The idle instances to stop, the one that is worth least first, and the busy ones to wait for.

    `free_bytes` counts what is free or on its way to be; it is negative where too much is held.
    Busy instances are claimed only when stopping every idle one is not enough. None means that
    not even all of them together make room now.
    """
    evict: list[str] = []
    claim: list[str] = []
    for resident in sorted(residents, key=lambda r: (r.leased, r.worth)):
        if free_bytes >= needed_bytes:
            break
        (claim if resident.leased else evict).append(resident.key)
        free_bytes += resident.reserved_bytes
    if free_bytes < needed_bytes:
        return None
    return Plan(tuple(evict), tuple(claim))


def relieve(excess_bytes: int, residents: Sequence[Resident]) -> tuple[str, ...]:
    """Idle instances to stop so that `excess_bytes` less are held, or as much less as can be."""
    idle = [resident for resident in residents if not resident.leased]
    plan = make_room(excess_bytes, 0, idle)
    return plan.evict if plan is not None else tuple(resident.key for resident in idle)
