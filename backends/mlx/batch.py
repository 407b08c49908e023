"""Decoding many requests at once: the only file that touches mlx-lm's generators.

Everything here is called on the engine thread. `BatchGenerator` changes often; the contract
tests in `tests/backends/mlx/test_batch.py` hold every use made of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from backends.mlx import library

PREFILL_TOKENS = 512
"""Prompt tokens computed in one step: running answers wait no longer than that for a token."""

PREFILL_ROWS = 4


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token of a row. `last` is set on the final one: `stop` or `length`."""

    row: int
    id: int
    last: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRequest:
    """`prompt` holds at least one token id."""

    prompt: Sequence[int]
    max_tokens: int
    sampler: Any
    processors: Sequence[Any] = ()


class Decoder(Protocol):
    """Rows go in; each `step` gives at most one token per row."""

    def __len__(self) -> int: ...

    def insert(self, request: RowRequest) -> int: ...

    def remove(self, row: int) -> None: ...

    def step(self) -> list[Token]: ...

    def close(self) -> None: ...


def make_decoder(model: Any, stop_ids: frozenset[int], max_rows: int) -> Decoder:
    """Batched where every layer's cache can be merged with others, else one row after another."""
    caches = library.load("mlx_lm.models.cache").make_prompt_cache(model)
    if all(hasattr(cache, "merge") for cache in caches):
        return BatchDecoder(model, stop_ids, max_rows)
    return SequentialDecoder(model, stop_ids)


class BatchDecoder:
    def __init__(self, model: Any, stop_ids: frozenset[int], max_rows: int) -> None:
        self._rows: set[int] = set()
        self._generator = library.load("mlx_lm.generate").BatchGenerator(
            model,
            stop_tokens=[[token] for token in sorted(stop_ids)],
            completion_batch_size=max_rows,
            prefill_batch_size=min(PREFILL_ROWS, max_rows),
            prefill_step_size=PREFILL_TOKENS,
        )

    def __len__(self) -> int:
        return len(self._rows)

    def insert(self, request: RowRequest) -> int:
        (row,) = self._generator.insert(
            [list(request.prompt)],
            max_tokens=[request.max_tokens],
            samplers=[request.sampler],
            logits_processors=[list(request.processors)],
        )
        self._rows.add(row)
        return int(row)

    def remove(self, row: int) -> None:
        if row in self._rows:
            self._rows.discard(row)
            self._generator.remove([row])

    def step(self) -> list[Token]:
        _, generated = self._generator.next()
        tokens = [Token(r.uid, r.token, r.finish_reason) for r in generated]
        self._rows.difference_update(token.row for token in tokens if token.last)
        return tokens

    def close(self) -> None:
        self._rows.clear()
        self._generator.close()


class SequentialDecoder:
    """For models whose caches cannot be merged: the rows behind the first one wait."""

    def __init__(self, model: Any, stop_ids: frozenset[int]) -> None:
        self._model = model
        self._stop_ids = stop_ids
        self._waiting: deque[tuple[int, RowRequest]] = deque()
        self._row: int | None = None
        self._tokens: Iterator[Token] = iter(())
        self._next_row = 0

    def __len__(self) -> int:
        return len(self._waiting) + (self._row is not None)

    def insert(self, request: RowRequest) -> int:
        row, self._next_row = self._next_row, self._next_row + 1
        self._waiting.append((row, request))
        return row

    def remove(self, row: int) -> None:
        if row == self._row:
            self._row, self._tokens = None, iter(())
        self._waiting = deque(item for item in self._waiting if item[0] != row)

    def step(self) -> list[Token]:
        if self._row is None and self._waiting:
            self._row, request = self._waiting.popleft()
            self._tokens = self._generate(self._row, request)
        token = next(self._tokens, None)
        if token is None:
            return []
        if token.last:
            self._row, self._tokens = None, iter(())
        return [token]

    def _generate(self, row: int, request: RowRequest) -> Iterator[Token]:
        mx = library.load("mlx.core")
        steps = library.load("mlx_lm.generate").generate_step(
            mx.array(request.prompt),
            self._model,
            max_tokens=request.max_tokens,
            sampler=request.sampler,
            logits_processors=list(request.processors),
            prefill_step_size=PREFILL_TOKENS,
        )
        for count, (token, _) in enumerate(steps, 1):
            last = "length" if count == request.max_tokens else None
            yield Token(row, token, "stop" if token in self._stop_ids else last)

    def close(self) -> None:
        self._waiting.clear()
        self._row, self._tokens = None, iter(())
