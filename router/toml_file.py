"""A TOML file of options: its tables, and on which line each key stands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from router.errors import SettingsError

MAX_FILE_BYTES = 2**20
MOST_LINES = 1000
"""Of one value; behind a longer one, no key's line is known."""

Keys = tuple[str, ...]
"""From the top of the file: `("models", "org/a", "pin")`."""


@dataclass(frozen=True, slots=True)
class Place:
    """A table of the file, in words, and the lines of its keys."""

    file: str
    path: Keys = ()
    lines: Mapping[Keys, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return self._with_line(self.path)

    def at(self, key: str) -> str:
        """The place, with the line of one of its keys where that is known."""
        return self._with_line((*self.path, key))

    def table(self, key: str) -> Place:
        return Place(self.file, (*self.path, key), self.lines)

    def _with_line(self, keys: Keys) -> str:
        name = f"[{'.'.join(self.path)}] of {self.file}" if self.path else self.file
        line = self.lines.get(keys)
        return f"{name} (line {line})" if line else name


def read(path: Path, named_by: str) -> tuple[dict[str, Any], Place]:
    """What the file holds, and the file as a place.

    Raises:
        SettingsError: it cannot be read, or is not TOML; `named_by` is the option that names it.
    """
    what = f"{named_by} {path}"
    text = _text(path, what)
    try:
        return tomllib.loads(text), Place(str(path), lines=lines_of(text))
    except RecursionError:
        raise SettingsError(f"{what} is nested too deeply.") from None
    except ValueError as error:
        raise SettingsError(f"{what} is not a TOML file: {_placed(error, text)}.") from None


def _text(path: Path, what: str) -> str:
    try:
        with open(path, "rb") as file:
            written = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{what} cannot be read: {error.strerror}.") from None
    if len(written) > MAX_FILE_BYTES:
        raise SettingsError(f"{what} is too large for a file of options.")
    try:
        # As TOML's own readers do, so that lines count the same everywhere.
        return written.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = written[: error.start].count(b"\n") + 1
        raise SettingsError(f"{what} is not a TOML file: line {line} is not UTF-8.") from None


def _placed(error: ValueError, text: str) -> str:
    """The parser's words; where it ran out of text, it says no line."""
    last = len(text.rstrip().split("\n"))
    return re.sub(r"\(at end of document\)", f"(at line {last}, the end)", str(error))


def lines_of(text: str) -> dict[Keys, int]:
    """The line of each key in a valid text.

    The parser tells no lines, so it gets one statement after the other: what it takes is one.
    """
    found: dict[Keys, int] = {}
    table: Keys = ()
    for line, statement in _statements(text):
        parsed = tomllib.loads(statement)
        header = statement.lstrip().startswith("[")
        for keys in _paths(parsed):
            found.setdefault(keys if header else (*table, *keys), line)
            table = keys if header else table
    return found


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each statement and the line that it begins on."""
    begun: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        begun.append(line)
        if len(begun) > MOST_LINES:
            return
        statement = "\n".join(begun)
        if _is_whole(statement):
            yield number - len(begun) + 1, statement
            begun.clear()


def _is_whole(statement: str) -> bool:
    try:
        tomllib.loads(statement)
    except ValueError:
        return False
    return True


def _paths(table: Any, above: Keys = ()) -> Iterator[Keys]:
    """Every key with those above it, from the outside in."""
    if isinstance(table, list) and table:
        yield from _paths(table[0], above)
    elif isinstance(table, dict):
        for key, value in table.items():
            yield (*above, key)
            yield from _paths(value, (*above, key))
