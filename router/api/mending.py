"""What is changed of a request on its way to an engine, and of the answer on its way back: only
what the engine takes or says wrongly. All else passes as it comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from backends.asgi import send_whole
from backends.base import Message, Send
from router.api.engine_error import UNKNOWN, Blame, in_our_terms
from router.api.error_events import ErrorEvents, Piece

MAX_ERROR_BYTES = 2**20
"""Of an answer with an error; a larger one says something else, and passes as it comes."""

Mend = Callable[[bytes], bytes]
"""Of the body of a whole answer."""


class Events(Protocol):
    """A stream that is changed on its way: bytes as they come in, bytes as they go out."""

    def add(self, piece: bytes) -> bytes: ...

    def finish(self) -> bytes:
        """What was held back, at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mending:
    """The `body` for the engine. What it says of an error is put into our terms, in streams too;
    `blame` is for one about the text. `mend` is for whole answers without an error, `events` makes
    what is for one stream."""

    body: bytes
    blame: Blame = UNKNOWN
    mend: Mend | None = None
    events: Callable[[], Events] | None = None

    def send(self, send: Send) -> Send:
        return _Mended(send, self)


def unchanged(body: bytes) -> Mending:
    return Mending(body=body)


def blamed_on(param: str) -> Callable[[bytes], Mending]:
    """Of a body that needs no change, whose text is `param`."""
    return lambda body: Mending(body=body, blame=Blame(param))


class _Mended:
    """A `send` that keeps an answer until it is whole, if it has to be mended, and mends a stream
    as it comes.

    Raises a `RouterError` after an error in a stream, so that the connection is cut.
    """

    def __init__(self, send: Send, mending: Mending) -> None:
        self._send = send
        self._mending = mending
        self._start: Message | None = None
        self._body = bytearray()
        self._errors: ErrorEvents | None = None
        self._events: Events | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif self._start is not None:
            await self._keep(self._start, message)
        elif self._errors is not None:
            await self._pass(self._errors, message)
        else:
            await self._send(message)

    async def _begin(self, start: Message) -> None:
        kind = dict(start["headers"]).get(b"content-type", b"")
        if start["status"] < 400 and kind.startswith(b"text/event-stream"):
            self._errors = ErrorEvents(self._mending.blame)
            self._events = self._mending.events and self._mending.events()
        elif self._mending.mend is not None or start["status"] >= 400:
            self._start = start
            return
        await self._send(start)

    async def _pass(self, errors: ErrorEvents, message: Message) -> None:
        more = message.get("more_body", False)
        piece = errors.add(message.get("body", b""))
        if not more and piece.error is None:
            rest = errors.finish()
            piece = Piece(piece.body + rest.body, rest.error)
        ends = not more or piece.error is not None
        body = self._changed(piece.body, ends=ends)
        if piece.error is not None:
            await self._send({**message, "body": body, "more_body": True})
            raise piece.error
        if body or ends:
            await self._send({**message, "body": body})

    def _changed(self, piece: bytes, *, ends: bool) -> bytes:
        if self._events is None:
            return piece
        changed = self._events.add(piece)
        return changed + self._events.finish() if ends else changed

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
        found = in_our_terms(said, status, self._mending.blame)
        return (status, said) if found is None else (found[0].status, found[1])
