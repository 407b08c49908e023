"""What is changed of a request on its way to an engine, and of the answer on its way back: only
what the engine takes or says wrongly. All else passes as it comes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backends.asgi import send_whole
from backends.base import Message, Send
from backends.errors import TooLongError as BackendTooLongError
from router.api.told import count_in, object_in, text_in
from router.errors import (
    EngineRefusedError,
    InvalidRequestError,
    RouterError,
    TooLongError,
    as_router_error,
)

TOO_LARGE = "too large to process"
"""llama.cpp, with status 500, of a text that does not fit into one batch."""

TOO_LONG = "exceed_context_size_error"
"""llama.cpp's type of an error about a prompt that does not fit into the context."""

MISREAD = re.compile(r"Failed to parse (messages|tools):")
"""llama.cpp, with status 500, of a field that is not as it should be. Clients repeat what was
answered with a 500, and this would fail again."""

FIELD = re.compile(r"Field '(\w+)':")
"""How llama.cpp begins about a field."""

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
    """Errors of llama.cpp as the other engines have them: what is wrong with the request, which is
    the text of `param` in the end, is no error of the server's; and `code` is a word and not the
    status once more."""

    def mend(status: int, body: bytes) -> tuple[int, bytes]:
        error = _ours(_error_in(body), status, param)
        return (
            (status, body) if error is None else (error.status, json.dumps(error.body()).encode())
        )

    return mend


def blamed_on(param: str) -> Callable[[bytes], Mending]:
    """Of a body that needs no change."""
    mend = told_as_ours(param)
    return lambda body: Mending(body=body, mend=mend)


def _ours(told: dict[str, Any], status: int, param: str) -> RouterError | None:
    """None: it is right as it is."""
    message = text_in(told.get("message"))
    if told.get("type") == TOO_LONG:
        sizes = (count_in(told.get("n_prompt_tokens")), count_in(told.get("n_ctx")))
        return as_router_error(
            BackendTooLongError.prompt(sizes[0], "the model", sizes[1], param=param)
        )
    if status >= 500 and TOO_LARGE in message:
        return TooLongError(f"`{param}`: {message.rstrip('.')}.", param=param)
    if status >= 500 and (misread := MISREAD.match(message)):
        return InvalidRequestError(message, param=misread[1])
    if type(told.get("code")) is not int:
        return None
    if status == InvalidRequestError.status:
        field = FIELD.match(message)
        return InvalidRequestError(message, param=field and field[1])
    return EngineRefusedError(message, status=status)


def _error_in(body: bytes) -> dict[str, Any]:
    try:
        return object_in(object_in(json.loads(body)).get("error"))
    except (ValueError, RecursionError):
        return {}


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
