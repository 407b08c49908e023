"""Prefixes that were computed before, and are not computed again. Knows no mlx.

An entry is the state of a model after it has read certain tokens. A request is served from the
entry that spares it most: one whose tokens begin the prompt, or, where the state can be trimmed,
one that has a beginning in common with it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

Text = TypeVar("Text", str, bytes)

WIDTH = 4
"""Bytes of a token id here: equal beginnings are found by comparing bytes."""


@dataclass(eq=False, slots=True)
class Entry:
    """`state` after reading `tokens` (see `pack`). `saved` says that the disk has it, too."""

    tokens: bytes
    state: Any
    nbytes: int
    trimmable: bool
    saved: bool = False

    @property
    def length(self) -> int:
        return len(self.tokens) // WIDTH


@dataclass(frozen=True, slots=True)
class Hit:
    """The first `length` tokens of a prompt are in `entry`."""

    entry: Entry
    length: int


@dataclass(slots=True)
class Counters:
    """Since the model was loaded."""

    hits: int = 0
    misses: int = 0
    cached_tokens: int = 0
    prompt_tokens: int = 0
    evicted: int = 0


@dataclass(slots=True)
class PrefixCache:
    """At most `max_bytes` of entries; the one that was of use the longest time ago goes first."""

    max_bytes: int
    counters: Counters = field(default_factory=Counters)
    nbytes: int = 0
    _entries: list[Entry] = field(default_factory=list)
    """The longest unused first."""

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries))

    def fetch(self, prompt: Sequence[int]) -> Hit | None:
        """What spares most of the prompt, always less than all of it: the last token has to be
        computed, for its successor.

        Takes time in proportion to the tokens of all entries.
        """
        wanted = pack(prompt)
        best: Hit | None = None
        shared: Entry | None = None
        for entry in self._entries:
            length = usable(entry, wanted)
            if length and (best is None or length >= best.length):
                best = Hit(entry, length)
            if length == entry.length and (shared is None or length < shared.length):
                shared = entry
        self._count(len(prompt), best)
        # The shortest is what many conversations begin with: whoever passes it makes use of it.
        if shared is not None:
            self._used(shared)
        if best is not None:
            self._used(best.entry)
        return best

    def covers(self, tokens: bytes) -> bool:
        """Whether keeping a state of these tokens would add nothing."""
        return any(_covers(entry, tokens) for entry in self._entries)

    def keep(self, entry: Entry) -> list[Entry]:
        """Take it in, and give what had to leave for it; what it makes superfluous leaves, too, and
        is not told."""
        if entry.nbytes > self.max_bytes or self.covers(entry.tokens):
            return []
        for other in self:
            if entry.trimmable and other.trimmable and entry.tokens.startswith(other.tokens):
                self._drop(other)
        self._entries.append(entry)
        self.nbytes += entry.nbytes
        evicted = []
        while self.nbytes > self.max_bytes:
            evicted.append(self._entries[0])
            self._drop(self._entries[0])
        self.counters.evicted += len(evicted)
        return evicted

    def clear(self) -> None:
        self._entries.clear()
        self.nbytes = 0

    def _used(self, entry: Entry) -> None:
        self._entries.remove(entry)
        self._entries.append(entry)

    def _drop(self, entry: Entry) -> None:
        self._entries.remove(entry)
        self.nbytes -= entry.nbytes

    def _count(self, prompt_tokens: int, hit: Hit | None) -> None:
        self.counters.prompt_tokens += prompt_tokens
        if hit is None:
            self.counters.misses += 1
        else:
            self.counters.hits += 1
            self.counters.cached_tokens += hit.length


def pack(ids: Sequence[int]) -> bytes:
    return array("i", ids).tobytes()


def unpack(tokens: bytes) -> list[int]:
    return array("i", tokens).tolist()


def usable(entry: Entry, prompt: bytes) -> int:
    """How many tokens of the prompt the entry spares."""
    length = common_prefix(entry.tokens, prompt)
    most = len(prompt) // WIDTH - 1
    if entry.trimmable:
        return min(length, most)
    return length if length == entry.length and length <= most else 0


def common_prefix(a: bytes, b: bytes) -> int:
    """How many tokens both begin with."""
    return common_start(a, b, WIDTH)


def common_start(a: Text, b: Text, width: int = 1) -> int:
    """How many items of `width` both begin with. Found by halves, each compared at once: linear and
    fast."""
    same, most = 0, min(len(a), len(b)) // width
    while same < most:
        middle = (same + most + 1) // 2
        part = slice(same * width, middle * width)
        if a[part] == b[part]:
            same = middle
        else:
            most = middle - 1
    return same


def _covers(entry: Entry, tokens: bytes) -> bool:
    """Whether the entry spares all that one of `tokens` would."""
    return entry.tokens.startswith(tokens) if entry.trimmable else entry.tokens == tokens
