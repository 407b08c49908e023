"""What a daemon says of itself at `/router/status`, as a text for terminals. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from router import explain
from router.table import table

HEAD = (
    "MODEL", "ENGINE", "STATE", "ANSWERING", "RESERVED", "USED", "LOADED IN", "LEAVES IN", "PID"
)  # fmt: skip


def running(status: Mapping[str, Any]) -> str:
    """`status` is the parsed answer; the daemon is ours, and of this version."""
    budget = (
        f"{explain.size(status['reserved_bytes'])} of {explain.size(status['budget_bytes'])} "
        "reserved."
    )
    parts = [
        _instances(status["instances"]),
        *_waiting(status["waiting"]),
        *_failing(status["failing"]),
        budget,
    ]
    return "\n\n".join(parts)


def _instances(instances: Sequence[Mapping[str, Any]]) -> str:
    return table(HEAD, [_row(one) for one in instances]) if instances else "Nothing is loaded."


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    used, seconds = one["measured_bytes"], one["load_seconds"]
    return (
        one["model"],
        one["engine"],
        _state(one),
        str(one["leases"]),
        explain.size(one["reserved_bytes"]),
        explain.size(used) if used else "–",
        f"{seconds:.1f} s" if seconds else "–",
        _leaves(one),
        str(one["pid"] or "–"),
    )


def _state(one: Mapping[str, Any]) -> str:
    if one["loading_seconds"] is not None:
        return f"{one['state']}, {one['loading_seconds']:.0f} s"
    return f"{one['state']}: {one['reason']}" if one["reason"] else str(one["state"])


def _leaves(one: Mapping[str, Any]) -> str:
    if one["pinned"]:
        return "pinned"
    left = one["idle_left_seconds"]
    return "–" if left is None else f"{left:.0f} s"


def _waiting(waiting: Sequence[Mapping[str, Any]]) -> list[str]:
    if not waiting:
        return []
    rows = [
        (w["model"], w["for"], explain.size(w["needed_bytes"]), f"{w['seconds']:.0f} s")
        for w in waiting
    ]
    return [table(("WAITING", "FOR", "NEEDS", "SINCE"), rows)]


def _failing(failing: Sequence[Mapping[str, Any]]) -> list[str]:
    if not failing:
        return []
    rows = [
        (f["model"], f"{f['failures']} times", f"{f['retry_seconds']:.0f} s", f["reason"])
        for f in failing
    ]
    return [table(("FAILED", "IN A ROW", "TRIED AGAIN IN", "THE LAST TIME"), rows)]
