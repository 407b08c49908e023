"""Events as OpenAI's response objects and server-sent events."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from backends.asgi import unless_disconnected
from backends.base import Receive, Send
from backends.errors import EngineError, EngineProtocolError
from backends.proxy import error_event
from backends.wire.choice import AnswerChoice
from backends.wire.events import Choice, Event, Usage
from backends.wire.request import GenerationRequest, Json

Events = AsyncGenerator[Event | Choice, None]
"""A request for several answers gets choices, any other one plain events."""


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
            await _send_chunks(send, answer.closing())
        except EngineError as error:
            if started:
                await _send(send, error_event(error))
            raise
    await _send(send, b"data: [DONE]\n\n", more=False)


async def _whole(answer: _Answer, events: Events, send: Send) -> None:
    async with aclosing(events):
        async for event in events:
            answer.add(event)
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
        self._choices = [AnswerChoice(i, chat=request.chat) for i in range(request.n)]

    def opening(self) -> Iterator[Json]:
        for choice in self._choices:
            yield from map(self._chunk, choice.opening())

    def chunks(self, told: Event | Choice) -> Iterator[Json]:
        choice, event = self._of(told)
        yield from map(self._chunk, choice.deltas(event))

    def closing(self) -> Iterator[Json]:
        """
        Raises:
            EngineProtocolError: events just stopped, which is no end of an answer.
        """
        usage = self._usage()
        if self._request.include_usage:
            yield {**self._head(chunk=True), "choices": [], "usage": usage}

    def add(self, told: Event | Choice) -> None:
        choice, event = self._of(told)
        choice.add(event)

    def object(self) -> Json:
        """Raises as `closing` does."""
        usage = self._usage()
        choices = [choice.object() for choice in self._choices]
        return {**self._head(chunk=False), "choices": choices, "usage": usage}

    def _of(self, told: Event | Choice) -> tuple[AnswerChoice, Event]:
        if isinstance(told, Choice):
            return self._choices[told.index], told.event
        return self._choices[0], told

    def _usage(self) -> Json:
        """The prompt is the same for all choices, and counts once."""
        ends = [choice.end for choice in self._choices if choice.end is not None]
        if len(ends) < len(self._choices):
            raise EngineProtocolError(
                f"The answer of {self._model} broke off in the middle.", model=self._model
            )
        first = ends[0].usage
        answered = sum(end.usage.completion_tokens for end in ends)
        return usage_object(Usage(first.prompt_tokens, answered, first.cached_tokens))

    def _chunk(self, choice: Json) -> Json:
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


def usage_object(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def counted(tokens: int) -> Json:
    """The answer to a request for the length of its prompt, as llama.cpp gives it."""
    return {"object": "response.input_tokens", "input_tokens": tokens}


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
