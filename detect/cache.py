"""What was found at each place, for as long as the files there look the same.

On disk it is one line per place: a digest of where the place is and of the name, size, time of
change and inode of every file and folder listed for it, and what was found. So a place that has
changed in any way is simply not in it. Nothing in it is believed further than that: types are
checked, paths must be those just listed, and engines check the files again when they load them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import chain, islice
from pathlib import Path

from msgspec import Struct

from detect import strict_json
from detect.layouts import Item, Place
from detect.lister import Lister
from detect.listing import Listing
from detect.record import Paths, pack, unpack
from detect.regular_file import read_bounded
from detect.types import ModelInfo, ScanReport, Skipped
from detect.whole_file import write_whole

FORMAT = 1
FILE_NAME = "detected-models.jsonl"
MAX_FILE_BYTES = 512 << 20
MAX_RECORDS = 20_000

RESTING_SECONDS = 5.0
"""What was written to more recently may change once more without looking any different: clocks
of file systems are coarse, the coarsest by two seconds."""


class Outcome(Struct, frozen=True):
    """What is at one place: models under their names, and what is none."""

    found: tuple[NamedModel, ...] = ()
    skipped: tuple[Skipped, ...] = ()


class NamedModel(Struct, frozen=True):
    """`stem` as in `detect.naming.Found`."""

    info: ModelInfo
    stem: str


Items = Sequence[tuple[Item, str]]
"""All places of a scan, each with the models folder that it is in."""


class Cache:
    """`file` is read when the first place is looked up, and written by `save`.

    One object serves many scans, of one thread at a time; between them it remembers listings
    and outcomes as they are, which is faster than to read them from a file.
    """

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        self.file = file
        self.lister = Lister()
        self._clock = clock
        self._live: dict[tuple[Path, str], tuple[Place, Outcome]] = {}
        self._last: tuple[Items, ScanReport] | None = None
        self._used: dict[str, bytes] = {}
        self._changed = False

    def get(self, place: Place) -> Outcome | None:
        key = (place.main.folder, place.name)
        live = self._live.get(key)
        if live is not None and live[0] == place:
            return live[1]
        digest = _digest(place)
        line = self._read.get(digest)
        outcome = _parsed(line, place) if line is not None else None
        if line is not None and outcome is not None:
            self._used[digest] = line
            self._live[key] = (place, outcome)
        return outcome

    def keep(self, place: Place, outcome: Outcome) -> None:
        """For the next time, if the files rest."""
        key = (place.main.folder, place.name)
        self._live.pop(key, None)
        if not self._rests(place) or any(_settles(one.info) for one in outcome.found):
            return
        self._live[key] = (place, outcome)
        self._used[_digest(place)] = json.dumps(pack(outcome), separators=(",", ":")).encode()
        self._changed = True

    def last_report(self, items: Items) -> ScanReport | None:
        """The last one, if every place is as it was."""
        return self._last[1] if self._last is not None and self._last[0] == items else None

    def keep_report(self, items: Items, report: ScanReport) -> None:
        places = (item for item, _ in items if isinstance(item, Place))
        rest = all((place.main.folder, place.name) in self._live for place in places)
        self._last = (items, report) if rest else None

    def _rests(self, place: Place) -> bool:
        entries = (entry for listing in place.listings for entry in listing.files.values())
        newest = max((entry.changed_ns for entry in entries), default=0)
        return newest / 1e9 < self._clock() - RESTING_SECONDS

    def save(self) -> None:
        """Write what is new. A file that cannot be written costs time and nothing else."""
        if not self._changed:
            return
        older = ((d, line) for d, line in self._read.items() if d not in self._used)
        records = islice(chain(self._used.items(), older), MAX_RECORDS)
        lines = (digest.encode() + b" " + line + b"\n" for digest, line in records)
        try:
            write_whole(self.file, b"".join([_heading(), *lines]))
        except OSError:
            return
        self._changed = False

    @cached_property
    def _read(self) -> dict[str, bytes]:
        """Lines by digest; they are parsed when they are asked for."""
        try:
            content = read_bounded(self.file, MAX_FILE_BYTES)
        except (OSError, ValueError):
            return {}
        heading, *lines = content.splitlines(keepends=True) or [b""]
        if heading != _heading():
            return {}
        parts = (line.partition(b" ") for line in islice(lines, MAX_RECORDS))
        return {digest.decode("latin-1"): line.rstrip(b"\n") for digest, _, line in parts}


def _settles(info: ModelInfo) -> bool:
    return any(problem.code == "settling" for problem in info.problems)


def _heading() -> bytes:
    """Another detector may find something else: any change of its source forgets everything."""
    sources = (path.stat() for path in sorted(Path(__file__).parent.glob("*.py")))
    stamps = [(status.st_size, status.st_mtime_ns) for status in sources]
    build = hashlib.blake2b(repr(stamps).encode(), digest_size=16).hexdigest()
    return f"models found by a detector, format {FORMAT}, build {build}\n".encode()


def _digest(place: Place) -> str:
    facts = (place.name, place.exact, place.aliases, *map(_facts, place.listings))
    return hashlib.blake2b(repr(facts).encode(errors="replace"), digest_size=24).hexdigest()


def _facts(listing: Listing) -> Sequence[object]:
    return (
        str(listing.folder),
        [(e.name, e.size_bytes, e.changed_ns, e.identity) for e in listing.files.values()],
        [(e.name, e.identity) for e in listing.folders.values()],
        sorted(listing.dangling),
    )


def _parsed(line: bytes, place: Place) -> Outcome | None:
    try:
        return unpack(Outcome, strict_json.parse(line), _paths(place))
    except ValueError:
        return None


def _paths(place: Place) -> Paths:
    return {str(path): path for listing in place.listings for path in _of_listing(listing)}


def _of_listing(listing: Listing) -> Iterator[Path]:
    yield listing.folder
    yield from (entry.path for entry in listing.files.values())
    yield from (entry.path for entry in listing.folders.values())
    yield from (listing.folder / name for name in listing.dangling)
