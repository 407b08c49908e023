"""What an engine printed last, as it may be shown to clients. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from router.table import printable

MOST_LINES = 5
MOST_CHARACTERS = 300

_PATH = re.compile(r"(?<![\w./])~?(?:/[^\s/:'\"()<>,;]+)+/?")


def quotable(lines: Sequence[str]) -> tuple[str, ...]:
    """The last few lines, of which no path shows where anything lies, only what it is called."""
    said = [line.strip() for line in lines if line.strip()]
    return tuple(_shown(line) for line in said[-MOST_LINES:])


def _shown(line: str) -> str:
    text = _PATH.sub(lambda path: "…/" + path[0].rstrip("/").rpartition("/")[2], line)
    text = printable(text)
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + "…"
