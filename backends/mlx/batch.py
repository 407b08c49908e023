"""Decoding many requests at once: the only file that touches mlx-lm's `BatchGenerator`.

Everything here is called on the engine thread. `BatchGenerator` changes often; the contract
tests in `tests/backends/mlx/test_batch.py` hold every use made of it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from backends.mlx import kv_state, library
from backends.mlx.decoder import Likelihood, RowRequest, Token
from backends.mlx.pace import MAX_TOKENS, Pace
from backends.mlx.prefix_cache import common_prefix, pack
from backends.mlx.prefixes import Prefixes

PREFILL_ROWS = 4
"""Prompts that are read at once; they share the tokens of a step."""

WORTH_WAITING_TOKENS = 256
"""What two prompts have in common is computed once, if it is more than this."""


@dataclass(slots=True, eq=False)
class _Row:
    """`uid` is the generator's number of it, None while it waits."""

    number: int
    request: RowRequest
    packed: bytes
    uid: int | None = None
    cached: int = 0
    done: int = 0
    """Tokens of the prompt that were computed, beyond the cached ones."""
    decoding: bool = False

    @property
    def known(self) -> int:
        return self.cached + self.done


class BatchDecoder:
    """Continuous batching: rows join and leave at every step.

    Finished and abandoned rows leave their states to `prefixes`, and new ones begin with what is
    found there. A prompt that has much in common with one that is being read waits for it.
    """

    def __init__(
        self, network: Any, stop_ids: frozenset[int], max_rows: int, prefixes: Prefixes
    ) -> None:
        self._prefixes = prefixes
        self._max_rows = max_rows
        self._forgetful = not kv_state.keeps_all(kv_state.new(network))
        self._waiting: deque[_Row] = deque()
        self._rows: dict[int, _Row] = {}
        """In the generator, by its numbers."""
        self._next_number = 0
        self._pace = Pace()
        self._generator = library.load("mlx_lm.generate").BatchGenerator(
            network,
            stop_tokens=[[token] for token in sorted(stop_ids)],
            completion_batch_size=max_rows,
            prefill_batch_size=min(PREFILL_ROWS, max_rows),
            prefill_step_size=MAX_TOKENS,
        )

    def __len__(self) -> int:
        return len(self._rows) + len(self._waiting)

    @property
    def nbytes(self) -> int:
        return int(self._generator.prompt_cache_nbytes)

    def insert(self, request: RowRequest) -> int:
        number, self._next_number = self._next_number, self._next_number + 1
        self._waiting.append(_Row(number, request, pack(request.prompt)))
        return number

    def remove(self, row: int) -> None:
        self._waiting = deque(one for one in self._waiting if one.number != row)
        uid = next((uid for uid, one in self._rows.items() if one.number == row), None)
        if uid is None:
            return
        del self._rows[uid]
        left = self._generator.remove([uid], return_prompt_caches=True)
        state, tokens = left.get(uid, ((), ()))
        if len(tokens) and all(not cache.empty() for cache in state):
            self._prefixes.keep(tokens, list(state))

    def step(self) -> list[Token]:
        self._prefixes.settle()
        self._admit()
        reading = self._reading()
        if reading:
            tokens = self._pace.tokens(shared=len(reading) < len(self._rows))
            self._generator.prefill_step_size = max(1, tokens // len(reading))
        began, before = time.monotonic(), sum(row.done for row in reading)
        prompts, generated = self._generator.next()
        for response in prompts:
            self._read(response)
        self._pace.took(sum(row.done for row in reading) - before, time.monotonic() - began)
        return [self._token(response) for response in generated]

    def prove(self, prompt: Sequence[int]) -> None:
        """Not by `step` until it gives the token: the generator is a token ahead by then, which
        takes as long as the first one, and somebody waits for this load."""
        row = self.insert(RowRequest(prompt=prompt, max_tokens=2, sampler=None))
        while self._waiting or self._reading():
            self.step()
        self.remove(row)
        library.load("mlx.core").synchronize(self._generator.stream)

    def close(self) -> None:
        self._waiting.clear()
        self._rows.clear()
        self._generator.close()

    def _reading(self) -> list[_Row]:
        return [row for row in self._rows.values() if not row.decoding]

    def _admit(self) -> None:
        """In order, but for those who wait for a prompt that is being read."""
        reading = self._reading()
        for row in tuple(self._waiting):
            if len(self._rows) >= self._max_rows or len(reading) >= PREFILL_ROWS:
                return
            if not any(self._spares(other, row) for other in reading):
                self._waiting.remove(row)
                self._begin(row)
                reading.append(row)

    def _begin(self, row: _Row) -> None:
        request = row.request
        prefix = self._prefixes.fetch(request.prompt)
        row.cached = prefix.length if prefix else 0
        (uid,) = self._generator.insert_segments(
            [_segments(request.prompt, row.cached, request.checkpoints)],
            max_tokens=[request.max_tokens],
            caches=[prefix.state] if prefix else None,
            all_tokens=[list(request.prompt[: row.cached])],
            samplers=[request.sampler],
            logits_processors=[list(request.processors)],
        )
        self._rows[uid] = row

    def _spares(self, other: _Row, row: _Row) -> bool:
        """Whether `row` should wait until `other` is read: more of its prompt is known then."""
        common = common_prefix(other.packed, row.packed)
        if self._forgetful:
            ends = [end for end in other.request.checkpoints if end <= common]
            common = max(ends, default=0)
        common = min(common, len(row.request.prompt) - 1, len(other.request.prompt) - 1)
        if common <= other.known or common < WORTH_WAITING_TOKENS:
            return False
        return common - self._prefixes.length(row.packed) >= WORTH_WAITING_TOKENS

    def _read(self, response: Any) -> None:
        """A piece of a prompt, or all of it, is in the state now."""
        row = self._rows[response.uid]
        if response.end_of_prompt:
            row.decoding = True
            return
        row.done = response.progress[0]
        wanted = row.known in row.request.checkpoints or (
            row.known == len(row.request.prompt) - 1 and self._is_awaited(row)
        )
        if response.end_of_segment and wanted:
            state, tokens = self._generator.extract_cache([response.uid])[response.uid]
            self._prefixes.keep(tokens, state)

    def _is_awaited(self, row: _Row) -> bool:
        return any(
            common_prefix(row.packed, other.packed) >= WORTH_WAITING_TOKENS
            for other in self._waiting
        )

    def _token(self, response: Any) -> Token:
        row = self._rows[response.uid]
        if response.finish_reason:
            del self._rows[response.uid]
            self._prefixes.offer(response.all_tokens, response.prompt_cache)
        wanted = row.request.likelihoods
        return Token(
            row.number,
            response.token,
            response.finish_reason,
            row.cached,
            None if wanted is None else likelihood(response.logprobs, response.token, wanted),
        )


def likelihood(logprobs: Any, token: int, count: int) -> Likelihood:
    """Of a generated token, from the log-probabilities [vocabulary] that it was drawn from."""
    mx = library.load("mlx.core")
    own = float(logprobs[token].item())
    if count == 0:
        return Likelihood(own)
    count = min(count, logprobs.shape[-1])
    ids = mx.argpartition(-logprobs, count - 1)[:count]
    pairs = zip(ids.tolist(), logprobs[ids].tolist(), strict=True)
    return Likelihood(own, tuple(sorted(pairs, key=lambda pair: -pair[1])))


def _segments(prompt: Sequence[int], cached: int, checkpoints: Sequence[int]) -> list[list[int]]:
    """What is left of the prompt, cut where its state is to be kept."""
    inner = [end for end in checkpoints if cached < end < len(prompt)]
    ends = [cached, *inner, len(prompt)]
    return [list(prompt[a:b]) for a, b in pairwise(ends)]
