"""Texts that wait for their vectors, and which of them are computed together. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar

MAX_TOGETHER = 64

MOST_PADDING = 2
"""Times its own length that a text is padded to at most."""


class Waiting(Protocol):
    @property
    def length(self) -> int:
        """Tokens."""


T = TypeVar("T", bound=Waiting)


class WaitingTexts(Generic[T]):
    """Requests take turns: each time, the longest text of one of them leads, and others that are
    nearly as long go with it, whoever asked for them."""

    def __init__(self) -> None:
        self._requests: deque[list[T]] = deque()

    def __len__(self) -> int:
        return sum(map(len, self._requests))

    def __iter__(self) -> Iterator[T]:
        return (text for texts in self._requests for text in texts)

    def put(self, texts: Sequence[T]) -> None:
        """All of one request."""
        self._requests.append(sorted(texts, key=_length))

    def take(self, tokens: int) -> list[T]:
        """As many as fit into `tokens` when all are padded to the first one's length, which may be
        longer itself."""
        leader = self._requests[0].pop()
        self._requests.rotate(-1)
        room = min(tokens // leader.length, MAX_TOGETHER) - 1
        least = leader.length / MOST_PADDING
        fitting = [text for text in self if least <= text.length <= leader.length]
        chosen = sorted(fitting, key=_length, reverse=True)[: max(room, 0)]
        self.drop(chosen)
        return [leader, *chosen]

    def drop(self, texts: Sequence[T]) -> None:
        dropped = {id(text) for text in texts}
        kept = ([t for t in texts if id(t) not in dropped] for texts in self._requests)
        self._requests = deque(texts for texts in kept if texts)


def _length(text: Waiting) -> int:
    return text.length
