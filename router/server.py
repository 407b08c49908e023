"""The composition root: what is built, in which order, and how it all ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from backends.base import Backend, InstanceOptions
from backends.memory import machine_memory
from router.app import create_app
from router.catalog import Catalog
from router.configuration import Configuration
from router.errors import SettingsError
from router.experience import FILE_NAME, Experience
from router.gauge import Gauge
from router.log import set_level
from router.pool import STOP_GRACE_SECONDS, Pool
from router.registry import Registry
from router.runtime import runtime_dir
from router.scheduler import Scheduler
from router.settings import Settings
from router.watch import Sources, Watch
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
    sources: Sources,
) -> None:
    """Serve until a signal says otherwise; nothing that was started is left when it returns.

    `sources` are where the settings and the models are found anew.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(runtime_dir())
        except OSError as error:
            raise SettingsError(
                f"No private folder for sockets can be made: {error.strerror} "
                f"({error.filename}). Free some space there, or set XDG_RUNTIME_DIR."
            ) from None
        runner = stack.enter_context(asyncio.Runner(loop_factory=_loop_factory()))
        runner.run(_serve(settings, registry, backends, sock, folder, sources))


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    import uvloop

    return uvloop.Loop


def tell_unforeseen(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What went wrong where nobody waits for it, to the log.

    anyio (4.16) waits for a Unix socket by a future that the loop is to resolve, and lets go of the
    socket a moment after that future was cancelled: what arrives in between is too late, and means
    nothing.
    """
    if not isinstance(context.get("exception"), asyncio.InvalidStateError):
        loop.default_exception_handler(context)


async def _serve(
    settings: Settings,
    registry: Registry,
    backends: Mapping[str, Backend],
    sock: socket.socket,
    folder: Path,
    sources: Sources,
) -> None:
    asyncio.get_running_loop().set_exception_handler(tell_unforeseen)
    configuration, catalog = Configuration(settings), Catalog(registry)
    scheduler = Scheduler(
        budget_bytes(settings),
        max_queue=settings.max_queue,
        queue_seconds=settings.queue_seconds,
        clock=time.monotonic,
    )
    experience = Experience(settings.cache_dir / FILE_NAME)
    ways = Ways(backends, instance_options(settings, folder), experience)
    async with Pool(ways, scheduler, settings.idle_seconds) as pool:
        server = _Server(_config(configuration, catalog, pool))
        watch = Watch(configuration, catalog, pool, sources, lambda new: apply(new, pool))
        ending = Ending(server, pool, configuration)
        listen_to_signals(ending, watch)
        ways.learned = watch.look_again
        pool.preload(entry for entry in registry.servable if entry.settings.preload)
        async with watch.running(), Gauge(pool).running():
            await server.serve(sockets=[sock])
        await ending.finished()


def budget_bytes(settings: Settings) -> int:
    return settings.memory.resolve(machine_memory().usable_bytes)


def instance_options(settings: Settings, folder: Path) -> InstanceOptions:
    return InstanceOptions(
        context_length=settings.context_length,
        parallel=settings.parallel,
        start_timeout_seconds=settings.start_seconds,
        patience=settings.patience,
        isolation=settings.isolation,
        prefix_bytes=settings.prefix_cache.resolve(machine_memory().usable_bytes),
        prefix_disk_bytes=settings.prefix_cache_disk,
        cache_dir=settings.cache_dir,
        kv_bits=settings.kv_bits,
        runtime_dir=folder,
    )


def apply(settings: Settings, pool: Pool) -> None:
    """Those who know no settings get their share of them; what runs is for `follow` to judge."""
    set_level(settings.log_level)
    pool.ways.options = instance_options(settings, pool.ways.options.runtime_dir)
    pool.idle_seconds = settings.idle_seconds
    pool.scheduler.budget_bytes = budget_bytes(settings)
    pool.scheduler.max_queue = settings.max_queue
    pool.scheduler.queue_seconds = settings.queue_seconds


def _config(configuration: Configuration, catalog: Catalog, pool: Pool) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(configuration, catalog, pool),
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


def await_hangups() -> None:
    """While it starts, SIGHUP does no harm: the watch begins with a look at the settings."""
    if not is_on_terminal():
        # Not SIG_IGN, which engines would inherit.
        signal.signal(signal.SIGHUP, lambda number, frame: None)


def listen_to_signals(ending: Ending, watch: Watch) -> None:
    """SIGHUP asks to look again; on a terminal that was closed, it asks to end."""
    loop = asyncio.get_running_loop()
    on_terminal = is_on_terminal()

    def hung_up() -> None:
        (ending.begin if on_terminal and not is_on_terminal() else watch.ask)()

    loop.add_signal_handler(signal.SIGHUP, hung_up)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ending.begin)


def is_on_terminal() -> bool:
    return any(os.isatty(number) for number in (0, 1, 2))


class Ending:
    """How the daemon ends. The first signal drains, the second one forces.

    Draining: new requests get 503, running answers may finish within the drain time, then every
    engine is stopped, which cuts what is left. The listener stays open until then, so that
    clients are told instead of refused.
    """

    def __init__(self, server: uvicorn.Server, pool: Pool, configuration: Configuration) -> None:
        self._server = server
        self._pool = pool
        self._configuration = configuration
        self._task: asyncio.Task[None] | None = None
        self._forced = False

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
        seconds = self._configuration.settings.drain_seconds
        if self._pool.busy:
            log.info(
                "Ending: running answers get %g s; press Ctrl-C again to end now.",
                seconds,
            )
        else:
            log.info("Ending.")
        self._pool.close()
        try:
            async with asyncio.timeout(seconds):
                await self._pool.drained()
        except TimeoutError:
            log.warning("Answers still running after %g s are cut.", seconds)
        await self._stop(STOP_GRACE_SECONDS)

    async def _stop(self, grace_seconds: float) -> None:
        try:
            await self._pool.stop_all(grace_seconds)
        finally:
            self._server.force_exit = self._forced
            self._server.should_exit = True
