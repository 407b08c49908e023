"""The private folder of one daemon, for the sockets of its engines."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

PREFIX = "router-"
OWNER = "pid"


@contextlib.contextmanager
def runtime_dir() -> Iterator[Path]:
    """A folder for this process alone (0700), short enough for a socket's path, removed
    afterwards. What daemons left behind that were killed is removed, too."""
    base = _base()
    sweep(base)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    (folder / OWNER).write_text(str(os.getpid()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _base() -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR") if sys.platform == "linux" else None
    return Path(base if base and os.access(base, os.W_OK) else "/tmp")


def sweep(base: Path) -> None:
    """Remove our own folders in `base` whose daemon is dead."""
    for folder in base.glob(f"{PREFIX}*"):
        if _is_left_behind(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_left_behind(folder: Path) -> bool:
    try:
        ours = folder.lstat().st_uid == os.getuid() and not folder.is_symlink()
        return ours and not psutil.pid_exists(int((folder / OWNER).read_text()))
    except (OSError, ValueError, OverflowError):
        return False
