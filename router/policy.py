"""Whom to evict so that a model fits. Pure: facts in, names out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """One instance that holds memory and could be asked to leave."""

    key: str
    reserved_bytes: int
    leased: bool
    last_used: float
    """Monotonic seconds of the last grant or release."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`evict` are idle; `claim` are busy and get no new requests until they are idle, too.

    A plan with neither means that the memory being freed already will do.
    """

    evict: tuple[str, ...] = ()
    claim: tuple[str, ...] = ()


def make_room(needed_bytes: int, free_bytes: int, residents: Sequence[Resident]) -> Plan | None:
    """The idle instances to stop, least recently used first, and the busy ones to wait for.

    `free_bytes` counts what is free or on its way to be. Busy instances are claimed only when
    stopping every idle one is not enough: least recently used first, too. None means that not
    even all of them together make room now.
    """
    evict: list[str] = []
    claim: list[str] = []
    for resident in sorted(residents, key=lambda r: (r.leased, r.last_used)):
        if free_bytes >= needed_bytes:
            break
        (claim if resident.leased else evict).append(resident.key)
        free_bytes += resident.reserved_bytes
    if free_bytes < needed_bytes:
        return None
    return Plan(tuple(evict), tuple(claim))
