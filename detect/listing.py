"""One listed folder: what is a readable file in it, what is a folder, what is neither and why.

Looks at nothing but directory entries; never opens, never waits, never leaves the roots.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from operator import attrgetter
from pathlib import Path

from msgspec import Struct, field

from detect.types import Skipped

MAX_ENTRIES = 50_000
IGNORED_NAMES = frozenset({"__MACOSX", "CACHEDIR.TAG"})
NAME = attrgetter("name")


class Entry(Struct, frozen=True, gc=False):
    """A file or folder, symbolic links followed. `identity` is device and inode."""

    name: str
    path: Path
    size_bytes: int
    changed_ns: int
    identity: tuple[int, int]


class Listing(Struct, frozen=True, kw_only=True):
    """`dangling` are links whose target is missing: files that were not downloaded."""

    folder: Path
    files: Mapping[str, Entry] = field(default_factory=dict)
    folders: Mapping[str, Entry] = field(default_factory=dict)
    dangling: frozenset[str] = frozenset()
    skipped: tuple[Skipped, ...] = ()


def list_folder(folder: Path, roots: Sequence[Path]) -> Listing:
    """The folder's content, sorted by name. `roots` are resolved; links must end below one."""
    files: dict[str, Entry] = {}
    folders: dict[str, Entry] = {}
    dangling: set[str] = set()
    skipped: list[Skipped] = []
    for found in _entries(folder, skipped):
        entry = _examine(found, folder, roots)
        if entry is None:
            dangling.add(found.name)
        elif isinstance(entry, Skipped):
            skipped.append(entry)
        else:
            (folders if _is_folder(found) else files)[entry.name] = entry
    return Listing(
        folder=folder,
        files=files,
        folders=folders,
        dangling=frozenset(dangling),
        skipped=tuple(skipped),
    )


def _entries(folder: Path, skipped: list[Skipped]) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as scanned:
            entries = list(islice(scanned, MAX_ENTRIES + 1))
    except OSError as error:
        skipped.append(Skipped(folder, "unreadable", f"It cannot be read: {error.strerror}."))
        return
    if len(entries) > MAX_ENTRIES:
        what = f"It has more than {MAX_ENTRIES:,} entries; only the first were looked at."
        skipped.append(Skipped(folder, "too_many", what))
    for entry in sorted(entries[:MAX_ENTRIES], key=NAME):
        if entry.name[0] == "." or entry.name in IGNORED_NAMES:
            continue
        if not _is_text(entry.name):
            what = f"The name {entry.name!r} in it is not UTF-8; rename it."
            skipped.append(Skipped(folder, "unreadable", what))
            continue
        yield entry


def _examine(
    found: os.DirEntry[str], folder: Path, roots: Sequence[Path]
) -> Entry | Skipped | None:
    path = folder / found.name
    try:
        if found.is_symlink() and (reason := _link_problem(path, roots)):
            return Skipped(path, "unreadable", reason)
        status = found.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return Skipped(path, "unreadable", f"It cannot be read: {error.strerror}.")
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        return Skipped(path, "unreadable", f"It is {_special(status.st_mode)}, not a file.")
    return Entry(
        listed_name(found.name),
        path,
        status.st_size,
        status.st_mtime_ns,
        (status.st_dev, status.st_ino),
    )


def listed_name(name: str) -> str:
    """Of a file that the file system calls so."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _link_problem(path: Path, roots: Sequence[Path]) -> str:
    """Why a symbolic link is not followed; empty if it is. Raises OSError for a loop."""
    target = Path(os.path.realpath(path, strict=True))
    if any(target.is_relative_to(root) for root in roots):
        return ""
    return (
        f"It is a symbolic link to {target}, outside of the models folders. "
        "Name that folder too if it may be served."
    )


def _is_folder(found: os.DirEntry[str]) -> bool:
    try:
        return found.is_dir()
    except OSError:
        return False


def _is_text(name: str) -> bool:
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _special(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "special")
