"""What is changed of a request on its way to an engine, and of the answer on its way back: only
what the engine takes or says wrongly. All else passes as it comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backends.asgi import send_whole
from backends.base import Message, Send
from router.api.engine_error import in_our_terms
from router.api.error_events import ErrorEvents, Piece

MAX_ERROR_BYTES = 2**20
"""Of an answer with an error; a larger one says something else, and passes as it comes."""

Mend = Callable[[bytes], bytes]
"""Of the body of a whole answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mending:
    """The `body` for the engine. What it says of an error is put into our terms, in streams too;
    `param` is the field of the text that may be too long. `mend` is for answers without one."""

    body: bytes
    param: str | None = None
    mend: Mend | None = None

    def send(self, send: Send) -> Send:
        return _Mended(send, self)


def unchanged(body: bytes) -> Mending:
    return Mending(body=body)


def blamed_on(param: str) -> Callable[[bytes], Mending]:
    """Of a body that needs no change, whose text is `param`."""
    return lambda body: Mending(body=body, param=param)


class _Mended:
    """A `send` that keeps an answer until it is whole, if it has to be mended, and looks for errors
    in a stream.

    Raises a `RouterError` after an error in a stream, so that the connection is cut.
    """

    def __init__(self, send: Send, mending: Mending) -> None:
        self._send = send
        self._mending = mending
        self._start: Message | None = None
        self._body = bytearray()
        self._events: ErrorEvents | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif self._start is not None:
            await self._keep(self._start, message)
        elif self._events is not None:
            await self._pass(self._events, message)
        else:
            await self._send(message)

    async def _begin(self, start: Message) -> None:
        if self._mending.mend is not None or start["status"] >= 400:
            self._start = start
            return
        kind = dict(start["headers"]).get(b"content-type", b"")
        if kind.startswith(b"text/event-stream"):
            self._events = ErrorEvents(self._mending.param)
        await self._send(start)

    async def _pass(self, events: ErrorEvents, message: Message) -> None:
        more = message.get("more_body", False)
        piece = events.add(message.get("body", b""))
        if not more and piece.error is None:
            rest = events.finish()
            piece = Piece(piece.body + rest.body, rest.error)
        if piece.error is not None:
            await self._send({**message, "body": piece.body, "more_body": True})
            raise piece.error
        if piece.body or not more:
            await self._send({**message, "body": piece.body})

    async def _keep(self, start: Message, message: Message) -> None:
        self._body += message.get("body", b"")
        more = message.get("more_body", False)
        if not more:
            await self._finish(start, bytes(self._body))
        elif len(self._body) > MAX_ERROR_BYTES and self._mending.mend is None:
            self._start = None
            await self._send(start)
            await self._send({**message, "body": bytes(self._body)})

    async def _finish(self, start: Message, said: bytes) -> None:
        status, body = self._mended(start["status"], said)
        if body is said:
            await self._send(start)
            await self._send({"type": "http.response.body", "body": body})
            return
        kept = tuple(
            (name, value)
            for name, value in start["headers"]
            if name.lower() not in (b"content-type", b"content-length", b"transfer-encoding")
        )
        await send_whole(self._send, status, b"application/json", body, kept)

    def _mended(self, status: int, said: bytes) -> tuple[int, bytes]:
        if status < 400:
            return status, said if self._mending.mend is None else self._mending.mend(said)
        found = in_our_terms(said, status, self._mending.param)
        return (status, said) if found is None else (found[0].status, found[1])
