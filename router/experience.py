"""What running a model has taught: how much memory it really took, and which engine refused it.

Kept by the model's files, the engine and its version: another file, or another version, is
another model to us. It makes estimates better and never decides about safety.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from backends.base import InstanceOptions
from detect.fingerprint import Fingerprint
from detect.whole_file import write_whole

FILE_NAME = "experience.json"
MAX_FILE_BYTES = 4 * 2**20
MAX_RECORDS = 4096
MAX_REASON = 500

T = TypeVar("T", int, str)


class Experience:
    """A file that is corrupt or cannot be written costs time and nothing else; None keeps
    nothing beyond this process."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file

    def needed_bytes(
        self, files: Fingerprint, engine: str, version: str, options: InstanceOptions
    ) -> int | None:
        """The most it was measured to need, loaded like this; None if it never was."""
        return self._needed.get(_digest(files, engine, version, *_sizes(options)))

    def took(
        self,
        files: Fingerprint,
        engine: str,
        version: str,
        options: InstanceOptions,
        needed_bytes: int,
    ) -> None:
        _put(self._needed, _digest(files, engine, version, *_sizes(options)), needed_bytes)

    def refusal(self, files: Fingerprint, engine: str, version: str) -> str:
        """What the engine said when it did not run the model, which another one did; or empty."""
        return self._refusals.get(_digest(files, engine, version), "")

    def refused(self, files: Fingerprint, engine: str, version: str, reason: str) -> None:
        _put(self._refusals, _digest(files, engine, version), reason[:MAX_REASON])

    def save(self) -> None:
        if self.file is None:
            return
        kept = {"needed_bytes": self._needed, "refusals": self._refusals}
        try:
            write_whole(self.file, json.dumps(kept).encode())
        except OSError:
            return

    @cached_property
    def _needed(self) -> dict[str, int]:
        return _records(self._read.get("needed_bytes"), int)

    @cached_property
    def _refusals(self) -> dict[str, str]:
        return _records(self._read.get("refusals"), str)

    @cached_property
    def _read(self) -> Mapping[str, Any]:
        try:
            if self.file is None or self.file.stat().st_size > MAX_FILE_BYTES:
                return {}
            kept = json.loads(self.file.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return kept if isinstance(kept, dict) else {}


def _records(kept: Any, kind: type[T]) -> dict[str, T]:
    pairs = kept.items() if isinstance(kept, dict) else ()
    good = ((digest, value) for digest, value in pairs if type(value) is kind)
    return dict(islice(good, MAX_RECORDS))


def _put(records: dict[str, T], digest: str, value: T) -> None:
    """The latest is the last; the oldest goes when there are too many."""
    records.pop(digest, None)
    records[digest] = value
    if len(records) > MAX_RECORDS:
        del records[next(iter(records))]


def _sizes(options: InstanceOptions) -> tuple[object, ...]:
    """What makes a difference for how much is needed."""
    sizes = (options.context_length, options.parallel, options.prefix_bytes, options.kv_bits)
    return *sizes, str(options.isolation), str(options.adapter), str(options.draft)


def _digest(*facts: object) -> str:
    return hashlib.blake2b(repr(facts).encode(errors="replace"), digest_size=16).hexdigest()
