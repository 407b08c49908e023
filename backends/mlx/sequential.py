"""Decoding one request after another, for what cannot be batched: the only file that touches
mlx-lm's `generate_step` and `speculative_generate_step`. On the engine thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

from backends.mlx import kv_state, library
from backends.mlx.batch import likelihood
from backends.mlx.decoder import RowRequest, Token
from backends.mlx.kv_state import KVState
from backends.mlx.pace import Pace
from backends.mlx.prefixes import Prefixes


class SequentialDecoder:
    """The rows behind the first one wait.

    `draft` is a smaller network that guesses tokens for this one to accept or not; `kv_bits` holds
    keys and values with 4 or 8 bits instead of 16.
    """

    def __init__(
        self,
        network: Any,
        stop_ids: frozenset[int],
        prefixes: Prefixes,
        *,
        draft: Any = None,
        kv_bits: int | None = None,
    ) -> None:
        self._network = network
        self._draft = draft
        self._kv_bits = kv_bits
        self._stop_ids = stop_ids
        self._prefixes = prefixes
        self._waiting: deque[tuple[int, RowRequest]] = deque()
        self._row: int | None = None
        self._steps: Generator[Token | None, None, None] | None = None
        self._state: KVState = []
        self._tokens: list[int] = []
        """What the state has read, at most."""
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
        if self._steps is None:
            if not self._waiting:
                return []
            self._row, request = self._waiting.popleft()
            self._steps = self._run(self._row, request)
        token = next(self._steps, None)
        if token is None:
            return []
        if token.last:
            self._end()
        return [token]

    def prove(self, prompt: Sequence[int]) -> None:
        self.insert(RowRequest(prompt=prompt, max_tokens=1, sampler=None))
        while self._waiting or self._steps is not None:
            self.step()

    def close(self) -> None:
        self._waiting.clear()
        self._tokens = []
        self._end()

    def _end(self) -> None:
        if self._steps is not None:
            # What was guessed and not accepted is taken back then.
            self._steps.close()
        state, self._state = self._state, []
        tokens, self._tokens = self._tokens, []
        self._row = self._steps = None
        if tokens:
            self._prefixes.offer(tokens[: kv_state.cut(state, len(tokens))], state)

    def _run(self, row: int, request: RowRequest) -> Generator[Token | None, None, None]:
        """None for each piece of the prompt that was read, then the tokens."""
        prefix = self._prefixes.fetch(request.prompt)
        cached = prefix.length if prefix else 0
        self._state = kv_state.independent(prefix.state) if prefix else self._new_state()
        self._tokens = list(request.prompt[:cached])
        for _ in self._read(request):
            yield None
        yield from self._generate(row, request, cached)

    def _new_state(self) -> KVState:
        """Of the network, and behind it that of the draft."""
        drafts = kv_state.new(self._draft) if self._draft is not None else []
        return [*kv_state.new(self._network), *drafts]

    def _parts(self) -> list[tuple[Any, KVState]]:
        layers = len(kv_state.new(self._network))
        parts = [(self._network, self._state[:layers])]
        return parts if self._draft is None else [*parts, (self._draft, self._state[layers:])]

    def _read(self, request: RowRequest) -> Iterator[None]:
        """All of the prompt but its last token."""
        end = len(request.prompt) - 1
        stations = sorted({*(c for c in request.checkpoints if c <= end), end})
        while (at := len(self._tokens)) < end:
            to = min(at + self._pace.tokens(shared=False), *(s for s in stations if s > at))
            began = time.monotonic()
            self._read_piece(list(request.prompt[at:to]))
            self._pace.took(to - at, time.monotonic() - began)
            if to in request.checkpoints:
                self._prefixes.keep(self._tokens, kv_state.independent(self._state))
            yield

    def _read_piece(self, piece: list[int]) -> None:
        mx = library.load("mlx.core")
        for network, state in self._parts():
            network(mx.array(piece)[None], cache=state)
            mx.eval([cache.state for cache in state])
        if self._kv_bits is not None:
            kv_state.quantize(self._state, self._kv_bits)
        mx.clear_cache()
        self._tokens += piece

    def _generate(self, row: int, request: RowRequest, cached: int) -> Iterator[Token]:
        wanted = request.likelihoods
        self._tokens.append(request.prompt[-1])
        with closing(self._steps_from(request)) as steps:
            for count, (token, logprobs, *_) in enumerate(steps, 1):
                last = "length" if count == request.max_tokens else None
                last = "stop" if token in self._stop_ids else last
                likely = None if wanted is None else likelihood(logprobs, token, wanted)
                # The generator is a step ahead: the state has read this one already.
                self._tokens.append(token)
                yield Token(row, token, last, cached, likely)

    def _steps_from(self, request: RowRequest) -> Any:
        mx, module = library.load("mlx.core"), library.load("mlx_lm.generate")
        head = mx.array(list(request.prompt[:-1]), dtype=mx.uint32)
        given = {
            "max_tokens": request.max_tokens,
            "sampler": request.sampler,
            "logits_processors": [_after(head, processor) for processor in request.processors],
            "prompt_cache": self._state,
        }
        last = mx.array([request.prompt[-1]], dtype=mx.uint32)
        if self._draft is not None:
            return module.speculative_generate_step(last, self._network, self._draft, **given)
        return module.generate_step(last, self._network, **given)


def _after(head: Any, processor: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A processor that sees the whole prompt, of which the generator knows the last token only."""
    mx = library.load("mlx.core")
    return lambda tokens, logits: processor(mx.concatenate([head, tokens]), logits)
