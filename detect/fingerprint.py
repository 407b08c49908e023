"""Whether a model is still the one that was looked at, by what the file system says of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from detect.types import ModelInfo, WeightFormat

Fingerprint = tuple[tuple[str, int, int, int], ...]
"""Path, size, nanosecond of the last change and inode of every file."""


def fingerprint(info: ModelInfo) -> Fingerprint:
    """Of a GGUF the files that it names, which may have strangers beside them; of other formats
    all files of the folder. Never raises: a file that is gone has no part in it."""
    return tuple(sorted(_facts(info)))


def _facts(info: ModelInfo) -> Iterator[tuple[str, int, int, int]]:
    for path in _paths(info):
        try:
            status = os.stat(path)
        except OSError:
            continue
        yield str(path), status.st_size, status.st_mtime_ns, status.st_ino


def _paths(info: ModelInfo) -> list[Path]:
    named = [*info.files, *([info.mmproj] if info.mmproj else [])]
    if info.format is WeightFormat.GGUF or not info.path.is_dir():
        return named
    try:
        beside = [info.path / name for name in os.listdir(info.path) if not name.startswith(".")]
    except OSError:
        return named
    return list({*named, *(path for path in beside if path.is_file())})
