"""Plain text tables for terminals. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int = 0) -> str:
    """Columns aligned by their widest cell; the last one wraps at `width` columns if given."""
    cells = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(_columns(row[i]) for row in cells) for i in range(len(head) - 1)]
    indent = sum(widths) + 2 * len(widths)
    lines: list[str] = []
    for row in cells:
        left = "".join(_pad(cell, w) + "  " for cell, w in zip(row, widths, strict=False))
        room = max(20, width - indent) if width else 0
        first, *rest = wrap(row[-1], room) if room else [row[-1]]
        lines.append((left + first).rstrip())
        lines.extend(" " * indent + line for line in rest)
    return "\n".join(lines)


def wrap(text: str, width: int) -> list[str]:
    """Break at spaces; a word longer than `width` stays whole."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and _columns(lines[-1]) + 1 + _columns(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return lines


def printable(text: str) -> str:
    """Names come from strangers' disks: no control character may reach the terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _columns(text))


def _columns(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) != 0 for c in text)
