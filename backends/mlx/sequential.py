"""Decoding one request after another, for what cannot be batched: the only file that touches
mlx-lm's `generate_step`. On the engine thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from backends.mlx import kv_state, library
from backends.mlx.batch import likelihood
from backends.mlx.decoder import RowRequest, Token
from backends.mlx.kv_state import KVState
from backends.mlx.pace import Pace
from backends.mlx.prefixes import Prefixes


class SequentialDecoder:
    """The rows behind the first one wait."""

    def __init__(self, network: Any, stop_ids: frozenset[int], prefixes: Prefixes) -> None:
        self._network = network
        self._stop_ids = stop_ids
        self._prefixes = prefixes
        self._waiting: deque[tuple[int, RowRequest]] = deque()
        self._row: int | None = None
        self._steps: Iterator[Token | None] = iter(())
        self._state: KVState = []
        self._tokens: list[int] = []
        """What the state has read."""
        self._next_row = 0
        self._pace = Pace()

    def __len__(self) -> int:
        return len(self._waiting) + (self._row is not None)

    @property
    def nbytes(self) -> int:
        return kv_state.nbytes(self._state)

    def insert(self, request: RowRequest) -> int:
        row, self._next_row = self._next_row, self._next_row + 1
        self._waiting.append((row, request))
        return row

    def remove(self, row: int) -> None:
        if row == self._row:
            self._end()
        self._waiting = deque(item for item in self._waiting if item[0] != row)

    def step(self) -> list[Token]:
        if self._row is None and self._waiting:
            self._row, request = self._waiting.popleft()
            self._steps = self._run(self._row, request)
        token = next(self._steps, None)
        if token is None:
            return []
        if token.last:
            self._end()
        return [token]

    def close(self) -> None:
        self._waiting.clear()
        self._tokens = []
        self._end()

    def _end(self) -> None:
        state, self._state = self._state, []
        tokens, self._tokens = self._tokens, []
        self._row, self._steps = None, iter(())
        if tokens:
            self._prefixes.keep(tokens, state)

    def _run(self, row: int, request: RowRequest) -> Iterator[Token | None]:
        """None for each piece of the prompt that was read, then the tokens."""
        prefix = self._prefixes.fetch(request.prompt)
        cached = prefix.length if prefix else 0
        self._state = kv_state.independent(prefix.state) if prefix else kv_state.new(self._network)
        self._tokens = list(request.prompt[:cached])
        for _ in self._read(request):
            yield None
        yield from self._generate(row, request, cached)

    def _read(self, request: RowRequest) -> Iterator[None]:
        """All of the prompt but its last token."""
        mx = library.load("mlx.core")
        end = len(request.prompt) - 1
        stations = sorted({*(c for c in request.checkpoints if c <= end), end})
        while (at := len(self._tokens)) < end:
            to = min(at + self._pace.tokens(shared=False), *(s for s in stations if s > at))
            began = time.monotonic()
            piece = list(request.prompt[at:to])
            self._network(mx.array(piece)[None], cache=self._state)
            mx.eval([cache.state for cache in self._state])
            mx.clear_cache()
            self._tokens += piece
            self._pace.took(len(piece), time.monotonic() - began)
            if to in request.checkpoints:
                self._prefixes.keep(self._tokens, kv_state.independent(self._state))
            yield

    def _generate(self, row: int, request: RowRequest, cached: int) -> Iterator[Token]:
        mx = library.load("mlx.core")
        head = mx.array(list(request.prompt[:-1]), dtype=mx.uint32)
        steps = library.load("mlx_lm.generate").generate_step(
            mx.array([request.prompt[-1]], dtype=mx.uint32),
            self._network,
            max_tokens=request.max_tokens,
            sampler=request.sampler,
            logits_processors=[_after(head, processor) for processor in request.processors],
            prompt_cache=self._state,
        )
        wanted = request.likelihoods
        self._tokens.append(request.prompt[-1])
        for count, (token, logprobs) in enumerate(steps, 1):
            last = "length" if count == request.max_tokens else None
            last = "stop" if token in self._stop_ids else last
            likely = None if wanted is None else likelihood(logprobs, token, wanted)
            # The generator is a step ahead: the state has read this one already.
            self._tokens.append(token)
            yield Token(row, token, last, cached, likely)


def _after(head: Any, processor: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A processor that sees the whole prompt, of which the generator knows the last token only."""
    mx = library.load("mlx.core")
    return lambda tokens, logits: processor(mx.concatenate([head, tokens]), logits)
