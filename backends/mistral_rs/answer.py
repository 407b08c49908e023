"""One answer under way: from the engine's chunks to events. Pure."""

from __future__ import annotations

from collections.abc import Iterator
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

REASONS = {"length": "length", "tool_calls": "tool_calls"}
"""Whatever else it says is an end by the model or by a stop string."""


class Answer:
    """Feed it chunks until there are no more; then `finish` tells the rest."""

    def __init__(self, parser: Parser, *, chat: bool) -> None:
        self._parser = parser
        self._chat = chat
        self._began = False
        self._called = False
        self._reason = "stop"
        self._usage = Usage(0, 0)

    def add(self, chunk: Any) -> Iterator[Event]:
        choice = chunk.choices[0]
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
        yield Finished(reason, self._usage)

    def _text(self, choice: Any) -> str:
        """The engine cuts white space off the start of a stream; a continued text needs it."""
        text: str = choice.delta.content or ""
        if self._began or self._chat:
            return text
        self._began = True
        token = bytes(choice.logprobs.bytes or b"") if choice.logprobs else b""
        whole = token.decode("utf-8", "ignore")
        return whole if whole.lstrip() == text else text


def _usage(usage: Any) -> Usage:
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
    return Usage(usage.prompt_tokens, usage.completion_tokens, cached or 0)
