"""Lists folders, and anew only those that have changed: a listing is then the same object."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from detect.listing import MAX_ENTRIES, Listing, list_folder

Looks = tuple[tuple[object, ...], ...]
"""What the file system says of every entry of a folder."""


class Lister:
    """Remembers every folder that it has listed, and how it looked before that."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[Looks, Sequence[Path], Listing]] = {}

    def __call__(self, folder: Path, roots: Sequence[Path]) -> Listing:
        """As `list_folder`."""
        looks = _look(folder)
        kept = self._kept.get(folder)
        if kept is not None and looks == kept[0] and roots == kept[1]:
            return kept[2]
        listing = list_folder(folder, roots)
        if looks is None:
            self._kept.pop(folder, None)
        else:
            # It looked so before it was listed: what changes in between is noticed next time.
            self._kept[folder] = (looks, roots, listing)
        return listing


def _look(folder: Path) -> Looks | None:
    """None for a folder that cannot be read, or has more than anybody would look at twice."""
    try:
        with os.scandir(folder) as entries:
            looks = tuple(map(_facts, islice(entries, MAX_ENTRIES + 1)))
    except OSError:
        return None
    return looks if len(looks) <= MAX_ENTRIES else None


def _facts(entry: os.DirEntry[str]) -> tuple[object, ...]:
    """`inode` is that of a link itself, the rest that of the file it leads to."""
    try:
        s = entry.stat()
    except OSError as error:
        return entry.name, entry.inode(), error.errno
    return (
        entry.name, entry.inode(), s.st_dev, s.st_ino, s.st_mode, s.st_size, s.st_mtime_ns,
        s.st_ctime_ns,
    )  # fmt: skip
