"""Where an engine's answer in OpenAI's terms goes, to leave in another dialect."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any, Protocol

from backends.asgi import parsed, send_whole
from backends.base import Message, Send
from router.api.answer import json_bytes
from router.api.engine_error import engine_error
from router.api.silence import Silence, meanwhile
from router.api.sse import EventReader
from router.api.told import json_object
from router.errors import (
    EngineFailedError,
    RouterError,
    UnsupportedError,
    as_router_error,
)

Json = dict[str, Any]

MAX_ANSWER_BYTES = 64 * 2**20
MAX_REFUSAL_BYTES = 2**20
DONE = "[DONE]"

UNKNOWN_PATH = frozenset(
    (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)
)


class AnswerStream(Protocol):
    """One streamed answer in a dialect, piece by piece; each piece is whole lines or events."""

    content_type: bytes

    def add(self, chunk: Json) -> Iterable[bytes]:
        """A `chat.completion.chunk` of the engine. What it lacks is empty.

        Raises:
            EngineFailedError: chunks in an order that cannot be told in the dialect.
        """

    def finish(self) -> Iterable[bytes]:
        """The engine is done. Raises as `add` does, where its answer has no end."""

    def wait(self) -> Iterable[bytes]:
        """Something that keeps the connection alive; empty where the dialect has nothing."""

    def fail(self, error: RouterError) -> Iterable[bytes]:
        """The last words of a stream that has begun."""


class _Refusal:
    """An answer of the engine that is an error."""

    def __init__(self, status: int) -> None:
        self._status = status
        self._body = bytearray()

    def add(self, body: bytes) -> None:
        self._body += body[: MAX_REFUSAL_BYTES - len(self._body)]

    def error(self) -> RouterError:
        error = engine_error(json_object(bytes(self._body)), self._status)
        if self._status in UNKNOWN_PATH:
            return UnsupportedError(
                f"The engine that runs this model cannot do this: {error.message}", param="model"
            )
        return error


class WholeOutlet:
    """Puts an answer that is one JSON object into the dialect. `passing`: it is told by others."""

    began = False
    """Nothing is sent before the whole answer is known."""

    def __init__(self, send: Send, translate: Callable[[Json], Json]) -> None:
        self.passing = False
        self._send = send
        self._translate = translate
        self._refusal: _Refusal | None = None
        self._body = bytearray()

    def keeping_alive(self) -> AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._refusal = _Refusal(message["status"]) if message["status"] != 200 else None
        elif self._refusal:
            self._refusal.add(message.get("body", b""))
        elif len(self._body) <= MAX_ANSWER_BYTES:
            self._body += message.get("body", b"")

    async def finish(self) -> None:
        if self.passing:
            return
        if self._refusal:
            raise self._refusal.error()
        answer = await parsed(bytes(self._body), self._written)
        await send_whole(self._send, 200, b"application/json", answer)

    def _written(self, body: bytes) -> bytes:
        """In a thread where it is long, as many vectors are."""
        answer = json_object(body) if len(body) <= MAX_ANSWER_BYTES else None
        if answer is None:
            raise EngineFailedError("The engine answered with something else than a JSON object.")
        return json_bytes(self._translate(answer))

    async def fail(self, error: Exception) -> None:
        """Nothing was sent: the error is an answer of its own."""


class StreamOutlet:
    """Puts a stream of chunks into the dialect as they come. While there are none, the dialect's
    keep-alive is sent; once it has begun, an error is its last event and a cut connection."""

    def __init__(self, send: Send, stream: AnswerStream) -> None:
        self.passing = False
        self._send = send
        self._stream = stream
        self._reader = EventReader()
        self._refusal: _Refusal | None = None
        self.began = False
        self._done = False
        self._silence = Silence()

    def keeping_alive(self) -> AbstractAsyncContextManager[None]:
        return meanwhile(self._keep_alive())

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._refusal = _Refusal(message["status"]) if message["status"] != 200 else None
        elif self._refusal:
            self._refusal.add(message.get("body", b""))
        elif not self._done:
            await self._translate(message.get("body", b""))

    async def finish(self) -> None:
        if self.passing:
            return
        if self._refusal:
            raise self._refusal.error()
        if not self._done:
            raise EngineFailedError("The engine's answer broke off in the middle.")
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def fail(self, error: Exception) -> None:
        if self.began:
            await self._say(self._stream.fail(as_router_error(error)))

    async def _translate(self, body: bytes) -> None:
        """What cannot be translated is raised through the instance, which ends the work."""
        for event in self._reader.add(body):
            if event.data == DONE:
                await self._say(self._stream.finish())
                self._done = True
                return
            await self._add(event.data)

    async def _add(self, data: str) -> None:
        chunk = json_object(data)
        if chunk is None:
            raise EngineFailedError("The engine's stream has an event that is no JSON object.")
        if "error" in chunk:
            raise engine_error(chunk, HTTPStatus.BAD_GATEWAY)
        await self._say(self._stream.add(chunk))

    async def _keep_alive(self) -> None:
        async for _ in self._silence.ends():
            if self.passing or self._done:
                return
            await self._say(self._stream.wait())

    async def _say(self, pieces: Iterable[bytes]) -> None:
        body = b"".join(pieces)
        if not body:
            return
        self._silence.broken()
        if not self.began:
            self.began = True
            headers = [
                (b"content-type", self._stream.content_type),
                (b"cache-control", b"no-cache"),
            ]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
