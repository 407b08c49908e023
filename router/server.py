"""The composition root: what is built, in which order, and how it all ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import uvicorn

from backends.base import Backend, InstanceOptions
from backends.memory import machine_memory
from router.app import create_app
from router.catalog import Catalog
from router.errors import SettingsError
from router.experience import FILE_NAME, Experience
from router.gauge import Gauge
from router.pool import STOP_GRACE_SECONDS, Pool
from router.registry import Registry
from router.runtime import runtime_dir
from router.scheduler import Scheduler
from router.settings import Settings
from router.watch import Rescan, Watch
from router.ways import Ways

log = logging.getLogger("router")

KEEP_ALIVE_SECONDS = 75
"""Longer than the idle pools of common clients and reverse proxies."""

LAST_BYTES_SECONDS = 2
"""Time for connections to flush once nothing produces any more."""


def create_backends(settings: Settings) -> dict[str, Backend]:
    """Every engine by name. Nothing is imported, started or probed yet."""
    from backends.llama_cpp import LlamaCppBackend
    from backends.mistral_rs.backend import MistralRsBackend
    from backends.mlx.backend import MLXBackend

    backends: Sequence[Backend] = (
        MLXBackend(),
        LlamaCppBackend(binary=settings.llama_server, cache_dir=settings.cache_dir),
        MistralRsBackend(binary=settings.mistralrs, cache_dir=settings.cache_dir),
    )
    return {backend.name: backend for backend in backends}


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        SettingsError: the port is taken or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(2048)
    except (OSError, UnicodeError, TypeError, ValueError) as error:
        sock.close()
        reason = getattr(error, "strerror", None) or "no such address"
        raise SettingsError(
            f"Cannot listen on {host} port {port}: {reason}. "
            "--port or ROUTER_PORT takes another one."
        ) from None
    sock.setblocking(False)
    return sock


def address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(
    settings: Settings,
    registry: Registry,
    backends: Mapping[str, Backend],
    sock: socket.socket,
    rescan: Rescan,
) -> None:
    """Serve until a signal says otherwise; nothing that was started is left when it returns.

    `rescan` finds the models anew, when the folders are watched.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner, runtime_dir() as folder:
        runner.run(_serve(settings, registry, backends, sock, folder, rescan))


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    import uvloop

    return uvloop.Loop


async def _serve(
    settings: Settings,
    registry: Registry,
    backends: Mapping[str, Backend],
    sock: socket.socket,
    folder: Path,
    rescan: Rescan,
) -> None:
    catalog = Catalog(registry)
    scheduler = Scheduler(
        settings.memory.resolve(machine_memory().usable_bytes),
        max_queue=settings.max_queue,
        queue_seconds=settings.queue_seconds,
        clock=time.monotonic,
    )
    options = InstanceOptions(
        context_length=settings.context_length,
        parallel=settings.parallel,
        start_timeout_seconds=settings.start_seconds,
        patience=settings.patience,
        isolation=settings.isolation,
        runtime_dir=folder,
    )
    experience = Experience(settings.cache_dir / FILE_NAME)
    ways = Ways(backends, options, experience)
    async with Pool(ways, scheduler, settings.idle_seconds) as pool:
        server = _Server(_config(settings, catalog, pool))
        ending = Ending(server, pool, settings.drain_seconds)
        ending.listen_to_signals()
        pool.preload(entry for entry in registry.servable if entry.settings.preload)
        async with _watching(settings, rescan, catalog, pool), Gauge(pool).running():
            await server.serve(sockets=[sock])
        await ending.finished()


def _watching(
    settings: Settings, rescan: Rescan, catalog: Catalog, pool: Pool
) -> contextlib.AbstractAsyncContextManager[None]:
    if not settings.watch:
        return contextlib.nullcontext()
    return Watch(settings.models_dir, rescan, catalog, pool).running()


def _config(settings: Settings, catalog: Catalog, pool: Pool) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(settings, catalog, pool),
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=LAST_BYTES_SECONDS,
    )


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are ours: uvicorn would die of the first one before anything is cleaned up."""
        yield


class Ending:
    """How the daemon ends. The first signal drains, the second one forces.

    Draining: new requests get 503, running answers may finish within the drain time, then every
    engine is stopped, which cuts what is left. The listener stays open until then, so that
    clients are told instead of refused.
    """

    def __init__(self, server: uvicorn.Server, pool: Pool, drain_seconds: float) -> None:
        self._server = server
        self._pool = pool
        self._drain_seconds = drain_seconds
        self._task: asyncio.Task[None] | None = None
        self._forced = False

    def listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.begin)

    def begin(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        elif not self._forced:
            self._forced = True
            log.warning("Ending now.")
            self._task.cancel()
            self._task = asyncio.create_task(self._stop(grace_seconds=0.0))

    async def finished(self) -> None:
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    async def _drain(self) -> None:
        if self._pool.busy:
            log.info(
                "Ending: running answers get %g s; press Ctrl-C again to end now.",
                self._drain_seconds,
            )
        else:
            log.info("Ending.")
        self._pool.close()
        try:
            async with asyncio.timeout(self._drain_seconds):
                await self._pool.drained()
        except TimeoutError:
            log.warning("Answers still running after %g s are cut.", self._drain_seconds)
        await self._stop(STOP_GRACE_SECONDS)

    async def _stop(self, grace_seconds: float) -> None:
        try:
            await self._pool.stop_all(grace_seconds)
        finally:
            self._server.force_exit = self._forced
            self._server.should_exit = True
