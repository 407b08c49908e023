"""An error in a stream of an engine's, found without reading the rest of the stream. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass

from router.api.engine_error import Blame, in_our_terms
from router.errors import RouterError

MARK = b'data: {"error"'
"""How the line of an error begins: OpenAI's, llama.cpp's and ours."""

ENDS = (b"\n\n", b"\r\n\r\n")
MAX_ERROR_BYTES = 2**20
UNKNOWN_STATUS = 502


@dataclass(frozen=True, slots=True)
class Piece:
    """`body` is for the client; `error` is the one that ends it, where the engine said it in other
    terms than ours."""

    body: bytes
    error: RouterError | None = None


class ErrorEvents:
    """Feed it the bytes as they come. All that is no error comes out as it went in; only what may
    be the beginning of one waits for the next piece."""

    def __init__(self, blame: Blame) -> None:
        self._blame = blame
        self._held = b""
        self._line_begins = True
        self._found = False

    def add(self, piece: bytes) -> Piece:
        data = self._held + piece
        at = 0 if self._found else self._mark(data)
        if at is None:
            return Piece(self._let_go(data))
        event, self._held, self._found = data[at:], data[at:], True
        if len(event) <= MAX_ERROR_BYTES and not any(end in event for end in ENDS):
            return Piece(data[:at])
        self._held, self._found, self._line_begins = b"", False, event.endswith(b"\n")
        return self._read(data[:at], event)

    def finish(self) -> Piece:
        """What was held back, at the end of the stream."""
        held, self._held = self._held, b""
        return self._read(b"", held) if self._found else Piece(held)

    def _mark(self, data: bytes) -> int | None:
        if self._line_begins and data.startswith(MARK):
            return 0
        at = data.find(b"\n" + MARK)
        return None if at < 0 else at + 1

    def _let_go(self, data: bytes) -> bytes:
        line = data.rfind(b"\n") + 1
        begins = line > 0 or self._line_begins
        held = len(data) - line if begins and MARK.startswith(data[line:]) else 0
        passed = data[: len(data) - held]
        self._held = data[len(passed) :]
        if data:
            self._line_begins = begins and line + held == len(data)
        return passed

    def _read(self, before: bytes, event: bytes) -> Piece:
        """`event` begins with an error, of which an engine says no more."""
        line = event.partition(b"\n")[0].removeprefix(b"data: ")
        found = in_our_terms(line, _status(line), self._blame)
        if found is None:
            return Piece(before + event)
        error, body = found
        return Piece(before + b"data: " + body + b"\n\n", error)


def _status(line: bytes) -> int:
    """llama.cpp says it as `code`."""
    try:
        code = json.loads(line)["error"]["code"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return UNKNOWN_STATUS
    return code if type(code) is int and 400 <= code < 600 else UNKNOWN_STATUS
