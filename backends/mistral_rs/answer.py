"""One answer under way: from the engine's chunks to events. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from backends.wire.answer_parser import Parser
from backends.wire.events import (
    Event,
    Finished,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallStart,
    Usage,
)
from backends.wire.text import overlap

REASONS = {"length": "length", "tool_calls": "tool_calls"}
"""Whatever else it says is an end by the model or by a stop string."""


class Answer:
    """Feed it chunks until there are no more; then `finish` tells the rest. Where there are
    `stops`, chunks have to bring their tokens: the engine does not say which one was met."""

    def __init__(self, parser: Parser, *, chat: bool, stops: Sequence[str] = ()) -> None:
        self._parser = parser
        self._chat = chat
        self._stops = tuple(stops)
        self._longest = max((len(stop.encode("utf-8", "replace")) for stop in stops), default=0)
        self._cut = False
        """Whether the last token was told in part only."""
        self._generated = b""
        """The end of it, as long as it may have a stop string in it."""
        self._began = False
        self._called = False
        self._reason = "stop"
        self._usage = Usage(0, 0)

    def add(self, chunk: Any) -> Iterator[Event]:
        choice = chunk.choices[0]
        if self._stops:
            self._follow(choice)
        if choice.delta.reasoning_content:
            yield ReasoningDelta(choice.delta.reasoning_content)
        if text := self._text(choice):
            yield from self._parser.add(text)
        for call in choice.delta.tool_calls or ():
            self._called = True
            yield ToolCallStart(call.function.name)
            yield ToolCallArguments(call.function.arguments)
        self._reason = REASONS.get(choice.finish_reason, self._reason)
        if chunk.usage is not None:
            self._usage = _usage(chunk.usage)

    def finish(self) -> Iterator[Event]:
        yield from self._parser.finish()
        called = self._called or self._parser.called
        reason = "tool_calls" if called and self._reason == "stop" else self._reason
        yield Finished(reason, self._usage, self._met())

    def _follow(self, choice: Any) -> None:
        token = _bytes_of(choice)
        if choice.logprobs and choice.finish_reason == "stop":
            whole = str(choice.logprobs.token).encode("utf-8", "replace")
            self._cut, token = len(whole) > len(token), whole
        self._generated = (self._generated + token)[-self._longest - len(token) :]

    def _met(self) -> str:
        """The stop string that begins or stands first in what was cut off; the engine shows the
        token that it was cut from, and none of those that completed it."""
        if not self._cut:
            return ""
        if len(self._stops) == 1:
            return self._stops[0]
        said = self._generated.decode("utf-8", "replace")
        reached = {stop: _reached(said, stop) for stop in self._stops}
        return max(reached, key=reached.__getitem__) if any(reached.values()) else ""

    def _text(self, choice: Any) -> str:
        """The engine cuts white space off the start of a stream; a continued text needs it."""
        text: str = choice.delta.content or ""
        if self._began or self._chat:
            return text
        self._began = True
        whole = _bytes_of(choice).decode("utf-8", "ignore")
        return whole if whole.lstrip() == text else text


def _reached(said: str, stop: str) -> int:
    """How many of its characters were said: all within, or its first ones at the end."""
    return len(stop) if stop in said else overlap(said, (stop,))


def _bytes_of(choice: Any) -> bytes:
    """Of its token, where they were asked for; none at the end that the model has set."""
    return bytes(choice.logprobs.bytes or b"") if choice.logprobs else b""


def _usage(usage: Any) -> Usage:
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
    return Usage(usage.prompt_tokens, usage.completion_tokens, cached or 0)
