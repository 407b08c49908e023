"""From token ids to events: text, stop strings, reasoning and tool calls. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from backends.wire.events import (
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallArguments,
    ToolCallEvent,
    ToolCallStart,
)

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
MAX_HELD_IDS = 8
"""A character has at most four bytes; more ids than this are not one that is unfinished."""


class Detokenizer:
    """Text of a growing list of ids, never half a character.

    Decodes from the id before the new ones, because how an id is spelled may depend on it; text
    that ends inside a UTF-8 sequence waits for the rest. `before` is the prompt's last id.
    """

    def __init__(self, decode: Callable[[list[int]], str], before: int | None = None) -> None:
        self._decode = decode
        self._ids: list[int] = [] if before is None else [before]
        self._known = ""
        self._restart()

    def add(self, token: int) -> str:
        self._ids.append(token)
        text = self._decode(self._ids)
        if text.endswith(UNFINISHED) and len(self._ids) <= MAX_HELD_IDS:
            return ""
        new = text[len(self._known) :]
        self._ids = self._ids[-1:]
        self._restart()
        return new

    def _restart(self) -> None:
        """Keep the last id as context, unless it is only a part of a character."""
        self._known = self._decode(self._ids) if self._ids else ""
        if self._known.endswith(UNFINISHED):
            self._ids, self._known = [], ""

    def rest(self) -> str:
        return self._decode(self._ids)[len(self._known) :]


def overlap(text: str, markers: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins one of `markers`."""
    longest = max((len(marker) for marker in markers), default=0)
    for length in range(min(len(text), longest - 1), 0, -1):
        tail = text[-length:]
        if any(marker.startswith(tail) for marker in markers):
            return length
    return 0


class StopMatcher:
    """Cuts text before the first stop string, wherever the borders of tokens lie."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def add(self, text: str) -> str:
        text = self._held + text
        found = [(at + len(s), at) for s in self._stops if (at := text.find(s)) >= 0]
        if found:
            # The one that is complete first: another that began earlier might never have been.
            _, place = min(found)
            self.stopped = True
            self._held = ""
            return text[:place]
        keep = overlap(text, self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    @property
    def holds(self) -> bool:
        """Whether text waits that may be the beginning of a stop string."""
        return bool(self._held)

    def rest(self) -> str:
        held, self._held = self._held, ""
        return held


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How a model writes calls: between `start` and `end` (which may be empty: to the last).

    `parse` gets what stands between them and gives calls as `{"name", "arguments"}`; whatever
    it raises means that it was not a call.
    """

    start: str
    end: str
    parse: Callable[[str], Any]


JSON_CALLS = ToolFormat("<tool_call>", "</tool_call>", lambda text: json.loads(text))


@dataclass(frozen=True, slots=True)
class ReasoningFormat:
    start: str = "<think>"
    end: str = "</think>"


class AnswerParser:
    """Splits an answer's text into reasoning, text and tool calls, as it arrives.

    `reasoning_open` says that the prompt itself ended inside a reasoning block. A call that
    cannot be parsed is given back as the text that it is.
    """

    def __init__(
        self,
        *,
        tools: ToolFormat | None = None,
        reasoning: ReasoningFormat | None = None,
        reasoning_open: bool = False,
    ) -> None:
        self._tools = tools
        self._reasoning = reasoning
        self._inside: str | None = reasoning.end if reasoning and reasoning_open else None
        self._thinking = self._inside is not None
        self._held = ""
        self._space = ""
        self.called = False
        self._began = False

    def add(self, text: str) -> Iterator[Event]:
        self._held += text
        while self._held:
            before = self._held
            if self._thinking:
                yield from self._think()
            elif self._inside is not None:
                yield from self._call()
            else:
                yield from self._say()
            if self._held == before:
                return

    def finish(self) -> Iterator[Event]:
        """What was still held back when the answer ended."""
        held, self._held = self._held, ""
        if self._thinking:
            if held:
                yield ReasoningDelta(held)
        elif self._inside is not None:
            assert self._tools is not None
            yield from self._parsed(held, self._tools.start + held)
        elif held:
            yield self._text(held)
        if self._space and not self.called and (self._began or not self._reasoning):
            yield self._text("")

    def _think(self) -> Iterator[Event]:
        assert self._reasoning is not None
        thought, found = self._until(self._reasoning.end)
        if thought:
            yield ReasoningDelta(thought)
        if found:
            self._thinking = False
            self._inside = None
            self._began = False

    def _say(self) -> Iterator[Event]:
        markers = [m for m in (self._opening(), self._tools and self._tools.start) if m]
        text, marker = self._until(*markers)
        if text and (event := self._spoken(text)):
            yield event
        if not marker:
            return
        if self._tools and marker == self._tools.start:
            self._inside = self._tools.end
        else:
            self._thinking = True
            self._space = ""

    def _opening(self) -> str | None:
        """Reasoning opens an answer or does not occur: later, the words are just words."""
        if self._reasoning is None or self._began:
            return None
        start, ahead = self._reasoning.start, self._held.lstrip()
        return start if ahead.startswith(start) or start.startswith(ahead) else None

    def _spoken(self, text: str) -> Event | None:
        """White space waits for what follows: before a call or a thought it is layout."""
        stripped = text.rstrip() if (self._tools or not self._began) else text
        if not stripped:
            self._space += text
            return None
        spoken = self._text(stripped)
        self._space = text[len(stripped) :]
        return spoken

    def _text(self, text: str) -> TextDelta:
        if not self._began and self._reasoning:
            self._space, text = "", text.lstrip()
        self._began = True
        space, self._space = self._space, ""
        return TextDelta(space + text)

    def _call(self) -> Iterator[Event]:
        assert self._tools is not None
        end = self._tools.end
        place = self._held.find(end) if end else -1
        if place < 0:
            return
        inner, self._held = self._held[:place], self._held[place + len(end) :]
        self._inside = None
        yield from self._parsed(inner, self._tools.start + inner + end)

    def _parsed(self, inner: str, written: str) -> Iterator[Event]:
        assert self._tools is not None
        try:
            calls = _calls(self._tools.parse(inner))
        except Exception:
            # A model's text is no reason to fail: it stays text.
            yield self._text(written)
            return
        self.called = True
        self._space = ""
        yield from calls

    def _until(self, *markers: str) -> tuple[str, str]:
        """The text before the first marker, and the marker; both are taken out of what is held."""
        places = [(place, m) for m in markers if (place := self._held.find(m)) >= 0]
        if places:
            place, marker = min(places)
            text, self._held = self._held[:place], self._held[place + len(marker) :]
            return text, marker
        keep = overlap(self._held, markers)
        split = len(self._held) - keep
        text, self._held = self._held[:split], self._held[split:]
        return text, ""


def _calls(parsed: Any) -> list[ToolCallEvent]:
    calls = parsed if isinstance(parsed, list) else [parsed]
    if not calls:
        raise ValueError("no call")
    return [event for call in calls for event in _call_of(call)]


def _call_of(call: Any) -> tuple[ToolCallStart, ToolCallArguments]:
    name, arguments = call["name"], call.get("arguments", {})
    if not isinstance(name, str) or not name:
        raise ValueError("a call without a name")
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    return ToolCallStart(name), ToolCallArguments(arguments)
