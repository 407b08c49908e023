"""One answer under way: from the engine's chunks to events. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backends.wire.events import (
    Event,
    Finished,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallStart,
    Usage,
)
from backends.wire.request import GenerationRequest
from backends.wire.text import AnswerParser, ReasoningFormat, ToolFormat

REASONS = {"length": "length", "tool_calls": "tool_calls"}
"""Whatever else it says is an end by the model or by a stop string."""


class Answer:
    """Feed it chunks until there are no more; then `finish` tells the rest.

    `tools` is how the model writes calls; None leaves them to the engine, or there are none.
    """

    def __init__(
        self, request: GenerationRequest, prompt: str, *, tools: ToolFormat | None, thinks: bool
    ) -> None:
        reasoning = ReasoningFormat() if request.chat and thinks else None
        self._parser = AnswerParser(
            tools=tools,
            reasoning=reasoning,
            reasoning_open=reasoning is not None and prompt.rstrip().endswith(reasoning.start),
        )
        self._chat = request.chat
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
