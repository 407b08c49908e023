"""A file that may be written anew while it is in use."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

REST_SECONDS = 0.2
"""A file that stays the same for so long is not being written any more."""

MOST_LOOKS = 25

MAX_BYTES = 2**20 + 1
"""Of a file that is larger, only so much counts: it cannot be honoured anyway."""


class KnownFile:
    """Knows what was in it at the last look. None, or a pipe, is never anything else."""

    def __init__(self, path: Path | None) -> None:
        pipe = path is not None and path.exists() and not path.is_file()
        self.path = None if pipe else path
        self._known = ""

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where it is replaced: its own folder, and that of the file that a link leads to."""
        if self.path is None:
            return ()
        places = (self.path.parent, self.path.resolve().parent)
        return tuple(folder for folder in dict.fromkeys(places) if folder.is_dir())

    def changed(self) -> bool:
        return self.path is not None and self._content() != self._known

    def look(self) -> None:
        """Know what is in it once nobody is writing it: many editors empty a file before they fill
        it anew. Takes as long as that, and is called in a thread."""
        content = self._content()
        for _ in range(MOST_LOOKS):
            time.sleep(REST_SECONDS)
            before, content = content, self._content()
            if before == content:
                break
        self._known = content

    def forget(self) -> None:
        self._known = ""

    def _content(self) -> str:
        try:
            with open(self.path or "", "rb") as file:
                return hashlib.blake2b(file.read(MAX_BYTES)).hexdigest()
        except OSError as error:
            return f"none: {error.errno}"
