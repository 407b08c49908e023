"""What a decoder takes and gives, whatever is behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Natural logarithms of probabilities: of the token itself, and of the likeliest ones with
    their ids, the likeliest first."""

    own: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token of a row. `last` is set on the final one: `stop` or `length`;
    `cached` says how many tokens of the prompt did not have to be computed."""

    row: int
    id: int
    last: str | None
    cached: int = 0
    likelihood: Likelihood | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRequest:
    """`prompt` holds at least one token id.

    `checkpoints` are lengths of beginnings of it that other prompts are expected to share, in
    rising order. `likelihoods` asks for that many likeliest tokens with each token; None for none.
    """

    prompt: Sequence[int]
    max_tokens: int
    sampler: Any
    processors: Sequence[Any] = ()
    checkpoints: Sequence[int] = ()
    likelihoods: int | None = None


class Decoder(Protocol):
    """Rows go in; each `step` gives at most one token per row. On the engine thread."""

    def __len__(self) -> int: ...

    def insert(self, request: RowRequest) -> int: ...

    def remove(self, row: int) -> None: ...

    def step(self) -> list[Token]:
        """
        Raises:
            Exception: of any kind; the decoder is of no use any more.
        """

    def prove(self, prompt: Sequence[int]) -> None:
        """Compute a first token while there are no rows, and throw it away.

        Raises:
            Exception: as `step` does.
        """

    def close(self) -> None: ...

    @property
    def nbytes(self) -> int:
        """What the running rows' states hold."""
