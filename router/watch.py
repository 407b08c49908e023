"""Models and settings that change while the daemon runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.catalog import Catalog
from router.configuration import Configuration
from router.entry import ModelEntry
from router.errors import SettingsError
from router.known_file import KnownFile
from router.listener import Listener
from router.pool import Pool
from router.registry import Registry
from router.reload import absent_models, honoured, news, to_preload, unknown_models
from router.settings import Settings

log = logging.getLogger("router")

SETTLING_SECONDS = 1.0
"""Until the next look at files that are still being written: that they rest is no event."""

SILENT_SECONDS = 60.0
"""Until a look without any event, should one have been lost."""


Folders = tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Sources:
    """Both take a while, and are called in a thread of their own.

    `read` reads the settings again, or raises SettingsError; `rescan` looks at all folders.
    """

    read: Callable[[], Settings]
    rescan: Callable[[Settings], Registry]


class Watch:
    """Looks again whenever something may have changed; the only one who replaces the registry and
    the settings. `apply` is told of new settings, for those who hold values of their own."""

    def __init__(
        self,
        configuration: Configuration,
        catalog: Catalog,
        pool: Pool,
        sources: Sources,
        apply: Callable[[Settings], None],
    ) -> None:
        self._configuration = configuration
        self._catalog = catalog
        self._pool = pool
        self._sources = sources
        self._apply = apply
        self._file = KnownFile(configuration.settings.config)
        self._asked = False
        self._changed = asyncio.Event()
        self._heard: tuple[Folders, Folders] = ((), ())
        self._listening: list[asyncio.Task[Any]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        # Of our own: the event loop would wait at its end for what its own threads still do.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rescan")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._listen()
        self._spawn(self._look_again())
        try:
            yield
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._thread.shutdown(wait=False, cancel_futures=True)

    def ask(self) -> None:
        """Look again at everything, whether it seems to have changed or not."""
        if self._file.path is None:
            log.info("There is no --config file to read again; looking through the folders.")
        self._asked = True
        self._changed.set()

    def look_again(self) -> None:
        """Something else than files has changed what is known of the models."""
        self._changed.set()

    # What may have changed

    def _listen(self) -> None:
        """Where the settings of now say, and no more where those before said."""
        settings = self._configuration.settings
        heard = (settings.models_dir, self._file.folders) if settings.watch else ((), ())
        if heard == self._heard:
            return
        self._heard = heard
        for task in self._listening:
            task.cancel()
        models, options = heard
        saved = Listener("--config", options, deep=False)
        self._listening = [
            self._spawn(Listener("The models folders", models).listen(self._changed.set)),
            self._spawn(saved.listen(self._look_at_file)),
        ]
        # Something may have changed before anybody listened.
        self._changed.set()

    def _look_at_file(self) -> None:
        if self._file.changed():
            self._changed.set()

    async def _look_again(self) -> None:
        while True:
            await self._rest()
            self._changed.clear()
            await asyncio.sleep(0)  # who listens from now on begins before the look
            await self._look()

    async def _rest(self) -> None:
        """Until something may have changed. Without events, nothing is looked for either."""
        settling = any(entry.settling for entry in self._catalog.registry)
        silent = SETTLING_SECONDS if settling else SILENT_SECONDS
        watching = self._configuration.settings.watch
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(silent if watching else None):
                await self._changed.wait()

    # A look

    async def _look(self) -> None:
        asked, self._asked = self._asked, False
        loop = asyncio.get_running_loop()
        now = self._configuration.settings
        try:
            seen = await loop.run_in_executor(self._thread, self._see, now, asked)
            self._adopt(*seen, asked)
        except SettingsError as error:
            log.error("The settings stay as they are: %s", error)
            self._changed.set()  # the folders have not been looked at
        except Exception:
            # Whatever it is, the next look may be luckier: the watch goes on.
            log.exception("The models folders could not be looked at again")
            self._asked = self._asked or asked
            self._file.forget()

    def _see(self, now: Settings, asked: bool) -> tuple[Settings, Registry]:
        wanted = now
        if self._file.path is not None and (asked or (now.watch and self._file.changed())):
            self._file.look()
            wanted = self._sources.read()
        return wanted, self._sources.rescan(wanted)

    def _adopt(self, wanted: Settings, registry: Registry, asked: bool) -> None:
        """In one step, so that nobody sees new settings with old models."""
        now, before = self._configuration.settings, self._catalog.registry
        read_again = wanted is not now
        if read_again:
            self._configuration.settings = honoured(now, wanted)
            self._apply(self._configuration.settings)
            _tell(now, wanted, registry, asked)
        for line in differences(before, registry):
            log.info("%s", line)
        self._catalog.registry = registry
        retired = self._pool.follow(registry)
        if read_again:
            self._pool.preload(to_preload(before, registry, retired))
            self._listen()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _tell(now: Settings, wanted: Settings, registry: Registry, asked: bool) -> None:
    told = news(now, wanted)
    if asked and not told:
        log.info("Settings read again; nothing changed.")
    for sentence in told:
        log.info("%s", sentence)
    if told:
        for sentence in (*unknown_models(wanted, registry), *absent_models(wanted, registry)):
            log.warning("%s", sentence)


def differences(old: Registry, new: Registry) -> list[str]:
    """What a user would want to know, one line per model."""
    lines = [f"{e.id}: removed" for e in old if new.by_id(e.id) is None]
    for entry in new:
        before = old.by_id(entry.id)
        if before is None:
            lines.append(f"{entry.id}: found, {_state(entry)}")
        elif not entry.runs_like(before) or _state(entry) != _state(before):
            lines.append(f"{entry.id}: changed, {_state(entry)}")
    return lines


def _state(entry: ModelEntry) -> str:
    if entry.choice.engine is not None:
        return f"for {entry.choice.engine}"
    problem = entry.info.fatal_problem
    return problem.message if problem else "and no engine here can run it"
