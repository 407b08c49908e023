"""A short text that comes in pieces, against what it should be."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """A part that is one piece: letters of a kind, as a pattern with a bounded length."""

    pattern: str


SPACE = Run(r"\s{0,64}")


class Expected:
    """Literal texts and runs, one after the other.

    All that can still become one of these is at most as long as its literals and the bounds of
    its runs: whoever waits for one holds back no more than that.
    """

    def __init__(self, *parts: str | Run) -> None:
        patterns = [pattern for part in parts for pattern in _patterns(part)]
        begun = ""
        for pattern in reversed(patterns):
            begun = rf"(?:\Z|{pattern}{begun})"
        self._whole = re.compile("".join(patterns))
        self._begun = re.compile(begun)

    def match(self, text: str) -> re.Match[str] | None:
        """At the start of `text`."""
        return self._whole.match(text)

    def possible(self, text: str) -> bool:
        """Whether `text` is a beginning of it, with nothing behind."""
        return self._begun.fullmatch(text) is not None


def _patterns(part: str | Run) -> list[str]:
    if isinstance(part, Run):
        return [part.pattern]
    return [re.escape(letter) for letter in part]
