"""How many prompt tokens are computed in one step. Pure.

While a prompt is read nobody else gets a token, so that a step has a length in time. What fits into
it depends on the model and the machine, and is learned from the steps before.
"""

from __future__ import annotations

from dataclasses import dataclass

ALONE_SECONDS = 0.5
"""Of a step when nobody decodes. A client that leaves frees its row after at most that."""

SHARED_SECONDS = 0.1
"""Of a step between two tokens of those who decode."""

MIN_TOKENS, MAX_TOKENS = 32, 2048
"""Fewer use a GPU badly; more gain nothing (mlx-lm's own default is 2048)."""

FIRST_TOKENS = 128
"""Before anything is known."""

WEIGHT = 0.3
"""Of the last step in what is expected of the next one."""


@dataclass(slots=True)
class Pace:
    tokens_per_second: float | None = None

    def tokens(self, *, shared: bool) -> int:
        """For the next step; `shared` says that others decode meanwhile."""
        if self.tokens_per_second is None:
            return FIRST_TOKENS
        seconds = SHARED_SECONDS if shared else ALONE_SECONDS
        return max(MIN_TOKENS, min(MAX_TOKENS, int(self.tokens_per_second * seconds)))

    def took(self, tokens: int, seconds: float) -> None:
        """Steps of a few tokens say little: their time is the overhead's."""
        if tokens < MIN_TOKENS or seconds <= 0:
            return
        now = tokens / seconds
        known = self.tokens_per_second or now
        self.tokens_per_second = known + WEIGHT * (now - known)
