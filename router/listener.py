"""What says that something in a folder may have changed: events, or a look from time to time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
from watchfiles import awatch

log = logging.getLogger("router")

GATHER_MILLISECONDS = 500
"""Longest time in which changes are gathered: a download changes something all the time."""

QUIET_MILLISECONDS = 50
"""What follows within this time is gathered, too."""

POLL_MILLISECONDS = 500

REMOTE = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afpfs", "webdav", "9p", "virtiofs", "vboxsf",
     "prl_fs", "afs", "ceph", "glusterfs", "osxfuse", "macfuse", "sshfs", "fuse"}
)  # fmt: skip
"""File systems that may be written to elsewhere, of which no event tells."""


class Listener:
    """`what` names the folders in a sentence; `deep` ones are listened to with all below them.
    To look at what is in one that is not must be cheap."""

    def __init__(
        self,
        what: str,
        folders: Sequence[Path],
        *,
        deep: bool = True,
    ) -> None:
        self._what = what
        self._folders = folders
        self._deep = deep
        self._told = ""

    async def listen(self, changed: Callable[[], None]) -> None:
        """Polls from the start where it must, and otherwise once events cannot be had. Does not
        end, unless there is nothing to listen to."""
        polling = any(is_remote(folder) for folder in self._folders)
        while self._folders:
            try:
                await self._listen_until_lost(changed, polling)
            except Exception as error:
                self._tell(str(error))
            await asyncio.sleep(POLL_MILLISECONDS / 1000)
            polling = True

    async def _listen_until_lost(self, changed: Callable[[], None], polling: bool) -> None:
        # Polls see whole seconds only: what is cheap to look at is looked at every time.
        always = polling and not self._deep
        changes = awatch(
            *self._folders,
            watch_filter=None,
            debounce=GATHER_MILLISECONDS,
            step=QUIET_MILLISECONDS,
            force_polling=polling or None,
            poll_delay_ms=POLL_MILLISECONDS,
            recursive=self._deep,
            yield_on_timeout=always,
            rust_timeout=POLL_MILLISECONDS if always else None,
            ignore_permission_denied=True,
        )
        async for _ in changes:
            changed()

    def _tell(self, reason: str) -> None:
        """Once: what goes wrong now goes wrong at every try."""
        if reason != self._told:
            log.warning("%s: looked at from time to time only: %s", self._what, reason)
        self._told = reason


def is_remote(folder: Path) -> bool:
    """Whether the file system is one of those; of the mount that the folder is below."""
    real = folder.resolve()
    mounts = [m for m in psutil.disk_partitions(all=True) if real.is_relative_to(m.mountpoint)]
    # Of several at one place the last is seen: an automounter's own is below what it mounts.
    nearest = max(reversed(mounts), key=lambda mount: len(mount.mountpoint), default=None)
    kind = nearest.fstype.lower() if nearest else ""
    return kind in REMOTE or kind.startswith("fuse.")
