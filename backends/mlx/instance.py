"""A model of the in-process engine as an `Instance`."""

from __future__ import annotations

import asyncio
import logging
import os
import time

from backends.base import (
    InstanceOptions,
    InstanceState,
    InstanceStatus,
    Lifecycle,
    Receive,
    Scope,
    Send,
)
from backends.errors import (
    BadRequestError,
    EngineBusyError,
    EngineError,
    EngineGoneError,
    EngineSilentError,
    EngineStartError,
)
from backends.mlx import library
from backends.mlx.embedder import Embedder
from backends.mlx.engine import Engine
from backends.start_failure import start_failure

log = logging.getLogger("router.engine")


class MLXInstance:
    """Ready means that it has generated a token, or made a vector. Concurrent callers of
    `ensure_ready` share one load, and one that gives up does not end it for the others."""

    def __init__(self, model: str, engine: Engine | Embedder, options: InstanceOptions) -> None:
        self.model = model
        self._engine = engine
        self._handlers = engine.handlers()
        self._options = options
        self._life = Lifecycle()
        self._loading: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._failed = asyncio.Event()
        self._load_seconds: float | None = None
        self._words: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<mlx {self.model} {self._life!r}>"

    def status(self) -> InstanceStatus:
        return InstanceStatus(
            model=self.model,
            engine="mlx",
            version=library.version(),
            state=self._life.state,
            reason=self._life.reason,
            pid=os.getpid(),
            load_seconds=self._load_seconds,
            last_words=self._words,
            prefix_cache=self._engine.prefix_cache,
        )

    def used_bytes(self) -> int | None:
        return self._engine.used_bytes

    async def ensure_ready(self) -> None:
        if self._life.state is InstanceState.READY:
            return
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(self._load())
        await asyncio.shield(self._loading)

    async def stop(self, grace_seconds: float) -> None:
        await asyncio.shield(self._stop())

    async def wait_failed(self) -> None:
        """A failed step is mended in place; one that does not come back is the end."""
        await self._failed.wait()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._life.state is InstanceState.FAILED:
            raise EngineGoneError(self._life.reason, engine="mlx", model=self.model)
        if self._life.state is not InstanceState.READY:
            raise EngineBusyError(
                f"{self.model} is {self._life.state}; ask again.", engine="mlx", model=self.model
            )
        handler = self._handlers.get(scope["path"])
        if handler is None:
            raise BadRequestError(f"The mlx engine does not serve {scope['path']}.", engine="mlx")
        await handler(receive, send)

    async def _load(self) -> None:
        began = time.monotonic()
        self._life.to(InstanceState.STARTING)
        self._failed.clear()
        try:
            async with asyncio.timeout(self._options.start_timeout_seconds):
                await self._engine.load()
                await self._engine.prove()
        except BaseException as error:
            await self._close()
            failure = self._start_error(error)
            if self._life.state is InstanceState.STARTING:
                self._life.to(InstanceState.FAILED, str(failure))
            raise failure from error
        self._load_seconds = time.monotonic() - began
        self._life.to(InstanceState.READY)
        self._watch = asyncio.create_task(self._watch_engine())

    async def _watch_engine(self) -> None:
        """The thread cannot be ended, so all that is left is to tell those who wait for it."""
        error = await self._engine.stuck()
        if self._life.state is InstanceState.READY:
            self._life.to(InstanceState.FAILED, error.message.rstrip("."))
            self._engine.fail(error)
            self._failed.set()

    async def _stop(self) -> None:
        if self._life.state is InstanceState.STOPPED:
            return
        if self._life.state is not InstanceState.STOPPING:
            self._life.to(InstanceState.STOPPING)
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()
            await asyncio.wait([self._loading])
        if self._watch is not None:
            self._watch.cancel()
        await self._close()
        if self._life.state is InstanceState.STOPPING:
            self._life.to(InstanceState.STOPPED)

    async def _close(self) -> None:
        try:
            await self._engine.close()
        except EngineSilentError:
            log.error("%s: mlx is stuck, so that its memory is not given back", self.model)

    def _start_error(self, error: BaseException) -> BaseException:
        """mlx-lm's own words go to the log: they name paths, and nobody understands them."""
        if isinstance(error, asyncio.CancelledError | EngineError):
            return error
        if isinstance(error, TimeoutError):
            seconds = self._options.start_timeout_seconds
            return EngineStartError(
                f"mlx was not ready after {seconds:g} s.", engine="mlx", model=self.model
            )
        self._words = (f"{type(error).__name__}: {error}",)
        return start_failure(
            "could not load the model", engine="mlx", model=self.model, words=self._words
        )
