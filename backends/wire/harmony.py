"""Answers of gpt-oss: messages on channels, one after the other. Pure.

The format: https://cookbook.openai.com/articles/openai-harmony. An answer is

    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…

where `analysis` is reasoning, `final` and a `commentary` to nobody are text, and a message to
`functions.NAME` is a call of that tool.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from backends.wire.answer_parser import PIECE_CHARACTERS
from backends.wire.calls import CallEvent, OpenCall, Tools, names_of
from backends.wire.events import (
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallArguments,
    ToolCallBroken,
    ToolCallStart,
)
from backends.wire.json_object import ObjectScanner
from backends.wire.text import overlap

START, CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>", START)

HEADER_BEGINS = (START, CHANNEL, MESSAGE, "to=")
HEADER_CHARACTERS = 512
"""What is longer is no header. A name has 64 letters at most."""

RECIPIENT = re.compile(r"\bto=(?:functions\.)?([^\s<]+)")
REASONING = re.compile(r"<\|channel\|>\s*analysis\b")


class HarmonyParser:
    """An `answer_parser.Parser`; calls are told as by a `calls.CallReader`.

    The prompt ends with `<|start|>assistant`, so that an answer begins inside a header. Text
    without any is text.
    """

    def __init__(self, tools: Tools) -> None:
        self._names = names_of(tools)
        self._held = ""
        self._written: list[str] = []
        self._calls = 0
        self._kind: type[TextDelta | ReasoningDelta] = TextDelta
        self._said: set[type[TextDelta | ReasoningDelta]] = set()
        self._fresh = True
        self._step: Callable[[], Iterator[Event]] = self._header

    @property
    def called(self) -> bool:
        return self._calls > 0

    def add(self, text: str) -> Iterator[Event]:
        for at in range(0, len(text), PIECE_CHARACTERS):
            self._held += text[at : at + PIECE_CHARACTERS]
            yield from self._read()

    def _read(self) -> Iterator[Event]:
        while self._held:
            before = len(self._held), self._step
            yield from self._step()
            if before == (len(self._held), self._step):
                return

    def finish(self) -> Iterator[Event]:
        if self._step == self._close and not self._held.strip():
            yield from self._ended("}")
        elif self._step in (self._object, self._close):
            self._take(len(self._held))
            yield from self._broken()
        elif self._step == self._open:
            # Perhaps cut off before its arguments.
            self._take(len(self._held))
            yield from self._say("".join(self._written))
        elif self._step == self._body or not self._held.lstrip().startswith("<|"):
            yield from self._say(self._held)
        self._held = ""

    def _take(self, length: int) -> str:
        piece, self._held = self._held[:length], self._held[length:]
        self._written.append(piece)
        return piece

    def _header(self) -> Iterator[Event]:
        self._written.clear()
        place = self._held.find(MESSAGE, 0, HEADER_CHARACTERS + len(MESSAGE))
        begins = self._held.lstrip()
        if not any(begins.startswith(b) or b.startswith(begins) for b in HEADER_BEGINS):
            self._message(TextDelta)
        elif place >= 0:
            yield from self._addressed(self._take(place + len(MESSAGE)))
        elif len(self._held) >= HEADER_CHARACTERS + len(MESSAGE):
            self._message(TextDelta)
            # The marker itself would only lead back here.
            yield from self._say(self._take(1))

    def _addressed(self, header: str) -> Iterator[Event]:
        recipient = RECIPIENT.search(header)
        if recipient and self._names:
            name = recipient[1]
            self._call = OpenCall(name, told=name in self._names)
            self._step = self._open
        else:
            # Without tools there is nobody to call; the model may still try those it was born with.
            thought = recipient or REASONING.search(header)
            self._message(ReasoningDelta if thought else TextDelta)
        yield from ()

    def _message(self, kind: type[TextDelta | ReasoningDelta]) -> None:
        self._kind = kind
        self._fresh = True
        self._step = self._body

    def _body(self) -> Iterator[Event]:
        places = [(place, end) for end in ENDS if (place := self._held.find(end)) >= 0]
        if not places:
            text = self._take(len(self._held) - overlap(self._held, ENDS))
            yield from self._say(text)
            return
        place, end = min(places)
        yield from self._say(self._take(place))
        self._end_message(end)

    def _say(self, text: str) -> Iterator[Event]:
        """Messages of one kind are lines."""
        if not text:
            return
        if self._fresh and self._kind in self._said:
            text = "\n" + text
        self._fresh = False
        self._said.add(self._kind)
        yield self._kind(text)

    def _end_message(self, end: str) -> None:
        if end != START:
            self._take(len(end))
        self._step = self._header

    # Calls

    def _open(self) -> Iterator[Event]:
        begins = self._held.lstrip()
        self._take(len(self._held) - len(begins))
        if begins.startswith("{"):
            self._scanner = ObjectScanner()
            self._step = self._object
            yield from self._told(self._call.start())
        elif end := _end_at(begins):
            yield from self._told(self._call.start())
            yield from self._ended("{}")
            self._end_message(end)
        elif begins and not _may_be_end(begins):
            self._message(TextDelta)
            yield from self._say("".join(self._written))

    def _object(self) -> Iterator[Event]:
        piece = self._take(self._scanner.add(self._held))
        ended = self._scanner.ended
        yield from self._told(self._call.add(piece[:-1] if ended else piece))
        if self._scanner.broken or (ended and not self._call.is_object()):
            yield from self._broken()
        elif ended:
            self._step = self._close

    def _close(self) -> Iterator[Event]:
        begins = self._held.lstrip()
        self._take(len(self._held) - len(begins))
        if end := _end_at(begins):
            yield from self._ended("}")
            self._end_message(end)
        elif begins and not _may_be_end(begins):
            yield from self._broken()

    def _ended(self, piece: str) -> Iterator[Event]:
        yield from self._told(self._call.end(piece))

    def _broken(self) -> Iterator[Event]:
        self._message(TextDelta)
        yield from self._told(self._call.broken("".join(self._written)))

    def _told(self, events: Iterator[CallEvent]) -> Iterator[Event]:
        for event in events:
            match event:
                case TextDelta(text):
                    yield from self._say(text)
                    continue
                case ToolCallStart():
                    self._calls += 1
                case ToolCallBroken():
                    self._calls -= 1
                case ToolCallArguments():
                    pass
            yield event


def _end_at(text: str) -> str | None:
    return next((end for end in ENDS if text.startswith(end)), None)


def _may_be_end(text: str) -> bool:
    return any(end.startswith(text) for end in ENDS)
