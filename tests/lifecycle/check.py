"""What a proof claims, what was measured, and whether it holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    what: str
    figure: str
    bound: str
    holds: bool

    def __str__(self) -> str:
        mark = "ok" if self.holds else "NOT"
        return f"{mark:4} {self.what:44} {self.figure:>34}   {self.bound}"


def none(what: str, found: Iterable[object]) -> Check:
    """There should be none; the first few are shown."""
    all_found = list(found)
    shown = "0" if not all_found else f"{len(all_found)}: {', '.join(map(str, all_found[:5]))}"
    return Check(what, shown, "none", not all_found)


def failed(checks: Iterable[Check]) -> list[Check]:
    return [check for check in checks if not check.holds]


def report(checks: Iterable[Check]) -> int:
    """Print them all; the exit status."""
    all_checks = list(checks)
    print("\n" + "\n".join(map(str, all_checks)), flush=True)
    return 1 if failed(all_checks) else 0
