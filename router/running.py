"""What a daemon says of itself at `/router/status`, as a text for terminals. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from router import explain
from router.table import table

HEAD = ("MODEL", "ENGINE", "STATE", "ANSWERING", "RESERVED", "USED", "LOADED IN", "PID")


def running(status: Mapping[str, Any]) -> str:
    """`status` is the parsed answer; the daemon is ours, and of this version."""
    budget = (
        f"{explain.size(status['reserved_bytes'])} of {explain.size(status['budget_bytes'])} "
        "reserved."
    )
    parts = [_instances(status["instances"]), *_waiting(status["waiting"]), budget]
    return "\n\n".join(parts)


def _instances(instances: Sequence[Mapping[str, Any]]) -> str:
    return table(HEAD, [_row(one) for one in instances]) if instances else "Nothing is loaded."


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    used, seconds = one["measured_bytes"], one["load_seconds"]
    return (
        one["model"],
        one["engine"],
        f"{one['state']}: {one['reason']}" if one["reason"] else one["state"],
        str(one["leases"]),
        explain.size(one["reserved_bytes"]),
        explain.size(used) if used else "–",
        f"{seconds:.1f} s" if seconds else "–",
        str(one["pid"] or "–"),
    )


def _waiting(waiting: Sequence[Mapping[str, Any]]) -> list[str]:
    if not waiting:
        return []
    rows = [(w["model"], w["for"], explain.size(w["needed_bytes"])) for w in waiting]
    return [table(("WAITING", "FOR", "NEEDS"), rows)]
