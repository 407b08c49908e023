"""How one vector is made of what the network says of a text's tokens, in pieces as they come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from backends.mlx import library
from detect.types import Pooling

LEAST_LENGTH = 1e-12
"""By which a vector is divided at least, as PyTorch does."""


@dataclass(frozen=True, slots=True)
class Mode:
    """`part` makes a vector of [tokens, width], `joined` one of two that follow each other, and
    `whole` the text's, of the last and the number of its tokens."""

    part: Callable[[Any], Any]
    joined: Callable[[Any, Any], Any]
    whole: Callable[[Any, int], Any] = lambda vector, tokens: vector


MODES: Mapping[str, Mode] = {
    "lasttoken": Mode(lambda states: states[-1], lambda before, now: now),
    "cls": Mode(lambda states: states[0], lambda before, now: before),
    "mean": Mode(
        lambda states: states.sum(axis=0),
        lambda before, now: before + now,
        lambda vector, tokens: vector / tokens,
    ),
}
"""By the names of sentence-transformers, without what all of them end in."""


def mode_of(pooling: Pooling | None) -> Mode | None:
    """None: it is not said how, or in a way that is not known here."""
    if pooling is None or pooling.others or len(pooling.modes) != 1:
        return None
    return MODES.get(pooling.modes[0])


class Pool:
    """One text's vector, as 32-bit floats. On the engine thread only."""

    def __init__(self, mode: Mode) -> None:
        self._mode = mode
        self._tokens = 0
        self._vector: Any = None

    def add(self, states: Any) -> Any:
        """`states` are [tokens, width], of the tokens that come next; what is to be computed."""
        part = self._mode.part(states.astype(library.load("mlx.core").float32))
        self._vector = part if self._vector is None else self._mode.joined(self._vector, part)
        self._tokens += states.shape[0]
        return self._vector

    def vector(self, *, normalized: bool, dimensions: int | None) -> Any:
        """The first `dimensions` of it, normalised only then."""
        vector = self._mode.whole(self._vector, self._tokens)[:dimensions]
        if not normalized:
            return vector
        mx = library.load("mlx.core")
        return vector / mx.maximum(mx.linalg.norm(vector), LEAST_LENGTH)
