"""From token ids to text, and where stop strings cut it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
MAX_HELD_IDS = 8
"""A character has at most four bytes; more ids than this are not one that is unfinished."""


class Detokenizer:
    """Text of a growing list of ids, never half a character.

    Decodes from the id before the new ones, because how an id is spelled may depend on it; text
    that ends inside a UTF-8 sequence waits for the rest. `before` is the prompt's last id.
    """

    def __init__(self, decode: Callable[[list[int]], str], before: int | None = None) -> None:
        self._decode = decode
        self._ids: list[int] = [] if before is None else [before]
        self._known = ""
        self._restart()

    def add(self, token: int) -> str:
        self._ids.append(token)
        text = self._decode(self._ids)
        if text.endswith(UNFINISHED) and len(self._ids) <= MAX_HELD_IDS:
            return ""
        new = text[len(self._known) :]
        self._ids = self._ids[-1:]
        self._restart()
        return new

    def _restart(self) -> None:
        """Keep the last id as context, unless it is only a part of a character."""
        self._known = self._decode(self._ids) if self._ids else ""
        if self._known.endswith(UNFINISHED):
            self._ids, self._known = [], ""

    def rest(self) -> str:
        return self._decode(self._ids)[len(self._known) :]


def overlap(text: str, markers: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins one of `markers`."""
    longest = max((len(marker) for marker in markers), default=0)
    for length in range(min(len(text), longest - 1), 0, -1):
        tail = text[-length:]
        if any(marker.startswith(tail) for marker in markers):
            return length
    return 0


class StopMatcher:
    """Cuts text before the first stop string, wherever the borders of tokens lie."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.met = ""
        """The stop string that has ended the text."""

    @property
    def stopped(self) -> bool:
        return bool(self.met)

    def add(self, text: str) -> str:
        text = self._held + text
        found = [(at + len(s), at, s) for s in self._stops if (at := text.find(s)) >= 0]
        if found:
            # The one that is complete first: another that began earlier might never have been.
            _, place, self.met = min(found)
            self._held = ""
            return text[:place]
        keep = overlap(text, self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    @property
    def holds(self) -> bool:
        """Whether text waits that may be the beginning of a stop string."""
        return bool(self._held)

    def rest(self) -> str:
        held, self._held = self._held, ""
        return held
