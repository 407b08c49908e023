"""Open a file without ever waiting for it: only regular files, checked after opening."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: Path) -> BinaryIO:
    """The file, opened unbuffered.

    A FIFO that took the file's place after it was listed would block a plain `open`.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path.name} is not a regular file")
    return os.fdopen(descriptor, "rb", buffering=0)


def read_start(path: Path, count: int) -> tuple[bytes, int]:
    """Up to `count` first bytes, and the size of the file."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        return file.read(min(size, count)) or b"", size


def read_bounded(path: Path, limit: int) -> bytes:
    """The whole file.

    Raises:
        OSError: it cannot be read.
        ValueError: it has more than `limit` bytes.
    """
    content = bytearray()
    with open_regular(path) as file:
        piece = min(max(os.fstat(file.fileno()).st_size, 1 << 12), 1 << 20)
        while len(content) <= limit and (more := file.read(piece)):
            content += more
    if len(content) > limit:
        raise ValueError(f"it is larger than {limit >> 20} MiB")
    return bytes(content)
