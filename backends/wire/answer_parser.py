"""An answer's text, split into reasoning, text and tool calls as it arrives. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from backends.wire.calls import CallEvent, CallReader, ToolFormat
from backends.wire.events import (
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallArguments,
    ToolCallBroken,
    ToolCallStart,
)
from backends.wire.text import overlap

PIECE_CHARACTERS = 1024
"""What is looked at in one go: the time stays linear in the text, however it arrives."""


class Parser(Protocol):
    """Feed it the text; `called` says whether there were calls, once it is finished."""

    @property
    def called(self) -> bool: ...

    def add(self, text: str) -> Iterator[Event]: ...

    def finish(self) -> Iterator[Event]:
        """What was still held back when the answer ended."""


@dataclass(frozen=True, slots=True)
class ReasoningFormat:
    start: str = "<think>"
    end: str = "</think>"


class AnswerParser:
    """For models that write reasoning at the start of an answer, and calls between markers.

    `reasoning_open` says that the prompt itself ended inside a reasoning block. What is no call
    is given back as the text that it is.
    """

    def __init__(
        self,
        *,
        tools: ToolFormat | None = None,
        reasoning: ReasoningFormat | None = None,
        reasoning_open: bool = False,
    ) -> None:
        self._tools = tools
        self._bare = tools is not None and tools.bare
        self._reasoning = reasoning
        self._thinking = reasoning is not None and reasoning_open
        self._reader: CallReader | None = None
        self._held = ""
        self._space: list[str] = []
        self._before_call = ""
        self._calls = 0
        self._began = False

    @property
    def called(self) -> bool:
        return self._calls > 0

    def add(self, text: str) -> Iterator[Event]:
        for at in range(0, len(text), PIECE_CHARACTERS):
            self._held += text[at : at + PIECE_CHARACTERS]
            yield from self._read()

    def _read(self) -> Iterator[Event]:
        while self._held:
            before = self._held, self._reader
            if self._reader:
                yield from self._call(self._reader)
            elif self._thinking:
                yield from self._think()
            else:
                yield from self._say()
            if before == (self._held, self._reader):
                return

    def finish(self) -> Iterator[Event]:
        if self._reader:
            yield from self._told(self._reader.finish())
        held, self._held = self._held, ""
        if held:
            yield ReasoningDelta(held) if self._thinking else self._text(held)
        if self._space and not self.called and (self._began or not self._reasoning):
            yield self._text("")

    def _think(self) -> Iterator[Event]:
        assert self._reasoning is not None
        thought, found = self._until(self._reasoning.end)
        if thought:
            yield ReasoningDelta(thought)
        if found:
            self._thinking = False

    def _say(self) -> Iterator[Event]:
        tools = self._tools
        if tools and self._bare and not self._began and self._held.lstrip().startswith("{"):
            # Once: what is no call then is given back, to be read as anything else.
            self._bare = False
            self._reader = tools.read("")
            return
        calls = (*tools.starts, *tools.silent) if tools else ()
        thought = self._opening()
        text, marker = self._until(*((thought,) if thought else ()), *calls)
        if text and (event := self._spoken(text)):
            yield event
        if marker and marker == thought:
            self._thinking = True
            self._space.clear()
        elif tools and marker in tools.starts:
            self._reader = tools.read(marker)

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
            self._space.append(text)
            return None
        spoken = self._text(stripped)
        self._space = [text[len(stripped) :]]
        return spoken

    def _text(self, text: str) -> TextDelta:
        if not self._began and self._reasoning:
            self._space.clear()
            text = text.lstrip()
        self._began = True
        return TextDelta(self._spaced() + text)

    def _spaced(self) -> str:
        space = "".join(self._space)
        self._space.clear()
        return space

    def _call(self, reader: CallReader) -> Iterator[Event]:
        held, self._held = self._held, ""
        yield from self._told(reader.add(held))
        if reader.over:
            self._held = reader.held
            self._reader = None

    def _told(self, events: Iterable[CallEvent]) -> Iterator[Event]:
        for event in events:
            match event:
                case TextDelta(text):
                    yield self._text(text)
                case ToolCallStart():
                    self._before_call = self._spaced()
                    self._began = True
                    self._calls += 1
                    yield event
                case ToolCallBroken(text):
                    self._calls -= 1
                    yield ToolCallBroken(self._before_call + text)
                case ToolCallArguments():
                    yield event

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
