"""OpenAI's endpoints: the list of models, and the two completions that engines answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from backends.asgi import disconnected, parsed
from backends.base import Receive, Scope, Send
from backends.errors import EngineError, EngineGoneError
from detect.types import ModelInfo, Role
from router.api.answer import send_json
from router.api.body import Asked, asked, read_body, replay
from router.api.members import edited
from router.api.progress import Teller, wanted
from router.catalog import Catalog
from router.configuration import Configuration
from router.entry import ModelEntry
from router.errors import InvalidRequestError, RouterError
from router.keep_alive import FIELDS as KEEP_ALIVE_FIELDS
from router.option import Progress
from router.pool import Pool

NOT_FOR_TEXT: Mapping[Role, tuple[str, str]] = {
    Role.EMBEDDING: ("an embedding model", "/v1/embeddings"),
    Role.RERANKER: ("a reranker", "/v1/rerank"),
}
"""What a model of that role is, and the endpoint that OpenAI and its followers have for it."""


NOT_FOR_PEOPLE = frozenset(("tools", "response_format", "grammar", "json_schema"))
"""Fields of requests whose answers programs read."""

SAME_AS: Mapping[str, tuple[str, ...]] = {
    "max_tokens": ("max_completion_tokens", "n_predict"),
    "repeat_penalty": ("repetition_penalty",),
}
"""Other names that clients have for the same."""

NOTICED_SECONDS = 5.0
"""Longest time until the end of a dead engine is known: as long as its guard may take."""


class Completions:
    """One request from admission to its last byte.

    One frame owns the lease, so that disconnect, cancellation, crash and success all leave
    through the same `async with`. The body goes to the engine as it came.
    """

    def __init__(
        self, configuration: Configuration, catalog: Catalog, pool: Pool, required: str
    ) -> None:
        self.configuration = configuration
        self.catalog = catalog
        self.pool = pool
        self.required = required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, self.configuration.settings.max_body)
        request = await parsed(body, partial(asked, required=self.required))
        teller = self._teller(request, scope, send)
        try:
            await self._answer_or_again(request, scope, body, receive, teller)
        except (RouterError, EngineError) as error:
            await teller.fail(error)
            raise

    async def _answer_or_again(
        self, request: Asked, scope: Scope, body: bytes, receive: Receive, teller: Teller
    ) -> None:
        try:
            await self._answer(request, scope, body, receive, teller)
        except EngineGoneError:
            # It had died unnoticed, and knows nothing of this request: another one is started.
            await self._answer(request, scope, body, receive, teller)

    async def _answer(
        self, request: Asked, scope: Scope, body: bytes, receive: Receive, teller: Teller
    ) -> None:
        registry = self.catalog.registry
        _check_role(registry.find(request.model).info)
        entry = registry.resolve(request.model)
        body = await _for_engine(body, request, entry)
        async with contextlib.AsyncExitStack() as stack:
            lease = self.pool.lease(entry, lambda: disconnected(receive), request.keep_alive)
            async with teller.telling(partial(self.pool.progress, entry.id)):
                instance = await stack.enter_async_context(lease)
            try:
                await instance(scope, replay(body, receive), teller.send)
            except EngineGoneError:
                if not self.pool.scheduler.closed:
                    # The pool, which waits for the same, is told before us.
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(instance.wait_failed(), NOTICED_SECONDS)
                raise

    def _teller(self, request: Asked, scope: Scope, send: Send) -> Teller:
        plain = request.stream and not request.fields & NOT_FOR_PEOPLE
        default = self.configuration.settings.load_progress
        kind = wanted(scope, default, plain_stream=plain)
        if self.required != "messages" and kind is Progress.REASONING:
            kind = Progress.COMMENTS
        return Teller(send, kind if request.stream else Progress.OFF, request.model)


async def _for_engine(body: bytes, request: Asked, entry: ModelEntry) -> bytes:
    """As the client wrote it, but for what only the router understands, and what the user wants
    to have where the client says nothing."""
    ours = request.fields.intersection(KEEP_ALIVE_FIELDS)
    missing = {
        name: value
        for name, value in entry.settings.sampling.items()
        if not request.fields & {name, *SAME_AS.get(name, ())}
    }
    if not ours and not missing:
        return body
    return await parsed(body, partial(edited, without=ours, extra=missing))


def _check_role(info: ModelInfo) -> None:
    """An engine would load the model first and then fail, each with other words."""
    if info.role not in NOT_FOR_TEXT:
        return
    kind, endpoint = NOT_FOR_TEXT[info.role]
    raise InvalidRequestError(
        f"{info.id} is {kind} and writes no text: the endpoint for it is {endpoint}, "
        "which this daemon does not serve yet. Take another model for this request.",
        param="model",
    )


class Models:
    """`GET /v1/models` and `GET /v1/models/{id}`: what can be asked for."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.created = int(time.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope.get("path_params", {}).get("model")
        if name is not None:
            await send_json(send, 200, self._model(self.catalog.registry.resolve(name)))
            return
        data = [self._model(entry) for entry in self.catalog.registry.servable]
        await send_json(send, 200, {"object": "list", "data": data})

    def _model(self, entry: ModelEntry) -> dict[str, Any]:
        info = entry.info
        return {
            "id": entry.id,
            "object": "model",
            "created": self.created,
            "owned_by": "local",
            "engine": entry.choice.engine,
            "format": info.format.value,
            "quantization": info.quantization.label if info.quantization else None,
            "context_length": info.context_length,
            "architecture": info.architecture.name,
            "parameters": info.parameters,
            "size_bytes": info.weights_bytes,
            "role": info.role.value,
            "aliases": list(entry.aliases),
        }
