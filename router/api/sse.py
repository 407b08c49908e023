"""Server-sent events, read from bytes that come in any pieces, and written. Pure.

The format is the one of https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from router.errors import EngineFailedError

MAX_EVENT_BYTES = 16 * 2**20
"""Far more than engines put into one event, and little enough to hold."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """`name` is empty where the event has none; lines of `data` are joined."""

    name: str
    data: str


class EventReader:
    """Feed it bytes as they come; a character or a line end may be cut anywhere."""

    def __init__(self, limit_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._line = bytearray()
        self._data: list[str] = []
        self._data_bytes = 0
        self._name = ""
        self._after_return = False

    def add(self, piece: bytes) -> Iterator[ServerSentEvent]:
        """The events that `piece` completes. What is no UTF-8 is replaced.

        Raises:
            EngineFailedError: an event that does not end within `limit_bytes`.
        """
        for part in piece.splitlines(keepends=True):
            yield from self._add(part)

    def _add(self, part: bytes) -> Iterator[ServerSentEvent]:
        """`part` has a line end at its end at most."""
        if self._after_return and part == b"\n":
            self._after_return = False
            return
        self._after_return = part.endswith(b"\r")
        self._line += part
        if len(self._line) + self._data_bytes > self._limit_bytes:
            raise EngineFailedError("The engine sent an event that does not end.")
        if part.endswith((b"\n", b"\r")):
            line = self._line.rstrip(b"\r\n").decode("utf-8", "replace")
            self._line.clear()
            yield from self._read(line)

    def _read(self, line: str) -> Iterator[ServerSentEvent]:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            yield from self._dispatch()
        elif field == "data":
            self._data.append(value)
            self._data_bytes += len(line)
        elif field == "event":
            self._name = value

    def _dispatch(self) -> Iterator[ServerSentEvent]:
        if self._data:
            yield ServerSentEvent(self._name, "\n".join(self._data))
        self._data, self._data_bytes, self._name = [], 0, ""


def written(value: Any, name: str = "") -> bytes:
    """An event with `value` as JSON on one line, so that no text in it can end the event."""
    data = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    head = b"event: " + name.encode() + b"\n" if name else b""
    return head + b"data: " + data + b"\n\n"
