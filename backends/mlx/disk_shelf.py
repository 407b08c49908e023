"""States of prompts on disk: what was computed once survives a restart. On the engine thread.

A folder per model and version, with two files for an entry: the state, and its tokens. The second
is written last, so that an entry without it is not there. Whoever can read them can read
conversations: the folder is private.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from backends.mlx import kv_state
from backends.mlx.prefix_cache import Entry, unpack, usable

log = logging.getLogger("router.engine")

STATE, TOKENS, PARTIAL = ".safetensors", ".tokens", ".partial.safetensors"
TRIMMABLE, FIXED = b"t", b"f"


@dataclass(frozen=True, slots=True)
class _Book:
    """An entry that was not read yet: its state is empty."""

    entry: Entry
    name: str


class DiskShelf:
    """At most `max_bytes` in `folder`; what was not used for longest goes first.

    What cannot be read is deleted, what cannot be written is left out: neither is an error.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._books: dict[str, _Book] = {}
        """The longest unused first."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._open()

    @property
    def nbytes(self) -> int:
        return sum(book.entry.nbytes for book in self._books.values())

    def usable(self, prompt: bytes) -> int:
        return max((usable(book.entry, prompt) for book in self._books.values()), default=0)

    def take(self, prompt: bytes) -> Entry | None:
        """The entry that spares most of the prompt, with its state."""
        book = max(self._books.values(), key=lambda b: usable(b.entry, prompt), default=None)
        if book is None or not usable(book.entry, prompt):
            return None
        path = self._folder / (book.name + STATE)
        try:
            state = kv_state.load(path)
            os.utime(path)
        except Exception as error:
            # Whatever is wrong with it, computing the prompt is always possible.
            log.warning("A saved prompt could not be read and is deleted: %s", error)
            self._delete(book)
            return None
        self._books[book.name] = self._books.pop(book.name)
        entry = book.entry
        return Entry(
            entry.tokens, state, kv_state.nbytes(state), kv_state.is_trimmable(state), saved=True
        )

    def put(self, entry: Entry) -> None:
        if entry.nbytes > self._max_bytes:
            return
        name = hashlib.sha256(entry.tokens).hexdigest()[:32]
        partial = self._folder / (name + PARTIAL)
        try:
            kv_state.save(partial, entry.state)
            size = partial.stat().st_size
            partial.rename(self._folder / (name + STATE))
            kind = TRIMMABLE if entry.trimmable else FIXED
            (self._folder / (name + TOKENS)).write_bytes(kind + entry.tokens)
        except (OSError, RuntimeError, ValueError) as error:
            log.warning("A prompt's state could not be saved: %s", error)
            partial.unlink(missing_ok=True)
            return
        self._forget_beginnings(entry)
        self._add(name, entry.tokens, size, trimmable=entry.trimmable)
        while self.nbytes > self._max_bytes:
            self._delete(next(iter(self._books.values())))

    def _open(self) -> None:
        for partial in self._folder.glob("*" + PARTIAL):
            partial.unlink(missing_ok=True)
        states = {path.name.removesuffix(STATE): path for path in self._folder.glob("*" + STATE)}
        for name, path in sorted(states.items(), key=lambda item: item[1].stat().st_mtime):
            try:
                said = (self._folder / (name + TOKENS)).read_bytes()
                unpack(said[1:])
            except (OSError, ValueError):
                path.unlink(missing_ok=True)
                continue
            self._add(name, said[1:], path.stat().st_size, trimmable=said[:1] == TRIMMABLE)

    def _add(self, name: str, tokens: bytes, size: int, *, trimmable: bool) -> None:
        self._books.pop(name, None)
        self._books[name] = _Book(Entry(tokens, [], size, trimmable, saved=True), name)

    def _forget_beginnings(self, entry: Entry) -> None:
        for book in list(self._books.values()):
            other = book.entry
            covered = entry.tokens.startswith(other.tokens) and entry.tokens != other.tokens
            if covered and entry.trimmable and other.trimmable:
                self._delete(book)

    def _delete(self, book: _Book) -> None:
        del self._books[book.name]
        for suffix in (TOKENS, STATE):
            (self._folder / (book.name + suffix)).unlink(missing_ok=True)
