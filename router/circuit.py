"""How long a model that fails to run is left alone. Pure.

After a failure the next start waits 1 s, then 2 s, 4 s …, at most 60 s. From the third failure in
a row on, the circuit is open: requests are refused at once until the wait is over, and then one
of them tries.
"""

from __future__ import annotations

from dataclasses import dataclass

from router.errors import RouterError

OPENS_AFTER_FAILURES = 3
LONGEST_WAIT_SECONDS = 60.0

STEADY_SECONDS = 60.0
"""An instance that was ready for so long had not failed in a row with what was before it."""


@dataclass(frozen=True, slots=True)
class Circuit:
    """`failures` in a row, the last one `because` of something; not tried before `retry_at`, in
    the clock's seconds."""

    failures: int
    retry_at: float
    because: RouterError

    @property
    def open(self) -> bool:
        return self.failures >= OPENS_AFTER_FAILURES

    def waits(self, now: float) -> bool:
        return now < self.retry_at


def failed(before: Circuit | None, because: RouterError, now: float) -> Circuit:
    failures = before.failures + 1 if before is not None else 1
    wait_seconds = min(2.0 ** (min(failures, 32) - 1), LONGEST_WAIT_SECONDS)
    return Circuit(failures, now + wait_seconds, because)
