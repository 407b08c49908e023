"""Tool calls in an answer's text: what all ways of writing them have in common."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.wire.events import (
    TextDelta,
    ToolCallArguments,
    ToolCallBroken,
    ToolCallEvent,
    ToolCallStart,
)
from backends.wire.json_object import arguments_of

Tools = Sequence[Mapping[str, Any]]
"""As a request declares them."""

CallEvent = ToolCallEvent | TextDelta
"""What a reader tells. Text is what was taken for a call and is none."""


class CallReader(ABC):
    """Reads one block of calls, from behind the marker that begins it.

    Feed it text until it is `over`; then `held` is what comes behind the block. A call is told
    from where its name is complete, is that of a declared tool, and its arguments have begun. Its
    last `}` is told once the whole call has been read and is one; until then the arguments are no
    JSON. So a client never gets a call that the model did not finish, or wrote wrongly.

    llama.cpp and vLLM stream arguments as they come, too, and leave those of a call that breaks
    unfinished; neither says where the call's text went. Here it follows as text.
    """

    def __init__(self, marker: str) -> None:
        self.over = False
        self.held = ""
        self._written = [marker]
        self._step: Callable[[], Iterator[CallEvent]] = self._begin

    def add(self, text: str) -> Iterator[CallEvent]:
        self.held += text
        while not self.over:
            before = len(self.held), self._step
            yield from self._step()
            if before == (len(self.held), self._step):
                return

    @abstractmethod
    def _begin(self) -> Iterator[CallEvent]:
        """The first of the steps: each reads from `held` what it can, and names the next."""

    @abstractmethod
    def finish(self) -> Iterator[CallEvent]:
        """The answer has ended inside the block."""

    def _take(self, length: int) -> str:
        piece, self.held = self.held[:length], self.held[length:]
        self._written.append(piece)
        return piece

    def _text(self) -> Iterator[CallEvent]:
        """What was read since the last call is none."""
        self.over = True
        if text := "".join(self._written):
            yield TextDelta(text)


class OpenCall:
    """A call under way. Unless it is `told` as it comes, it is told at its end."""

    def __init__(self, name: str, *, told: bool) -> None:
        self.name = name
        self._told = told
        self._pieces: list[str] = []

    @property
    def arguments(self) -> str:
        return "".join(self._pieces)

    def start(self) -> Iterator[CallEvent]:
        if self._told:
            yield ToolCallStart(self.name)

    def is_object(self) -> bool:
        """Whether the arguments are whole with the `}` that is kept for the end."""
        try:
            arguments_of(self.arguments + "}")
        except (ValueError, RecursionError):
            return False
        return True

    def add(self, piece: str) -> Iterator[CallEvent]:
        self._pieces.append(piece)
        if piece and self._told:
            yield ToolCallArguments(piece)

    def end(self, piece: str) -> Iterator[CallEvent]:
        """With the last piece."""
        if not self._told:
            yield ToolCallStart(self.name)
            piece = self.arguments + piece
        yield ToolCallArguments(piece)

    def broken(self, written: str) -> Iterator[CallEvent]:
        yield ToolCallBroken(written) if self._told else TextDelta(written)


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How a model writes calls.

    `read` gives the reader of a block that one of the `starts` has begun. `silent` markers around
    blocks are nobody's text. If calls are `bare`, a `{` that an answer begins with may start a
    block as well; its marker is empty.
    """

    starts: tuple[str, ...]
    read: Callable[[str], CallReader]
    silent: tuple[str, ...] = ()
    bare: bool = False


class WholeCalls(CallReader):
    """A block that is parsed when it has been read: up to `end`, or to the answer's if empty.

    `parse` gets what stands between the markers and gives calls as `{"name", "arguments"}`;
    whatever it raises means that it was no call.
    """

    def __init__(self, marker: str, end: str, parse: Callable[[str], Any]) -> None:
        super().__init__(marker)
        self._end = end
        self._parse = parse

    def _begin(self) -> Iterator[CallEvent]:
        self._step = self._whole
        yield from ()

    def _whole(self) -> Iterator[CallEvent]:
        place = self.held.find(self._end) if self._end else -1
        if place < 0:
            # What has been searched is not searched again.
            self._take(max(0, len(self.held) - max(0, len(self._end) - 1)))
            return
        self._take(place)
        inner = self._inner()
        self._take(len(self._end))
        yield from self._parsed(inner)

    def finish(self) -> Iterator[CallEvent]:
        self._take(len(self.held))
        yield from self._parsed(self._inner())

    def _inner(self) -> str:
        return "".join(self._written[1:])

    def _parsed(self, inner: str) -> Iterator[CallEvent]:
        self.over = True
        try:
            calls = calls_of(self._parse(inner))
        except Exception:
            # A model's text is no reason to fail: it stays text.
            yield from self._text()
            return
        for name, arguments in calls:
            yield ToolCallStart(name)
            yield ToolCallArguments(arguments)


def whole_calls(start: str, end: str, parse: Callable[[str], Any]) -> ToolFormat:
    return ToolFormat((start,), lambda marker: WholeCalls(marker, end, parse))


def calls_of(parsed: Any) -> list[tuple[str, str]]:
    """Name and arguments, as the text of a JSON object, of each call.

    Raises:
        Exception: it is no call.
    """
    calls = parsed if isinstance(parsed, list) else [parsed]
    if not calls:
        raise ValueError("no call")
    return [_call_of(call) for call in calls]


def _call_of(call: Any) -> tuple[str, str]:
    name = call["name"]
    arguments = call.get("arguments", call.get("parameters")) or {}
    if not isinstance(name, str) or not name:
        raise ValueError("a call without a name")
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    arguments_of(arguments)
    return name, arguments


def names_of(tools: Tools) -> frozenset[str]:
    return frozenset(str(tool["function"]["name"]) for tool in tools)
