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


@dataclass(slots=True)
class _Row:
    request: RowRequest
    cached: int
    done: int = 0
    """Tokens of the prompt that were computed, beyond the cached ones."""
    decoding: bool = False


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
        self._waiting: deque[tuple[int, RowRequest]] = deque()
        self._rows: dict[int, _Row] = {}
        self._uids: dict[int, int] = {}
        """The generator's number of a row → ours."""
        self._next_row = 0
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
        row, self._next_row = self._next_row, self._next_row + 1
        self._waiting.append((row, request))
        return row

    def remove(self, row: int) -> None:
        self._waiting = deque(item for item in self._waiting if item[0] != row)
        if self._rows.pop(row, None) is None:
            return
        uid = next(uid for uid, other in self._uids.items() if other == row)
        del self._uids[uid]
        left = self._generator.remove([uid], return_prompt_caches=True)
        state, tokens = left.get(uid, ((), ()))
        if len(tokens) and all(not cache.empty() for cache in state):
            self._prefixes.keep(tokens, list(state))

    def step(self) -> list[Token]:
        self._admit()
        reading = [row for row in self._rows.values() if not row.decoding]
        shared = len(reading) < len(self._rows)
        if reading:
            each = self._pace.tokens(shared=shared) // len(reading)
            self._generator.prefill_step_size = max(1, each)
        began, before = time.monotonic(), sum(row.done for row in reading)
        prompts, generated = self._generator.next()
        for response in prompts:
            self._read(response)
        self._pace.took(sum(row.done for row in reading) - before, time.monotonic() - began)
        return [self._token(response) for response in generated]

    def close(self) -> None:
        self._waiting.clear()
        self._rows.clear()
        self._uids.clear()
        self._generator.close()

    def _admit(self) -> None:
        reading = [row for row in self._rows.values() if not row.decoding]
        passed: deque[tuple[int, RowRequest]] = deque()
        while self._waiting:
            if len(self._rows) >= self._max_rows or len(reading) >= PREFILL_ROWS:
                break
            row, request = self._waiting.popleft()
            if any(self._spares(other, request) for other in reading):
                passed.append((row, request))
                continue
            reading.append(self._begin(row, request))
        self._waiting.extendleft(reversed(passed))

    def _begin(self, row: int, request: RowRequest) -> _Row:
        prefix = self._prefixes.fetch(request.prompt)
        cached = prefix.length if prefix else 0
        (uid,) = self._generator.insert_segments(
            [list(_segments(request.prompt, cached, request.checkpoints))],
            max_tokens=[request.max_tokens],
            caches=[prefix.state] if prefix else None,
            all_tokens=[list(request.prompt[:cached])],
            samplers=[request.sampler],
            logits_processors=[list(request.processors)],
        )
        self._uids[uid] = row
        self._rows[row] = _Row(request, cached)
        return self._rows[row]

    def _spares(self, other: _Row, request: RowRequest) -> bool:
        """Whether to wait until `other` is read: then more of the prompt is known than now."""
        common = common_prefix(pack(other.request.prompt), pack(request.prompt))
        if self._forgetful:
            ends = [end for end in other.request.checkpoints if end <= common]
            common = max(ends, default=0)
        common = min(common, len(request.prompt) - 1, len(other.request.prompt) - 1)
        if common <= other.cached + other.done or common < WORTH_WAITING_TOKENS:
            return False
        return common - self._prefixes.length(request.prompt) >= WORTH_WAITING_TOKENS

    def _read(self, response: Any) -> None:
        """A piece of a prompt, or all of it, is in the state now."""
        row = self._rows[self._uids[response.uid]]
        if response.end_of_prompt:
            row.decoding = True
            return
        row.done = response.progress[0]
        length = row.cached + row.done
        wanted = length in row.request.checkpoints or (
            length == len(row.request.prompt) - 1 and self._is_awaited(row)
        )
        if response.end_of_segment and wanted:
            state, tokens = self._generator.extract_cache([response.uid])[response.uid]
            self._prefixes.keep(tokens, state)

    def _is_awaited(self, row: _Row) -> bool:
        prompt = pack(row.request.prompt)
        return any(
            common_prefix(prompt, pack(request.prompt)) >= WORTH_WAITING_TOKENS
            for _, request in self._waiting
        )

    def _token(self, response: Any) -> Token:
        number = self._uids[response.uid]
        row = self._rows[number]
        if response.finish_reason:
            del self._rows[number], self._uids[response.uid]
            self._prefixes.keep(response.all_tokens, response.prompt_cache)
        wanted = row.request.likelihoods
        return Token(
            number,
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
