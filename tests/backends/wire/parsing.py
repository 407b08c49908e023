"""Answers in pieces, and what is told of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from backends.wire.answer_parser import AnswerParser, Parser, ReasoningFormat
from backends.wire.calls import ToolFormat
from backends.wire.events import (
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallArguments,
    ToolCallBroken,
    ToolCallStart,
)

Call = tuple[str, Any]


def tool(name: str, **types: Any) -> dict[str, Any]:
    properties = {key: {"type": kind} for key, kind in types.items()}
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = (tool("f"), tool("g"), tool("get_weather", city="string"))


def split(text: str, cuts: Iterable[int]) -> list[str]:
    places = [0, *sorted({min(cut, len(text)) for cut in cuts}), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


def joined(events: Iterable[Event]) -> list[Event]:
    """Neighbours of one kind as one: how a text was cut into deltas does not matter."""
    found: list[Event] = []
    for event in events:
        match found[-1:], event:
            case [TextDelta(before)], TextDelta(text):
                found[-1] = TextDelta(before + text)
            case [ReasoningDelta(before)], ReasoningDelta(text):
                found[-1] = ReasoningDelta(before + text)
            case [ToolCallArguments(before)], ToolCallArguments(text):
                found[-1] = ToolCallArguments(before + text)
            case _:
                found.append(event)
    return found


def told(parser: Parser, pieces: Iterable[str]) -> list[Event]:
    events = [event for piece in pieces for event in parser.add(piece)]
    return joined([*events, *parser.finish()])


def parser_of(tools: ToolFormat | None, *, thinks: bool = False) -> AnswerParser:
    return AnswerParser(tools=tools, reasoning=ReasoningFormat() if thinks else None)


def added(events: Sequence[Event]) -> tuple[str, list[Call]]:
    """Content and calls, as a client has them that adds a stream up, without what broke."""
    text, calls = "", []
    for event in events:
        match event:
            case TextDelta(piece):
                text += piece
            case ToolCallStart(name):
                calls.append([name, ""])
            case ToolCallArguments(piece):
                calls[-1][1] += piece
            case ToolCallBroken(piece):
                assert not is_json(calls.pop()[1])
                text += piece
    return text, [(name, json.loads(arguments)) for name, arguments in calls]


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def called(arguments: str, name: str = "f") -> list[Event]:
    return [ToolCallStart(name), ToolCallArguments(arguments)]
