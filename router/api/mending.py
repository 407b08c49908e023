"""What is changed of a request on its way to an engine, and of the answer on its way back: only
what the engine takes or says wrongly. All else passes as it comes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from backends.asgi import send_whole
from backends.base import Message, Send
from router.errors import InvalidRequestError

TOO_LARGE = "too large to process"
"""llama.cpp, with status 500, of a text that does not fit into one batch."""

Mend = Callable[[int, bytes], tuple[int, bytes]]
"""Of a whole answer: its status and its body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mending:
    """The `body` for the engine; `mend` is for answers with an error, and for others `always`."""

    body: bytes
    mend: Mend | None = None
    always: bool = False

    def send(self, send: Send) -> Send:
        return send if self.mend is None else _Mended(send, self.mend, always=self.always)


def unchanged(body: bytes) -> Mending:
    return Mending(body=body)


def told_as_ours(param: str) -> Mend:
    """What is wrong with the request is no error of the server's."""

    def mend(status: int, body: bytes) -> tuple[int, bytes]:
        said = _message(body)
        if status < 500 or TOO_LARGE not in said:
            return status, body
        error = InvalidRequestError(f"`{param}`: {said}.", param=param)
        return error.status, json.dumps(error.body()).encode()

    return mend


def _message(body: bytes) -> str:
    try:
        match json.loads(body):
            case {"error": {"message": str(message)}}:
                return message.rstrip(".")
    except (ValueError, RecursionError):
        pass
    return ""


class _Mended:
    """A `send` that keeps an answer until it is whole, if it has to be mended."""

    def __init__(self, send: Send, mend: Mend, *, always: bool) -> None:
        self._send = send
        self._mend = mend
        self._always = always
        self._start: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and (self._always or message["status"] >= 400):
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._finish(self._start)

    async def _finish(self, start: Message) -> None:
        status, body = self._mend(start["status"], bytes(self._body))
        kept = tuple(
            (name, value)
            for name, value in start["headers"]
            if name.lower() not in (b"content-type", b"content-length", b"transfer-encoding")
        )
        await send_whole(self._send, status, b"application/json", body, kept)
