"""Models that come, change and go while the daemon runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from watchfiles import awatch

from router.catalog import Catalog
from router.pool import Pool
from router.registry import ModelEntry, Registry

log = logging.getLogger("router")

Rescan = Callable[[], Registry]
"""Looks at all folders again; takes a while, and is called in a thread of its own."""

GATHER_MILLISECONDS = 500
"""Longest time in which changes are gathered: a download changes something all the time."""

POLL_MILLISECONDS = 500
SETTLING_SECONDS = 1.0
"""Until the next look at files that are still being written: that they rest is no event."""

SILENT_SECONDS = 60.0
"""Until a look without any event, should one have been lost."""

REMOTE = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afpfs", "webdav", "9p", "virtiofs", "vboxsf",
     "prl_fs", "afs", "ceph", "glusterfs", "osxfuse", "macfuse", "sshfs", "fuse"}
)  # fmt: skip
"""File systems that may be written to elsewhere, of which no event tells."""


class Watch:
    """Looks again whenever something may have changed; the only one who replaces the registry."""

    def __init__(
        self, folders: Sequence[Path], rescan: Rescan, catalog: Catalog, pool: Pool
    ) -> None:
        self._folders = folders
        self._rescan = rescan
        self._catalog = catalog
        self._pool = pool
        self._changed = asyncio.Event()
        # Of our own: the event loop would wait at its end for what its own threads still do.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rescan")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._look_again())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _listen(self) -> None:
        """Polls from the start where it must, and otherwise once events cannot be had."""
        polling = any(is_remote(folder) for folder in self._folders)
        while True:
            try:
                await self._listen_until_lost(polling)
            except Exception as error:
                log.warning("The models folders are looked at from time to time only: %s", error)
            await asyncio.sleep(POLL_MILLISECONDS / 1000)
            polling = True

    async def _listen_until_lost(self, polling: bool) -> None:
        changes = awatch(
            *self._folders,
            watch_filter=None,
            debounce=GATHER_MILLISECONDS,
            force_polling=polling or None,
            poll_delay_ms=POLL_MILLISECONDS,
            ignore_permission_denied=True,
        )
        async for _ in changes:
            self._changed.set()

    async def _look_again(self) -> None:
        # At once the first time: something may have changed before anybody listened.
        while True:
            await self._look()
            settling = any(entry.settling for entry in self._catalog.registry)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLING_SECONDS if settling else SILENT_SECONDS):
                    await self._changed.wait()
            self._changed.clear()

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._adopt(await loop.run_in_executor(self._thread, self._rescan))
        except Exception:
            # Whatever it is, the next look may be luckier: the watch goes on.
            log.exception("The models folders could not be looked at again")

    def _adopt(self, registry: Registry) -> None:
        for line in differences(self._catalog.registry, registry):
            log.info("%s", line)
        self._catalog.registry = registry
        self._pool.follow(registry)


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


def is_remote(folder: Path) -> bool:
    """Whether the file system is one of those; of the mount that the folder is below."""
    real = folder.resolve()
    mounts = [m for m in psutil.disk_partitions(all=True) if real.is_relative_to(m.mountpoint)]
    # Of several at one place the last is seen: an automounter's own is below what it mounts.
    nearest = max(reversed(mounts), key=lambda mount: len(mount.mountpoint), default=None)
    kind = nearest.fstype.lower() if nearest else ""
    return kind in REMOTE or kind.startswith("fuse.")
