"""The daemon about itself: health, all models with their verdicts, what runs."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

from backends.base import Receive, Scope, Send
from router.api import describe
from router.api.answer import send_json, send_text
from router.catalog import Catalog
from router.errors import ShuttingDownError
from router.pool import Failing, ModelStatus, Pool, Wait
from router.table import printable


class Livez:
    """200 while the event loop turns."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, 200, {"status": "alive"})


class Readyz:
    """200 while requests are admitted, 503 from the moment the daemon is asked to end."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.pool.scheduler.closed:
            raise ShuttingDownError("The router is shutting down.", retry_after_seconds=5)
        await send_json(send, 200, {"status": "ready"})


class Welcome:
    """`GET /`: for the people who open the address in a browser."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = [f"  {entry.id}" for entry in self.catalog.registry.servable] or ["  none yet"]
        lines = [
            "The router is running. Its OpenAI-compatible API is at /v1.",
            "",
            "Models:",
            *names,
            "",
            "/router/models says what each is and why others cannot be run; /router/status, what "
            "is loaded.",
        ]
        await send_text(send, "\n".join(map(printable, lines)) + "\n")


class AllModels:
    """`GET /router/models` and `GET /router/models/{id}`: unservable ones too, and why."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope.get("path_params", {}).get("model")
        registry = self.catalog.registry
        if name is not None:
            await send_json(send, 200, describe.entry(registry.find(name)))
            return
        models = [describe.entry(model) for model in registry]
        skipped = [describe.skipped(item) for item in registry.skipped]
        await send_json(send, 200, {"models": models, "skipped": skipped})


class LoadModel:
    """`POST /router/models/{id}/load`: answers when the model is ready."""

    def __init__(self, catalog: Catalog, pool: Pool) -> None:
        self.catalog = catalog
        self.pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        entry = self.catalog.registry.resolve(scope["path_params"]["model"])
        await self.pool.load(entry)
        await send_json(send, 200, {"model": entry.id, "state": "ready"})


class UnloadModel:
    """`POST /router/models/{id}/unload`: 409 while the model is used."""

    def __init__(self, catalog: Catalog, pool: Pool) -> None:
        self.catalog = catalog
        self.pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        entry = self.catalog.registry.find(scope["path_params"]["model"])
        self.pool.unload(entry)
        await send_json(send, 200, {"model": entry.id, "state": "unloading"})


class Status:
    """`GET /router/status`: every instance and every wait, by name."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scheduler = self.pool.scheduler
        await send_json(
            send,
            200,
            {
                "pid": os.getpid(),
                "budget_bytes": scheduler.budget_bytes,
                "reserved_bytes": scheduler.reserved_bytes,
                "lost_bytes": scheduler.lost_bytes,
                "instances": [_instance(status) for status in self.pool.status()],
                "waiting": [_waiting(w) for w in self.pool.waits()],
                "failing": [_failing(f) for f in self.pool.failing()],
            },
        )


def _waiting(wait: Wait) -> dict[str, Any]:
    return {
        "model": wait.model,
        "for": wait.reason,
        "needed_bytes": wait.needed_bytes,
        "seconds": wait.seconds,
    }


def _failing(failing: Failing) -> dict[str, Any]:
    return {
        "model": failing.model,
        "failures": failing.failures,
        "reason": failing.reason,
        "retry_seconds": failing.retry_seconds,
    }


def _instance(status: ModelStatus) -> dict[str, Any]:
    instance = status.instance
    return {
        "model": status.model,
        "engine": status.engine,
        "version": instance.version,
        "state": status.state,
        "reason": instance.reason,
        "pid": instance.pid,
        "leases": status.leases,
        "queue": status.queue,
        "reserved_bytes": status.reserved_bytes,
        "measured_bytes": status.measured_bytes,
        "weights_bytes": status.weights_bytes,
        "loading_seconds": status.loading_seconds,
        "pinned": status.pinned,
        "idle_left_seconds": status.idle_left_seconds,
        "load_seconds": instance.load_seconds,
        "prefix_cache": asdict(instance.prefix_cache) if instance.prefix_cache else None,
    }
