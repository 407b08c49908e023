"""An engine of ours as an HTTP server: health, completions and their length. An ASGI app."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from backends.asgi import send_whole, whole_body
from backends.base import Message, Receive, Scope, Send
from backends.errors import BadRequestError, EngineError
from backends.wire.request import CHAT_PATH, COUNT_PATH, TEXT_PATH, GenerationRequest, parse
from backends.wire.response import Events, counted, respond

HEALTH_PATH = "/health"

Generate = Callable[[GenerationRequest], Events]
Count = Callable[[GenerationRequest], Awaitable[int]]
"""How many tokens the prompt of a request has; raises BadRequestError as `Generate` does."""


class CompletionsApp:
    """`supported` are the `backends.wire.request.FEATURES` that the engine honours."""

    def __init__(
        self,
        generate: Generate,
        count: Count,
        *,
        engine: str,
        model: str,
        supported: frozenset[str],
    ) -> None:
        self._generate = generate
        self._count = count
        self._engine = engine
        self._model = model
        self._supported = supported

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["method"], scope["path"]:
            case "GET", path if path == HEALTH_PATH:
                await _send_json(send, 200, {"status": "ok"})
            case "POST", path if path in (CHAT_PATH, TEXT_PATH, COUNT_PATH):
                await self._complete(path, receive, send)
            case _:
                error = BadRequestError(f"{self._engine} does not serve this path.")
                await _send_json(send, 404, _body(error))

    async def _complete(self, path: str, receive: Receive, send: Send) -> None:
        """An error before the first byte is an answer; later, the server cuts the connection."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            body = await whole_body(receive)
            chat = path != TEXT_PATH
            request = parse(body, chat=chat, engine=self._engine, supported=self._supported)
            if path == COUNT_PATH:
                await _send_json(send, 200, counted(await self._count(request)))
                return
            await respond(request, self._model, self._generate(request), receive, watched)
        except EngineError as error:
            if started:
                raise
            await _send_json(send, 400 if isinstance(error, BadRequestError) else 502, _body(error))


def _body(error: EngineError) -> dict[str, Any]:
    known = {"message": error.message, "code": error.code}
    if isinstance(error, BadRequestError):
        return {"error": {**known, "type": "invalid_request_error", "param": error.param}}
    return {"error": {**known, "type": "server_error", "param": None}}


async def _send_json(send: Send, status: int, value: dict[str, Any]) -> None:
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    await send_whole(send, status, b"application/json", body)
