"""An instance whose engine is a child process with an HTTP server of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil

from backends import memory
from backends.base import (
    InstanceOptions,
    InstanceState,
    InstanceStatus,
    Lifecycle,
    Receive,
    Scope,
    Send,
)
from backends.child import Child
from backends.errors import (
    EngineBusyError,
    EngineError,
    EngineGoneError,
    EngineMissingError,
    EngineStartError,
)
from backends.guard import CANNOT_RUN
from backends.proxy import Endpoint, Proxy, TcpEndpoint, UnixEndpoint
from backends.pulse import Pulse, computed_seconds
from backends.start_failure import start_failure
from backends.wire.app import Health

log = logging.getLogger("router.engine")

POLL_SHARE = 0.02
"""Of the time since the start: so much longer a load may take because it was not looked at."""

LEAST_POLL_SECONDS, MOST_POLL_SECONDS = 0.004, 0.1
PORT_TRIES = 3
LAST_WORDS_SECONDS = 1.0
"""For one that closes its connection to print why, and to end."""

HEALTH_SECONDS = 1.0
HEALTH = msgspec.json.Decoder(Health)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How one engine is run as a server, and how it shows that it works.

    `command` gives the argument vector for an endpoint; `unix` says which kind the engine can
    listen on; `folder` is its working directory. `canary` is a request that makes it generate one
    token. `tells` is for one that answers with `backends.wire.app.Health` when asked for it.
    """

    engine: str
    version: str | None
    command: Callable[[Endpoint], list[str]]
    unix: bool = True
    folder: Path | None = None
    health_path: str = "/health"
    canary_path: str = "/v1/completions"
    canary: dict[str, Any]
    tells: bool = False


class ServedByChild:
    """One model served by one child process; an `Instance`.

    Ready means that it has generated a token. Concurrent callers of `ensure_ready` share one
    start, and one that gives up does not end it for the others. A failed instance can be
    started again.
    """

    def __init__(self, model: str, service: Service, options: InstanceOptions) -> None:
        self.model = model
        self._service = service
        self._options = options
        self._life = Lifecycle()
        self._child: Child | None = None
        self._proxy: Proxy | None = None
        self._start: asyncio.Task[None] | None = None
        self._watches: list[asyncio.Task[None]] = []
        self._pulse = Pulse()
        self._health = Health()
        self._failed = asyncio.Event()
        self._load_seconds: float | None = None
        self._words: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<{self._service.engine} {self.model} {self._life!r}>"

    def status(self) -> InstanceStatus:
        child = self._child
        pid = child.pid if child and child.running else None
        return InstanceStatus(
            model=self.model,
            engine=self._service.engine,
            version=self._service.version,
            state=self._life.state,
            reason=self._life.reason,
            pid=pid,
            load_seconds=self._load_seconds,
            last_words=child.last_words() if child else self._words,
            prefix_cache=self._health.prefix_cache,
        )

    def used_bytes(self) -> int | None:
        child = self._child
        return memory.used_bytes(child.pid) if child and child.running else None

    async def ensure_ready(self) -> None:
        if self._life.state is InstanceState.READY:
            return
        if self._life.state is InstanceState.STOPPING:
            raise self._busy()
        if self._start is None or self._start.done():
            self._start = asyncio.create_task(self._bring_up())
        start = self._start
        try:
            await asyncio.shield(start)
        except asyncio.CancelledError:
            if start.cancelled() and not _being_cancelled():
                raise self._busy() from None
            raise

    async def wait_failed(self) -> None:
        await self._failed.wait()

    async def stop(self, grace_seconds: float) -> None:
        await asyncio.shield(self._stop(grace_seconds))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        proxy = self._proxy
        if proxy is None or self._life.state is not InstanceState.READY:
            raise self._death()
        with self._pulse.request(send) as heard:
            await proxy(scope, receive, heard)

    # Starting

    async def _bring_up(self) -> None:
        began = time.monotonic()
        self._life.to(InstanceState.STARTING)
        self._failed.clear()
        try:
            async with asyncio.timeout(self._options.start_timeout_seconds):
                await self._clear(0.0)
                await self._start_child()
                await self._prove()
        except BaseException as error:
            status = await self._clear(0.0)
            failure = self._start_error(error, status)
            if self._life.state is InstanceState.STARTING:
                self._life.to(InstanceState.FAILED, str(failure))
            if failure is error:
                raise
            raise failure from error
        assert self._child is not None
        self._load_seconds = time.monotonic() - began
        self._life.to(InstanceState.READY)
        self._watches = [
            asyncio.create_task(self._watch_child(self._child)),
            asyncio.create_task(self._watch_pulse(self._child)),
            *([asyncio.create_task(self._watch_health())] if self._service.tells else []),
        ]

    async def _start_child(self) -> None:
        for attempt in range(PORT_TRIES):
            endpoint = self._endpoint()
            self._child = await self._spawn(endpoint)
            self._proxy = Proxy(
                endpoint,
                engine=self._service.engine,
                model=self.model,
                patience=self._options.patience,
            )
            if await self._listens(endpoint):
                return
            log.warning("%s: its port was taken by another program", self.model)
            await self._clear(0.0)
            if attempt + 1 == PORT_TRIES:
                raise self._error("did not get a port of its own")

    async def _spawn(self, endpoint: Endpoint) -> Child:
        # It may ask a binary for its flags, which takes as long as it likes.
        argv = await asyncio.to_thread(self._service.command, endpoint)
        return await Child.spawn(
            argv,
            folder=self._service.folder,
            on_line=lambda line: log.debug("%s | %s", self.model, line),
        )

    async def _listens(self, endpoint: Endpoint) -> bool:
        """Wait for its health; False when what answers there is not our process."""
        assert self._child is not None
        began = time.monotonic()
        while self._child.running:
            if not await self._is_ours(endpoint):
                return False
            if await self._is_healthy(endpoint):
                return True
            pause = POLL_SHARE * (time.monotonic() - began)
            pause = min(max(pause, LEAST_POLL_SECONDS), MOST_POLL_SECONDS)
            await asyncio.wait([self._child.exited], timeout=pause)
        raise _RefusedError("ended while it loaded the model")

    async def _is_healthy(self, endpoint: Endpoint) -> bool:
        assert self._proxy is not None
        if isinstance(endpoint, UnixEndpoint) and not endpoint.socket.exists():
            return False  # asked often, and told without a request
        with contextlib.suppress(httpx.TransportError):
            status, _ = await self._proxy.fetch("GET", self._service.health_path)
            return status == 200
        return False

    async def _is_ours(self, endpoint: Endpoint) -> bool:
        """A Unix socket in our private folder is ours, a port that nobody answers may become it.

        Asked before a word is said, because a stranger may listen and never answer.
        """
        if isinstance(endpoint, UnixEndpoint) or not await _answers(endpoint.port):
            return True
        assert self._child is not None
        try:
            guard = psutil.Process(self._child.pid)
            family = [guard, *guard.children(recursive=True)]
            return any(_listens_on(process, endpoint.port) for process in family)
        except psutil.Error:
            return False

    async def _prove(self) -> None:
        """One generated token: a green health check proves nothing."""
        assert self._child is not None and self._proxy is not None
        body = json.dumps(self._service.canary).encode()
        asking = asyncio.create_task(self._proxy.fetch("POST", self._service.canary_path, body))
        try:
            either: list[asyncio.Future[Any]] = [asking, self._child.exited]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise _RefusedError("ended at its first token")
            status, answer = asking.result()
        except httpx.TransportError as error:
            await asyncio.wait([self._child.exited], timeout=LAST_WORDS_SECONDS)
            raise _RefusedError("ended at its first token") from error
        finally:
            asking.cancel()
        if status != 200:
            log.warning("%s: canary: %s", self.model, answer[:500].decode("utf-8", "replace"))
            raise _RefusedError(
                f"loaded the model and could not generate a token (status {status})"
            )

    def _endpoint(self) -> Endpoint:
        if self._service.unix:
            return UnixEndpoint(self._options.runtime_dir / f"{secrets.token_hex(4)}.sock")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return TcpEndpoint(probe.getsockname()[1])

    # Ending

    async def _watch_child(self, child: Child) -> None:
        status = await asyncio.shield(child.exited)
        self._fail(f"it ended with status {status}")

    async def _watch_pulse(self, child: Child) -> None:
        """One that has deadlocked is ended, which fails its requests."""
        computed = partial(computed_seconds, child.pid)
        silent = await self._pulse.lost(self._options.patience, computed)
        self._fail(f"it did nothing for {silent:.0f} s with requests to answer")
        await child.stop(0.0)

    async def _watch_health(self) -> None:
        """What it tells of itself; what is no such thing leaves the last one standing."""
        while self._proxy is not None:
            with contextlib.suppress(httpx.HTTPError, EngineError, msgspec.MsgspecError):
                _, body = await self._proxy.fetch("GET", self._service.health_path)
                self._health = HEALTH.decode(body)
            await asyncio.sleep(HEALTH_SECONDS)

    def _fail(self, reason: str) -> None:
        if self._life.state is InstanceState.READY:
            self._life.to(InstanceState.FAILED, reason)
            self._failed.set()

    async def _stop(self, grace_seconds: float) -> None:
        if self._life.state is InstanceState.STOPPED:
            return
        if self._life.state is not InstanceState.STOPPING:
            self._life.to(InstanceState.STOPPING)
        if self._start is not None and not self._start.done():
            self._start.cancel()
            await asyncio.wait([self._start])
        await self._clear(grace_seconds)
        if self._life.state is InstanceState.STOPPING:
            self._life.to(InstanceState.STOPPED)

    async def _clear(self, grace_seconds: float) -> int | None:
        """End the process and everything that belongs to it. A second call may be less patient.

        Returns the status that it had ended with before.
        """
        child, proxy = self._child, self._proxy
        for watch in self._watches:
            watch.cancel()
        self._health = Health()
        status = None if child is None or child.running else child.exited.result()
        if child is not None:
            await child.stop(grace_seconds)
            self._words = child.last_words()
        if proxy is not None:
            await proxy.aclose()
        if self._child is child:
            self._child = self._proxy = None
        return status

    # Errors

    def _error(self, what: str) -> EngineStartError:
        return EngineStartError(
            f"{self._service.engine} {what}.",
            engine=self._service.engine,
            model=self.model,
            last_words=self._words,
        )

    def _start_error(self, error: BaseException, status: int | None) -> BaseException:
        engine, words = self._service.engine, self._words
        match error:
            case _RefusedError() if status == CANNOT_RUN:
                why = words[-1] if words else "its program cannot be run"
                return EngineMissingError(
                    f"{engine} could not be started: {why}.",
                    engine=engine,
                    model=self.model,
                    last_words=words,
                )
            case _RefusedError():
                return start_failure(
                    str(error), engine=engine, model=self.model, words=words, status=status
                )
            case TimeoutError():
                seconds = self._options.start_timeout_seconds
                return self._error(f"was not ready after {seconds:g} s")
            case OSError():
                return EngineMissingError(
                    f"{engine} could not be started: {error.strerror or error}.",
                    engine=engine,
                    model=self.model,
                )
            case EngineError():
                error.last_words = words
        return error

    def _busy(self) -> EngineBusyError:
        return EngineBusyError(
            f"{self._service.engine} is being stopped with {self.model}; ask again.",
            engine=self._service.engine,
            model=self.model,
        )

    def _death(self) -> EngineError:
        return EngineGoneError(
            f"{self._service.engine} is not running with {self.model} any more; ask again.",
            engine=self._service.engine,
            model=self.model,
            last_words=self._words,
        )


class _RefusedError(Exception):
    """What the engine did with the model; its last words are known once it is cleared away."""


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def _listens_on(process: psutil.Process, port: int) -> bool:
    try:
        connections = process.net_connections("tcp")
    except psutil.Error:
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)
