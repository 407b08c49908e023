"""The first call of an answer alone, for an engine that lets a model go on calling. Pure.

What is left out was generated, and is counted in `usage`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from router.api.sse import MAX_EVENT_BYTES, written
from router.api.told import count_in, json_object, list_in, object_in

Json = dict[str, Any]

CALLS = b'"tool_calls"'
DATA = re.compile(rb"^data:(.*)", re.MULTILINE)
END = re.compile(rb"\r?\n\r?\n")
LONGEST_END = 3
"""Bytes of an end that may have come without its last one."""


def first_call(answer: bytes) -> bytes:
    """A whole answer with the first call of each of its choices."""
    if CALLS not in answer:
        return answer
    body = json_object(answer) or {}
    cut = [_cut(choice) for choice in _choices(body)]
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace") if any(cut) else answer


def _cut(choice: Json) -> bool:
    message = object_in(choice.get("message"))
    calls = list_in(message.get("tool_calls"))
    if len(calls) < 2:
        return False
    message["tool_calls"], choice["finish_reason"] = calls[:1], "tool_calls"
    return True


class FirstCallEvents:
    """Feed it a stream as it comes. Each choice ends with its first call: events before its second
    one come out as they went in, and those that say nothing after it do not come out."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._first: dict[int, int] = {}
        """By choice, the number of its first call."""
        self._ended: set[int] = set()
        """Choices that went on to call."""

    def add(self, piece: bytes) -> bytes:
        searched = max(0, len(self._held) - LONGEST_END)
        self._held += piece
        passed, begin = b"", 0
        for end in END.finditer(self._held, searched):
            passed += self._passed(bytes(self._held[begin : end.end()]))
            begin = end.end()
        del self._held[:begin]
        if len(self._held) > MAX_EVENT_BYTES:
            # No engine writes such an event: the client may find out what it is.
            passed += self._let_go()
        return passed

    def finish(self) -> bytes:
        return self._passed(self._let_go())

    def _let_go(self) -> bytes:
        held = bytes(self._held)
        self._held.clear()
        return held

    def _passed(self, event: bytes) -> bytes:
        if CALLS not in event and not self._ended:
            return event
        body = json_object(b"\n".join(DATA.findall(event))) or {}
        choices = _choices(body)
        changed = [self._cut(choice) for choice in choices]
        if not any(changed):
            return event
        says_nothing = all(_is_empty(choice) for choice in choices) and not body.get("usage")
        return b"" if says_nothing else written(body)

    def _cut(self, choice: Json) -> bool:
        """Whether something had to be changed."""
        number = count_in(choice.get("index"))
        delta = object_in(choice.get("delta"))
        calls = list_in(delta.get("tool_calls"))
        first = [call for call in calls if self._is_first(number, call)]
        if number in self._ended:
            choice["delta"] = {}
        elif len(first) < len(calls):
            self._ended.add(number)
            del delta["tool_calls"]
            choice["delta"] = {**delta, "tool_calls": first} if first else delta
        else:
            return False
        if choice.get("finish_reason") is not None:
            # The call that is told is whole, whatever ended those behind it.
            choice["finish_reason"] = "tool_calls"
        return True

    def _is_first(self, choice: int, call: Any) -> bool:
        index = count_in(object_in(call).get("index"))
        return self._first.setdefault(choice, index) == index


def _is_empty(choice: Json) -> bool:
    return not choice.get("delta") and choice.get("finish_reason") is None


def _choices(body: Json) -> list[Json]:
    return [choice for choice in list_in(body.get("choices")) if isinstance(choice, dict)]
