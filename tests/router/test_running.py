from __future__ import annotations

from typing import Any

from router.running import running

INSTANCE: dict[str, Any] = {
    "model": "org/a",
    "engine": "llama.cpp",
    "state": "ready",
    "reason": "",
    "leases": 2,
    "reserved_bytes": 2**30,
    "measured_bytes": 2**29,
    "load_seconds": 1.25,
    "loading_seconds": None,
    "pinned": False,
    "idle_left_seconds": None,
    "pid": 77,
}


def status(**changes: Any) -> dict[str, Any]:
    nothing: dict[str, Any] = {"instances": [], "waiting": [], "failing": []}
    return {"reserved_bytes": 2**30, "budget_bytes": 2**34, **nothing, **changes}


def shown(**changes: Any) -> str:
    return running(status(instances=[{**INSTANCE, **changes}])).splitlines()[1]


def test_nothing_loaded_is_said_so() -> None:
    assert running(status()) == "Nothing is loaded.\n\n1.0 GiB of 16.0 GiB reserved."


def test_an_instance_is_a_row() -> None:
    row = shown().split()
    assert row[:4] == ["org/a", "llama.cpp", "ready", "2"]
    assert row[4:] == ["1.0", "GiB", "512.0", "MiB", "1.2", "s", "–", "77"]


def test_a_state_says_for_how_long_or_why() -> None:
    assert "starting, 3 s" in shown(state="starting", loading_seconds=3.2, load_seconds=None)
    assert "stopping: it ended" in shown(state="stopping", reason="it ended")


def test_when_it_leaves_is_shown() -> None:
    assert " 30 s " in shown(idle_left_seconds=30.4)
    assert " pinned " in shown(pinned=True, idle_left_seconds=30.4)


def test_what_waits_and_what_fails_has_its_reason() -> None:
    waiting = {"model": "b", "for": "memory", "needed_bytes": 2**20, "seconds": 4.0}
    failing = {"model": "c", "failures": 3, "retry_seconds": 8.0, "reason": "no tensor."}
    rows = [
        line.split() for line in running(status(waiting=[waiting], failing=[failing])).split("\n")
    ]
    assert ["b", "memory", "1.0", "MiB", "4", "s"] in rows
    assert ["c", "3", "times", "8", "s", "no", "tensor."] in rows
