"""The application behind the real HTTP server on loopback, and a client in front of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from backends.base import Backend
from router import server
from router.catalog import Catalog
from router.configuration import Configuration
from router.entry import ModelEntry
from router.pool import Pool
from router.registry import Registry
from router.settings import Settings
from tests import fake_engine
from tests.router.pools import pooled
from tests.slack import within
from tests.waiting import until


@dataclass(frozen=True)
class Site:
    configuration: Configuration
    pool: Pool
    client: httpx.AsyncClient

    async def chat(self, body: Any, path: str = "/v1/chat/completions") -> httpx.Response:
        return await self.client.post(path, json=body)

    def stream(self, body: Any) -> contextlib.AbstractAsyncContextManager[httpx.Response]:
        return self.client.stream("POST", "/v1/chat/completions", json=body)

    @property
    def leases(self) -> dict[str, int]:
        return {key: len(slot.leases) for key, slot in self.pool.scheduler.slots.items()}

    async def release(self, count: int = 1) -> None:
        """Let gated chunks of the one engine pass."""
        await fake_engine.release(_only_socket(self.pool.ways.options.runtime_dir), count)


def _only_socket(folder: Path) -> Path:
    (socket,) = folder.glob("*.sock")
    return socket


@contextlib.asynccontextmanager
async def serving(
    backend: Backend, *entries: ModelEntry, settings: Settings | None = None, **limits: Any
) -> AsyncIterator[Site]:
    settings = settings or Settings()
    sock = server.bind("127.0.0.1", 0)
    base = server.address(sock)
    async with pooled(backend, **limits) as pool:
        configuration = Configuration(settings)
        config = server._config(configuration, Catalog(Registry(entries)), pool)
        daemon = server._Server(config)
        task = asyncio.create_task(daemon.serve(sockets=[sock]))
        try:
            await until(lambda: daemon.started)
            async with httpx.AsyncClient(
                base_url=base, trust_env=False, timeout=within(10)
            ) as client:
                yield Site(configuration, pool, client)
        finally:
            daemon.should_exit = True
            await task
