"""OpenAI's endpoints, and those of llama.cpp: the list of models, and what engines answer."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from backends.asgi import parsed
from backends.base import Instance, Receive, Scope, Send
from backends.errors import EngineError
from router.api.admission import Admission
from router.api.answer import send_json
from router.api.body import Asked, asked, read_body, replay
from router.api.engine_body import for_engine
from router.api.progress import Teller, wanted
from router.api.task import CHAT, Task
from router.catalog import Catalog
from router.configuration import Configuration
from router.entry import ModelEntry
from router.errors import RouterError
from router.option import Progress

NOT_FOR_PEOPLE = frozenset(("tools", "response_format", "grammar", "json_schema"))
"""Fields of requests whose answers programs read."""


class Completions:
    """What engines answer themselves: the body goes to them as it came."""

    def __init__(self, configuration: Configuration, admission: Admission, task: Task) -> None:
        self.configuration = configuration
        self.admission = admission
        self.task = task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, self.configuration.settings.max_body)
        read = partial(asked, required=self.task.required, asks=self.task.asks)
        request = await parsed(body, read)
        teller = self._teller(request, scope, send)

        async def ask(entry: ModelEntry, instance: Instance) -> None:
            mending = await for_engine(body, request, entry, self.task)
            await instance(scope, replay(mending.body, receive), mending.send(teller.send))

        async with teller.keeping_alive():
            try:
                await self.admission.answer(request, receive, ask, teller.telling, self.task.check)
            except (RouterError, EngineError) as error:
                await teller.fail(error)
                raise

    def _teller(self, request: Asked, scope: Scope, send: Send) -> Teller:
        plain = request.stream and not request.fields & NOT_FOR_PEOPLE
        default = self.configuration.settings.load_progress
        kind = wanted(scope, default, plain_stream=plain)
        if self.task.path != CHAT.path and kind is Progress.REASONING:
            kind = Progress.COMMENTS
        return Teller(send, kind, request.model, streams=request.stream)


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
