"""Downloads that are going on or were broken off, by what the file system says."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence

from detect.listing import Entry, Listing
from detect.types import ModelInfo, Problem, Skipped

SETTLING_SECONDS = 5.0

PARTIAL_SUFFIXES = (".part", ".aria2", ".crdownload", ".download", ".incomplete", ".partial")
PARTIAL_PREFIXES = ("incomplete-", "downloading_")
SPLIT_PARTS = (".gguf.part", ".gguf-split-")

Clock = Callable[[], float]
"""Seconds since the epoch, as files are dated."""


def partials(listing: Listing) -> Iterator[Skipped]:
    for name, entry in listing.files.items():
        lower = name.lower()
        if lower.endswith(PARTIAL_SUFFIXES) or lower.startswith(PARTIAL_PREFIXES):
            what = "It is a download that is in progress or was broken off."
            yield Skipped(entry.path, "incomplete.partial", what)
        elif any(mark in lower for mark in SPLIT_PARTS):
            what = "It is a part of a GGUF that was cut up; join the parts with `cat`."
            yield Skipped(entry.path, "incomplete.partial", what)


def problem_of(
    info: ModelInfo,
    entries: Sequence[Entry],
    listings: Sequence[Listing],
    clock: Clock = time.time,
) -> Problem | None:
    """What is still to come, or None when the files rest."""
    for entry in entries:
        if any(f"{entry.name}.aria2" in listing.files for listing in listings):
            return Problem(
                "incomplete.partial",
                f"{entry.name} is still being downloaded by aria2, or was broken off.",
            )
        if _grows(entry, info, clock):
            return Problem("settling", f"{entry.name} is still being written.")
    return None


def _grows(entry: Entry, info: ModelInfo, clock: Clock) -> bool:
    """Of a new size since it was listed; or too short, and written to a moment ago."""
    try:
        status = os.stat(entry.path)
    except OSError:
        return False
    if status.st_size != entry.size_bytes:
        return True
    short = any(p.code == "incomplete.truncated" for p in info.problems)
    return short and 0 <= clock() - status.st_mtime < SETTLING_SECONDS
