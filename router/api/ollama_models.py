"""Ollama's `/api/version`, `/api/tags`, `/api/show` and `/api/ps`: what there is, and what runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from backends.asgi import parsed
from backends.base import Receive, Scope, Send
from backends.headers import context_length
from detect.types import Role, WeightFormat
from router import explain
from router.api.admission import may_see
from router.api.answer import send_json
from router.api.body import json_object, model_of, read_body
from router.api.ollama_answer import timestamp
from router.catalog import Catalog
from router.configuration import Configuration
from router.entry import ModelEntry
from router.pool import ModelStatus, Pool

Json = dict[str, Any]

API_VERSION = "0.13.0"
"""Of the Ollama whose API this is: clients ask it to know what they may use."""

FOR_EVER = "9999-12-31T23:59:59Z"


class Version:
    """`GET /api/version`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, 200, {"version": API_VERSION})


class Tags:
    """`GET /api/tags`: what can be asked for."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        servable = self.catalog.registry.servable
        models = [{**head(entry), "modified_at": modified(entry)} for entry in servable]
        await send_json(send, 200, {"models": models})


class Show:
    """`POST /api/show`: one model."""

    def __init__(self, configuration: Configuration, catalog: Catalog, pool: Pool) -> None:
        self.configuration = configuration
        self.catalog = catalog
        self.pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, self.configuration.settings.max_body)
        entry = self.catalog.registry.resolve(await parsed(body, _named))
        context = context_length(entry.info, self.pool.ways.options_for(entry))
        await send_json(send, 200, shown(entry, context))


class Loaded:
    """`GET /api/ps`: what is loaded, and until when."""

    def __init__(self, catalog: Catalog, pool: Pool) -> None:
        self.catalog = catalog
        self.pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, 200, {"models": list(self._models(datetime.now(UTC)))})

    def _models(self, now: datetime) -> Iterator[Json]:
        registry = self.catalog.registry
        for status in self.pool.status():
            entry = registry.by_id(status.model)
            if entry is None or status.loading_seconds is not None:
                continue
            yield {
                **head(entry),
                "size": status.measured_bytes or status.reserved_bytes,
                "expires_at": _expires(status, now),
                "context_length": context_length(entry.info, self.pool.ways.options_for(entry)),
            }


def _named(body: bytes) -> str:
    """Older clients call it `name`."""
    value = json_object(body)
    return model_of({"model": value["name"]} if "name" in value and "model" not in value else value)


def _expires(status: ModelStatus, now: datetime) -> str:
    if status.idle_left_seconds is None:
        return FOR_EVER
    try:
        return timestamp(now + timedelta(seconds=status.idle_left_seconds))
    except OverflowError:
        return FOR_EVER


def head(entry: ModelEntry) -> Json:
    """How a model is named everywhere. Its digest is that of its files' names, sizes and times."""
    return {
        "name": entry.id,
        "model": entry.id,
        "size": entry.info.weights_bytes,
        "digest": hashlib.sha256(repr((entry.id, entry.fingerprint)).encode()).hexdigest(),
        "details": _details(entry),
    }


def modified(entry: ModelEntry) -> str:
    """When the newest of its files was last changed."""
    newest = max((changed for _, _, changed, _ in entry.fingerprint), default=0)
    return timestamp(datetime.fromtimestamp(newest // 10**9, UTC))


def shown(entry: ModelEntry, context: int | None) -> Json:
    """`context` is what it is loaded with, in tokens."""
    family = entry.info.architecture.name or "unknown"
    facts = {
        "general.architecture": family,
        "general.parameter_count": entry.info.parameters,
        f"{family}.context_length": context,
    }
    return {
        "modelfile": f"FROM {entry.id}\n",
        "parameters": f"num_ctx {context}" if context else "",
        "template": "",
        "details": _details(entry),
        "model_info": {name: value for name, value in facts.items() if value is not None},
        "capabilities": _capabilities(entry),
        "modified_at": modified(entry),
    }


def _details(entry: ModelEntry) -> Json:
    info = entry.info
    family = info.architecture.name or "unknown"
    return {
        "parent_model": "",
        "format": "gguf" if info.format is WeightFormat.GGUF else "safetensors",
        "family": family,
        "families": [family],
        "parameter_size": explain.parameters(info.parameters),
        "quantization_level": explain.quantization(info),
    }


def _capabilities(entry: ModelEntry) -> list[str]:
    info = entry.info
    if info.role in (Role.EMBEDDING, Role.RERANKER):
        return ["embedding"]
    can = {"tools": info.tools, "thinking": info.thinking, "vision": may_see(info)}
    return ["completion", *(name for name, has in can.items() if has)]
