"""From text to token ids, without doing again what was done for an earlier prompt."""

from __future__ import annotations

import re
import sys
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

BLOCK_CHARACTERS = 1024
"""A block is at least as long: to encode less takes no longer than to begin with it."""

MAX_BYTES = 16 * 2**20
"""Of the blocks that are kept, with their ids."""

PROBES = (("a", ""), ("a", "a"), ("a ", " a"), ("\n", "\n"), (" a.", "A\n\n"))
"""What may stand around a mark; its neighbours' ids must not depend on each other."""


class Encoder:
    """Of a tokenizer of `transformers`, whose chat template is `template`, without the tokens that
    it puts around a text.

    Fast tokenizers look for special tokens first, and then at what is between them, each part by
    itself. So a text is cut where some of those begin, and every turn of a conversation finds the
    blocks of the turn before. Takes time in proportion to the text that is new. For one thread at a
    time.
    """

    def __init__(self, tokenizer: Any, template: str) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._known: OrderedDict[str, array[int]] = OrderedDict()
        """The longest unused first."""
        self._bytes = 0

    def ids(self, text: str) -> list[int]:
        if len(text) <= BLOCK_CHARACTERS or self._border is None:
            return self._encode(text)
        *blocks, last = self._blocks(text, self._border)
        ids: list[int] = []
        for block in blocks:
            ids.extend(self._kept(block))
        # It will have grown by the next turn.
        return ids + self._encode(last)

    def _blocks(self, text: str, border: re.Pattern[str]) -> Iterator[str]:
        """Cut at the first border that makes a block long enough: equal beginnings of texts have
        the same blocks."""
        begin = 0
        for found in border.finditer(text):
            if found.start() - begin >= BLOCK_CHARACTERS:
                yield text[begin : found.start()]
                begin = found.start()
        yield text[begin:]

    def _kept(self, block: str) -> array[int]:
        ids = self._known.get(block)
        if ids is None:
            ids = array("i", self._encode(block))
            self._keep(block, ids)
        else:
            self._known.move_to_end(block)
        return ids

    def _keep(self, block: str, ids: array[int]) -> None:
        if _bytes_of(block, ids) > MAX_BYTES:
            return
        self._known[block] = ids
        self._bytes += _bytes_of(block, ids)
        while self._bytes > MAX_BYTES:
            self._bytes -= _bytes_of(*self._known.popitem(last=False))

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    @cached_property
    def _border(self) -> re.Pattern[str] | None:
        """Of the marks of its template that stand by themselves; None where there are none."""
        marks = marks_of(self._tokenizer)
        own = {mark: id_ for mark, id_ in marks.items() if mark in self._template}
        added = list(self._tokenizer.added_tokens_decoder.values()) if own else []
        borders = [mark for mark, id_ in own.items() if self._is_border(mark, id_, added)]
        longest_first = sorted(borders, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first))) if borders else None

    def _is_border(self, mark: str, id_: int, added: Iterable[Any]) -> bool:
        if any(_runs_into(token, mark) for token in added) or self._encode(mark) != [id_]:
            return False
        return all(
            self._encode(before + mark + after)
            == [*self._encode(before), *self._encode(mark + after)]
            for before, after in PROBES
        )


def _bytes_of(block: str, ids: array[int]) -> int:
    return sys.getsizeof(block) + sys.getsizeof(ids)


def marks_of(tokenizer: Any) -> dict[str, int]:
    """Texts that are one token wherever they stand, whatever is around them, with its id."""
    added = tokenizer.added_tokens_decoder if tokenizer.is_fast else {}
    return {
        token.content: int(number)
        for number, token in added.items()
        if token.special and not token.normalized
    }


def _runs_into(token: Any, mark: str) -> bool:
    """Whether a place where the mark seems to begin may belong to another token, which begins
    earlier, or with the mark and depends on what is around it."""
    text = str(token.content)
    if text.startswith(mark) and text != mark and (token.lstrip or token.single_word):
        return True
    ends = (text[at:] for at, letter in enumerate(text) if at and letter == mark[0])
    return any(end.startswith(mark) or mark.startswith(end) for end in ends)
