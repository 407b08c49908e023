"""The prefix cache of one model: what is computed, kept and found again. On the engine thread."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from backends.mlx import kv_state
from backends.mlx.kv_state import KVState
from backends.mlx.prefix_cache import Counters, Entry, PrefixCache, pack, usable

log = logging.getLogger("router.engine")

MIN_TOKENS = 16
"""Shorter ones are computed faster than they are found."""


class Shelf(Protocol):
    """Entries that outlive this process."""

    def usable(self, prompt: bytes) -> int: ...

    def take(self, prompt: bytes) -> Entry | None: ...

    def put(self, entry: Entry) -> None: ...


@dataclass(frozen=True, slots=True)
class Prefix:
    """The state after the first `length` tokens of a prompt."""

    state: KVState
    length: int


class Prefixes:
    def __init__(self, max_bytes: int, shelf: Shelf | None = None) -> None:
        self._cache = PrefixCache(max_bytes)
        self._shelf = shelf
        self._offered: list[tuple[Sequence[int], KVState]] = []

    @property
    def nbytes(self) -> int:
        return self._cache.nbytes

    @property
    def counters(self) -> Counters:
        return self._cache.counters

    def __len__(self) -> int:
        return len(self._cache)

    def length(self, prompt: bytes) -> int:
        """How many tokens of the prompt, which is packed, would be found in memory."""
        self.settle()
        return max((usable(entry, prompt) for entry in self._cache), default=0)

    def fetch(self, prompt: Sequence[int]) -> Prefix | None:
        """The state is good for merging into a batch: its arrays belong to the cache."""
        self.settle()
        if self._shelf is not None:
            self._take_from_shelf(prompt)
        hit = self._cache.fetch(prompt)
        if hit is None:
            return None
        entry = hit.entry
        return Prefix(kv_state.trimmed(entry.state, entry.length - hit.length), hit.length)

    def offer(self, tokens: Sequence[int], state: KVState) -> None:
        """To `keep` it soon: copying a long one takes a while, and its client waits for the end of
        the answer. Nothing may be computed before that goes on from the state."""
        self._offered.append((tokens, state))

    def settle(self) -> None:
        """Keep what was offered. One that cannot be kept is the loss of none but itself."""
        offered, self._offered = self._offered, []
        for tokens, state in offered:
            try:
                self.keep(tokens, state)
            except Exception:
                log.exception("a prompt of %d tokens could not be kept", len(tokens))

    def keep(self, tokens: Sequence[int], state: KVState) -> None:
        """Takes the state over, if it is of use."""
        packed = pack(tokens)
        if len(tokens) < MIN_TOKENS or self._cache.max_bytes == 0 or self._cache.covers(packed):
            return
        state = kv_state.detached(state)
        entry = Entry(packed, state, kv_state.nbytes(state), kv_state.is_trimmable(state))
        self._take_in(entry)

    def save_one(self) -> bool:
        """Write one entry that the disk does not have; False if there is none."""
        if self._shelf is None:
            return False
        self.settle()
        entry = next((entry for entry in self._cache if not entry.saved), None)
        if entry is not None:
            self._put_on_shelf(entry)
        return entry is not None

    def clear(self) -> None:
        self._offered.clear()
        self._cache.clear()

    def _put_on_shelf(self, entry: Entry) -> None:
        if self._shelf is not None and not entry.saved:
            # Not tried again if it fails: a full disk would be written to forever.
            entry.saved = True
            self._shelf.put(entry)

    def _take_from_shelf(self, prompt: Sequence[int]) -> None:
        assert self._shelf is not None
        tokens = pack(prompt)
        if self._shelf.usable(tokens) < self.length(tokens) + MIN_TOKENS:
            return
        entry = self._shelf.take(tokens)
        if entry is not None:
            self._take_in(entry)

    def _take_in(self, entry: Entry) -> None:
        for evicted in self._cache.keep(entry):
            self._put_on_shelf(evicted)
