"""Read a file without ever waiting for it: only regular files, checked after opening."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Self

FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class RegularFile:
    """One that is open: `with RegularFile(path) as file: file.read(0, 8)`.

    A FIFO that took the file's place after it was listed would block a plain `open`; and Python's
    file objects cost more than the few reads that a header needs.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """

    __slots__ = ("_descriptor", "size")

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, FLAGS)
        status = os.fstat(self._descriptor)
        self.size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            os.close(self._descriptor)
            raise OSError(f"{path.name} is not a regular file")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def read(self, position: int, count: int) -> bytes:
        """Up to `count` bytes; none at the end of the file."""
        return os.pread(self._descriptor, count, position)


def read_start(path: Path, count: int) -> tuple[bytes, int]:
    """Up to `count` first bytes, and the size of the file."""
    with RegularFile(path) as file:
        return file.read(0, min(file.size, count)), file.size


def read_bounded(path: Path, limit: int) -> bytes:
    """The whole file.

    Raises:
        OSError: it cannot be read.
        ValueError: it has more than `limit` bytes.
    """
    pieces: list[bytes] = []
    position = 0
    with RegularFile(path) as file:
        # One byte more than it has: less than was asked for is then all of it.
        count = min(max(file.size + 1, 1 << 12), 1 << 20)
        while position <= limit and (more := file.read(position, count)):
            pieces.append(more)
            position += len(more)
            if len(more) < count and position >= file.size:
                break
    if position > limit:
        raise ValueError(f"it is larger than {limit >> 20} MiB")
    return b"".join(pieces)
