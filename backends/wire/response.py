"""Events as OpenAI's response objects and server-sent events."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

from backends.asgi import unless_disconnected
from backends.base import Receive, Send
from backends.errors import EngineError, EngineProtocolError
from backends.proxy import error_event
from backends.wire.events import (
    Event,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallArguments,
    ToolCallBroken,
    ToolCallStart,
    Usage,
)
from backends.wire.request import GenerationRequest, Json

Events = AsyncGenerator[Event, None]


async def respond(
    request: GenerationRequest, model: str, events: Events, receive: Receive, send: Send
) -> None:
    """Answer with what `events` tell; closing them, when the client leaves, ends the work.

    An error before the first event is raised with nothing sent. Later, a stream gets an error
    event, and the error is raised with the response incomplete, so that the server cuts it.
    """
    answer = _Answer(request, model)
    write = _stream if request.stream else _whole
    await unless_disconnected(receive, write(answer, events, send))


async def _stream(answer: _Answer, events: Events, send: Send) -> None:
    started = False
    async with aclosing(events):
        try:
            async for event in events:
                if not started:
                    await send(_start(b"text/event-stream; charset=utf-8"))
                    started = True
                    await _send_chunks(send, answer.opening())
                await _send_chunks(send, answer.chunks(event))
            answer.check_finished()
        except EngineError as error:
            if started:
                await _send(send, error_event(error))
            raise
    await _send(send, b"data: [DONE]\n\n", more=False)


async def _whole(answer: _Answer, events: Events, send: Send) -> None:
    async with aclosing(events):
        async for event in events:
            answer.add(event)
    answer.check_finished()
    body = _json(answer.object())
    length = (b"content-length", str(len(body)).encode())
    await send(_start(b"application/json", length))
    await _send(send, body, more=False)


class _Answer:
    """One response under construction: as chunks, or added up."""

    def __init__(self, request: GenerationRequest, model: str) -> None:
        self._request = request
        self._model = model
        self._id = ("chatcmpl-" if request.chat else "cmpl-") + secrets.token_hex(12)
        self._created = int(time.time())
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[Json] = []
        self._arguments: list[list[str]] = []
        self._begun = 0
        self._end: Finished | None = None

    def opening(self) -> Iterator[Json]:
        if self._request.chat:
            yield self._chunk({"role": "assistant", "content": ""})

    def chunks(self, event: Event) -> Iterator[Json]:
        match event:
            case TextDelta(text):
                yield self._chunk({"content": text} if self._request.chat else text)
            case ReasoningDelta(text):
                yield self._chunk({"reasoning_content": text})
            case ToolCallStart(name):
                self._begun += 1
                yield self._call_chunk(_call(name))
            case ToolCallArguments(text):
                yield self._call_chunk({"function": {"arguments": text}})
            case ToolCallBroken(text):
                yield self._chunk({"content": text})
            case Finished(reason, usage):
                self.add(event)
                yield self._chunk({} if self._request.chat else "", reason)
                if self._request.include_usage:
                    yield {**self._head(chunk=True), "choices": [], "usage": usage_object(usage)}

    def add(self, event: Event) -> None:
        match event:
            case TextDelta(text):
                self._text.append(text)
            case ReasoningDelta(text):
                self._reasoning.append(text)
            case ToolCallStart(name):
                self._calls.append(_call(name))
                self._arguments.append([])
            case ToolCallArguments(text):
                self._arguments[-1].append(text)
            case ToolCallBroken(text):
                del self._calls[-1], self._arguments[-1]
                self._text.append(text)
            case Finished():
                self._end = event

    def check_finished(self) -> None:
        """Events that just stop are an engine's mistake, and no end of an answer."""
        if self._end is None:
            raise EngineProtocolError(
                f"The answer of {self._model} broke off in the middle.", model=self._model
            )

    def object(self) -> Json:
        assert self._end is not None
        choice = {"index": 0, "finish_reason": self._end.reason, "logprobs": None}
        text = "".join(self._text)
        choice |= {"message": self._message(text)} if self._request.chat else {"text": text}
        return {
            **self._head(chunk=False),
            "choices": [choice],
            "usage": usage_object(self._end.usage),
        }

    def _message(self, text: str) -> Json:
        message: Json = {"role": "assistant", "content": text if text or not self._calls else None}
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        for call, pieces in zip(self._calls, self._arguments, strict=True):
            call["function"]["arguments"] = "".join(pieces)
        if self._calls:
            message["tool_calls"] = self._calls
        return message

    def _call_chunk(self, part: Json) -> Json:
        """About the call that began last; a broken one keeps its number."""
        return self._chunk({"tool_calls": [{"index": self._begun - 1, **part}]})

    def _chunk(self, delta: Any, reason: str | None = None) -> Json:
        choice: Json = {"index": 0, "finish_reason": reason}
        choice |= {"delta": delta} if self._request.chat else {"text": delta, "logprobs": None}
        return {**self._head(chunk=True), "choices": [choice]}

    def _head(self, *, chunk: bool) -> Json:
        kind = "text_completion"
        if self._request.chat:
            kind = "chat.completion.chunk" if chunk else "chat.completion"
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": None,
        }


def _call(name: str) -> Json:
    """As the first delta of a stream has it; the arguments follow."""
    function = {"name": name, "arguments": ""}
    return {"id": "call_" + secrets.token_hex(12), "type": "function", "function": function}


def usage_object(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _json(value: Json) -> bytes:
    """JSON on one line, so that no text can end an event early; lone surrogates are replaced."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _start(content_type: bytes, *headers: tuple[bytes, bytes]) -> Json:
    return {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", content_type), (b"cache-control", b"no-cache"), *headers],
    }


async def _send_chunks(send: Send, chunks: Iterator[Json]) -> None:
    for chunk in chunks:
        await _send(send, b"data: " + _json(chunk) + b"\n\n")


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
