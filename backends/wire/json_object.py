"""Where a JSON object ends in a text that comes in pieces."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

OUTSIDE = re.compile(r"[\s,:0-9+\-.eEtrufalsn]*")
"""Letters of JSON that are neither brackets nor in a string."""

INSIDE = re.compile(r'[^"\\\x00-\x1f]*')
CLOSING = {"{": "}", "[": "]"}


class ObjectScanner:
    """Feed it a text that begins with `{`. Each letter is looked at once, whatever the depth.

    It finds the end of what is an object, and soon notices what is none; whether it is one,
    `arguments_of` says.
    """

    def __init__(self) -> None:
        self.ended = False
        self.broken = False
        self._open: list[str] = []
        self._quoted = False
        self._escaped = False

    def add(self, text: str) -> int:
        """How much of `text` belongs to the object."""
        at = 0
        while at < len(text) and not (self.ended or self.broken):
            at = self._string(text, at) if self._quoted else self._structure(text, at)
        return at

    def _string(self, text: str, at: int) -> int:
        if self._escaped:
            self._escaped = False
            return at + 1
        match = INSIDE.match(text, at)
        assert match is not None
        at = match.end()
        if at == len(text):
            return at
        if text[at] == "\\":
            self._escaped = True
        elif text[at] == '"':
            self._quoted = False
        else:
            self.broken = True
            return at
        return at + 1

    def _structure(self, text: str, at: int) -> int:
        match = OUTSIDE.match(text, at)
        assert match is not None
        at = match.end()
        if at == len(text):
            return at
        letter = text[at]
        if letter == '"':
            self._quoted = True
        elif letter in CLOSING:
            self._open.append(CLOSING[letter])
        elif self._open and letter == self._open[-1]:
            self._open.pop()
            self.ended = not self._open
        else:
            self.broken = True
            return at
        return at + 1


def arguments_of(text: str) -> dict[str, Any]:
    """The object that `text` is.

    Raises:
        ValueError, RecursionError: it is not an object, or not JSON, which knows no NaN.
    """
    value = json.loads(text, parse_constant=_no_constant)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
