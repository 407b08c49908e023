"""An engine of ours as an HTTP server: health, and the paths that it answers. An ASGI app."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from backends.asgi import parsed, send_whole, unless_disconnected, whole_body
from backends.base import Message, PrefixCacheStatus, Receive, Scope, Send
from backends.errors import BadRequestError, EngineError
from backends.wire import embeddings
from backends.wire.embeddings import EMBEDDINGS_PATH, EmbeddingRequest, Embeddings
from backends.wire.request import CHAT_PATH, COUNT_PATH, TEXT_PATH, GenerationRequest, parse
from backends.wire.response import Events, counted, respond

HEALTH_PATH = "/health"

Generate = Callable[[GenerationRequest], Events]
Count = Callable[[GenerationRequest], Awaitable[int]]
"""How many tokens the prompt of a request has; raises BadRequestError as `Generate` does."""
Embed = Callable[[EmbeddingRequest], Awaitable[Embeddings]]

Handler = Callable[[Receive, Send], Awaitable[None]]
Handlers = Mapping[str, Handler]
"""What is done with a POST to each path. It raises an `EngineError` before the first byte, or
leaves the answer unfinished."""


def completion_handlers(
    generate: Generate, count: Count, *, engine: str, model: str, supported: frozenset[str]
) -> Handlers:
    """`supported` are the `backends.wire.request.FEATURES` that the engine honours."""

    async def asked(receive: Receive, *, chat: bool) -> GenerationRequest:
        body = await whole_body(receive)
        return await parsed(body, partial(parse, chat=chat, engine=engine, supported=supported))

    async def complete(receive: Receive, send: Send, *, chat: bool) -> None:
        request = await asked(receive, chat=chat)
        await respond(request, model, generate(request), receive, send)

    async def measure(receive: Receive, send: Send) -> None:
        await _send_json(send, 200, counted(await count(await asked(receive, chat=True))))

    return {
        COUNT_PATH: measure,
        CHAT_PATH: partial(complete, chat=True),
        TEXT_PATH: partial(complete, chat=False),
        EMBEDDINGS_PATH: _refusal(
            f"{model} writes text and makes no vectors of it. If it is an embedding model, copy "
            "modules.json and the folder 1_Pooling of the original beside its weights."
        ),
    }


def embedding_handlers(embed: Embed, *, model: str) -> Handlers:
    async def answer(receive: Receive, send: Send) -> None:
        request = await parsed(await whole_body(receive), embeddings.parse)
        await unless_disconnected(receive, _send_vectors(request, send))

    async def _send_vectors(request: EmbeddingRequest, send: Send) -> None:
        found = await embed(request)
        # Two thousand vectors are two million numbers to write: most of a second.
        body = await asyncio.to_thread(embeddings.answer, request, model, found)
        await send_whole(send, 200, b"application/json", body)

    refusal = _refusal(f"{model} makes vectors of text and writes none: ask at {EMBEDDINGS_PATH}.")
    refused = dict.fromkeys((CHAT_PATH, TEXT_PATH, COUNT_PATH), refusal)
    return {EMBEDDINGS_PATH: answer, **refused}


def _refusal(message: str) -> Handler:
    async def refuse(receive: Receive, send: Send) -> None:
        raise BadRequestError(message, param="model")

    return refuse


@dataclass(frozen=True, slots=True)
class Health:
    """What an engine of ours says when it is asked how it is."""

    status: str = "ok"
    prefix_cache: PrefixCacheStatus | None = None


class EngineApp:
    """The paths of `handlers`, and one for its health."""

    def __init__(
        self, handlers: Handlers, *, engine: str, health: Callable[[], Health] = Health
    ) -> None:
        self._handlers = handlers
        self._engine = engine
        self._health = health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["method"], scope["path"]:
            case "GET", path if path == HEALTH_PATH:
                await _send_json(send, 200, asdict(self._health()))
            case "POST", path if path in self._handlers:
                await _answer(self._handlers[path], receive, send)
            case _:
                error = BadRequestError(f"{self._engine} does not serve this path.")
                await _send_json(send, 404, _body(error))


async def _answer(handler: Handler, receive: Receive, send: Send) -> None:
    """An error before the first byte is an answer; later, the server cuts the connection."""
    started = False

    async def watched(message: Message) -> None:
        nonlocal started
        started = True
        await send(message)

    try:
        await handler(receive, watched)
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
