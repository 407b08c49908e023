"""From a model's name to an engine that is asked under a lease: the way of every request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from backends.asgi import disconnected
from backends.base import Instance, Receive
from backends.errors import EngineGoneError
from backends.wire.features import unsupported
from detect.types import ModelInfo, Role
from router.api.body import Asked
from router.api.task import CHAT
from router.catalog import Catalog
from router.configuration import Configuration
from router.entry import ModelEntry
from router.errors import InvalidRequestError
from router.pool import Pool
from router.registry import Registry

NOTICED_SECONDS = 5.0
"""Longest time until the end of a dead engine is known: as long as its guard may take."""

Ask = Callable[[ModelEntry, Instance], Awaitable[None]]
"""Puts the question to the engine and passes its answer on. Called again if the engine turns out
to be gone before its first byte."""

Telling = Callable[[Callable[[], str]], AbstractAsyncContextManager[None]]
"""A block that tells the client, from time to time, what the function says."""


Check = Callable[[ModelEntry, Registry], None]
"""Whether what is asked for can be had of a model, which may be one that nothing runs.

Raises InvalidRequestError or UnsupportedError.
"""


def writes_text(entry: ModelEntry, registry: Registry) -> None:
    CHAT.check(entry, registry)


def tell_nobody(state: Callable[[], str]) -> AbstractAsyncContextManager[None]:
    return contextlib.nullcontext()


class Admission:
    """One frame owns the lease, so that disconnect, cancellation, crash and success all leave
    through the same `async with`."""

    def __init__(self, configuration: Configuration, catalog: Catalog, pool: Pool) -> None:
        self.configuration = configuration
        self.catalog = catalog
        self.pool = pool

    async def answer(
        self,
        request: Asked,
        receive: Receive,
        ask: Ask,
        telling: Telling = tell_nobody,
        check: Check = writes_text,
    ) -> None:
        """Have `ask` done with the instance of the model that `request` names, unless `check`
        objects to the model; `telling` is around the wait for it.

        Raises:
            RouterError, EngineError: refused, not loaded, or failed while it answered. A request
                for what its engine lacks is one.
            ClientGoneError: the client left while it waited.
        """
        try:
            await self._answer(request, receive, ask, telling, check)
        except EngineGoneError:
            # It had died unnoticed, and knows nothing of this request: another one is started.
            await self._answer(request, receive, ask, telling, check)

    def let_go(self, request: Asked) -> None:
        """Have the model that `request` names leave when nobody uses it; nothing is loaded.

        Raises:
            UnknownModelError: there is none of that name.
        """
        self.pool.keep(self._named(request.model), request.keep_alive)

    def _named(self, name: str) -> ModelEntry:
        default = self.configuration.settings.default_model
        return self.catalog.registry.find_or(default, name)

    async def _answer(
        self, request: Asked, receive: Receive, ask: Ask, telling: Telling, check: Check
    ) -> None:
        named = self._named(request.model)
        check(named, self.catalog.registry)
        entry = self.catalog.registry.resolve(named.id)
        _check_sight(entry, request)
        self._check_features(entry, request)
        async with contextlib.AsyncExitStack() as stack:
            lease = self.pool.lease(entry, lambda: disconnected(receive), request.keep_alive)
            async with telling(partial(self.pool.progress, entry.id)):
                instance = await stack.enter_async_context(lease)
            try:
                await ask(entry, instance)
            except EngineGoneError:
                if not self.pool.scheduler.closed:
                    # The pool, which waits for the same, is told before us.
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(instance.wait_failed(), NOTICED_SECONDS)
                raise

    def _check_features(self, entry: ModelEntry, request: Asked) -> None:
        """Before anything is loaded for nothing. An engine that does not tell judges itself."""
        engine = self.pool.ways.way(entry).choice.engine
        has = None if engine is None else self.pool.ways.backends[engine].honoured()
        if engine is None or has is None or not (lacking := request.features - has):
            return
        raise unsupported(min(lacking), engine)


def _check_sight(entry: ModelEntry, request: Asked) -> None:
    """llama.cpp calls it a failure of its own, after the model was loaded for nothing."""
    if request.picture is None or may_see(entry.info):
        return
    raise InvalidRequestError(
        f"{request.picture}: {entry.id} reads text only and cannot see pictures. Leave them out, "
        "or take a model with vision.",
        param=request.picture,
    )


def may_see(info: ModelInfo) -> bool:
    """The engine itself refuses where it is the one that cannot."""
    return info.mmproj is not None or info.role is Role.VISION
