"""Write a file so that a reader sees the old content or the new one, and never half of it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Replace the file; its folder is made if need be.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}-"
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=prefix, delete=False) as new:
        unfinished = Path(new.name)
        try:
            new.write(content)
            new.flush()
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
