"""What a client is told while its model loads, and that it still is waited for, inside the stream
that it has asked for.

How loading goes is told if it asks, by header or setting: a stream that has begun cannot become an
error of its own status any more. That is why a comment against silence takes its time, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from backends.base import Message, Scope, Send
from router.api.silence import Silence, meanwhile
from router.errors import InvalidRequestError, as_router_error
from router.option import Progress, parse_progress

HEADER = b"x-router-progress"
FIRST_SECONDS = 1.0
"""A model that is there sooner needs no word."""

EACH_SECONDS = 2.0
WAITING = b": waiting\n\n"
ENDS = (b"\n\n", b"\r\n\r\n")
"""Of an event: between two of them there may be a comment."""

START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")],
}


def wanted(scope: Scope, default: Progress, *, plain_stream: bool) -> Progress:
    """What the header says, else the setting for streams that nothing but a person reads.

    Raises:
        InvalidRequestError: the header says something else.
    """
    for name, value in scope["headers"]:
        if name == HEADER:
            return _said(value)
    return default if plain_stream else Progress.OFF


def _said(value: bytes) -> Progress:
    try:
        return parse_progress(value.decode("latin-1"))
    except ValueError as error:
        raise InvalidRequestError(f"X-Router-Progress {error}.") from None


class Teller:
    """The `send` of one request; `kind` and keeping alive are for streams. Once it has told
    something, the engine's own start is dropped, and an error becomes an event at the end of a cut
    stream."""

    def __init__(self, send: Send, kind: Progress, model: str, *, streams: bool) -> None:
        self._send = send
        self._kind = kind if streams else Progress.OFF
        self._model = model
        self._streams = streams
        self._told = False
        self._answering = False
        self._refusal: bytearray | None = None
        self._silence = Silence()
        self._between_events = True

    def telling(self, state: Callable[[], str]) -> AbstractAsyncContextManager[None]:
        """Tell what `state` says, from time to time, while the block waits."""
        if self._kind is Progress.OFF:
            return contextlib.nullcontext()
        return meanwhile(self._tell(state))

    def keeping_alive(self) -> AbstractAsyncContextManager[None]:
        """A comment in each long silence of the block, which is all of the request."""
        return meanwhile(self._keep_alive()) if self._streams else contextlib.nullcontext()

    async def fail(self, error: Exception) -> None:
        """The engine has not begun an answer, and will not: those who were told something are told
        that, too. For others it is still an answer of its own."""
        if self._told and not self._answering:
            body = as_router_error(error).body()
            await self._say(b"data: " + json.dumps(body).encode() + b"\n\n")

    async def send(self, message: Message) -> None:
        self._answering = True
        self._silence.broken()
        if message["type"] == "http.response.start":
            await self._start(message)
        elif self._refusal is None:
            body = message.get("body", b"")
            self._between_events = body.endswith(ENDS) if body else self._between_events
            self._streams = self._streams and message.get("more_body", False)
            await self._send(message)
        else:
            await self._pass_refusal(self._refusal, message)

    async def _start(self, start: Message) -> None:
        if self._told:
            self._refusal = bytearray() if start["status"] != 200 else None
            return
        kind = dict(start["headers"]).get(b"content-type", b"")
        self._streams = self._streams and kind.startswith(b"text/event-stream")
        self._told = True
        await self._send(start)

    async def _pass_refusal(self, said: bytearray, message: Message) -> None:
        """The engine has answered with an error of its own, as one JSON object."""
        said += message.get("body", b"")
        more = message.get("more_body", False)
        event = b"" if more else b"data: " + bytes(said).replace(b"\n", b" ") + b"\n\n"
        await self._send({"type": "http.response.body", "body": event, "more_body": more})

    async def _tell(self, state: Callable[[], str]) -> None:
        await asyncio.sleep(FIRST_SECONDS)
        while True:
            await self._say(self._piece(state()))
            await asyncio.sleep(EACH_SECONDS)

    async def _keep_alive(self) -> None:
        async for _ in self._silence.ends():
            if not self._streams:
                return
            if self._between_events:
                await self._say(WAITING)

    def _piece(self, text: str) -> bytes:
        line = " ".join(text.split())
        if self._kind is Progress.COMMENTS:
            return b": " + line.encode() + b"\n\n"
        delta = {"role": "assistant", "reasoning_content": f"{line}\n"}
        chunk = {
            "id": "chatcmpl-router-progress",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": self._model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
        }
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"

    async def _say(self, piece: bytes) -> None:
        self._silence.broken()
        if not self._told:
            self._told = True
            await self._send(START)
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})
