"""What an option is: a field with its meaning and how to read it from text.

A dataclass of options is read from flags, the environment or a TOML table alike.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from backends.base import Isolation
from router.errors import SettingsError
from router.preference import ModelClass
from router.toml_file import Place

ENGINE_NAMES = ("mlx", "llama.cpp", "mistral.rs")
CLASS_NAMES = tuple(ModelClass)
Choice = TypeVar("Choice", bound=StrEnum)


class Progress(StrEnum):
    """What those who stream are told while their model loads."""

    OFF = "off"
    COMMENTS = "comments"
    REASONING = "reasoning"


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_SCALE = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Bytes, or a share of the machine's memory: whichever the user wrote."""

    bytes: int | None = None
    percent: float | None = None

    def resolve(self, total_bytes: int) -> int:
        if self.bytes is not None:
            return self.bytes
        return int(total_bytes * (self.percent or 0) / 100)

    def __str__(self) -> str:
        return size_text(self.bytes) if self.bytes is not None else f"{self.percent:g}%"


LEAST_BUDGET_BYTES = 2**20
"""Less is a unit forgotten."""


def parse_size(text: str) -> int:
    """`512M`, `16GB` or a plain number of bytes; units are binary."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("takes a size such as 512M or 16G")
    size = float(match[1]) * _SCALE[match[2].lower()]
    if size >= 2**63:
        raise ValueError("takes a size such as 512M or 16G")
    return int(size)


def size_text(size: int) -> str:
    """What `parse_size` reads as exactly this size, in the largest unit."""
    unit = [u for u, scale in _SCALE.items() if size % scale == 0][-1] if size else ""
    return f"{size // _SCALE[unit]}{unit.upper()}"


def parse_budget(text: str) -> MemoryBudget:
    if text.strip().endswith("%"):
        percent = float(text.strip()[:-1])
        if not 0 < percent <= 100:
            raise ValueError("takes a percentage between 0 and 100, or a size such as 16G")
        return MemoryBudget(percent=percent)
    if (size := parse_size(text)) < LEAST_BUDGET_BYTES:
        raise ValueError("takes a size such as 16G or a percentage such as 80%")
    return MemoryBudget(bytes=size)


def parse_share_of_memory(text: str) -> MemoryBudget:
    """Like a budget, and may be nothing."""
    nothing = text.strip().rstrip("%").strip() in ("0", "0.0")
    return MemoryBudget(bytes=0) if nothing else parse_budget(text)


def parse_bits(text: str) -> int:
    if text.strip() not in ("4", "8"):
        raise ValueError("takes 4 or 8")
    return int(text)


def parse_path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError("takes a path")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise ValueError("takes a path; there is no user of that name") from None


def parse_name(text: str) -> str:
    if not text.strip():
        raise ValueError("takes the name of a model")
    return text


def parse_port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError("takes a port between 0 and 65535")
    return port


def parse_tokens(text: str) -> int:
    """A number of tokens; `8k` is 8192."""
    number = text.strip().lower()
    scale = 1024 if number.endswith("k") else 1
    try:
        tokens = int(number.removesuffix("k")) * scale
    except ValueError:
        tokens = 0
    if tokens < 1:
        raise ValueError("takes a number of tokens such as 8192 or 8k")
    return tokens


SWITCH = {"yes": True, "true": True, "on": True, "1": True,
          "no": False, "false": False, "off": False, "0": False}  # fmt: skip


def parse_switch(text: str) -> bool:
    if (value := SWITCH.get(text.strip().lower())) is None:
        raise ValueError("takes yes or no")
    return value


def parse_positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError("takes a whole number of at least 1")
    return number


def parse_share(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            raise ValueError(f"takes a number between {least:g} and {most:g}")
        return number

    return parse


def parse_seconds(text: str) -> float:
    seconds = float(text)
    if not seconds >= 0:
        raise ValueError("takes a number of seconds")
    return seconds


def parse_choice(kinds: type[Choice]) -> Callable[[str], Choice]:
    def parse(text: str) -> Choice:
        try:
            return kinds(text.strip().lower())
        except ValueError:
            raise ValueError(f"takes one of {', '.join(kinds)}") from None

    return parse


parse_isolation = parse_choice(Isolation)
parse_progress = parse_choice(Progress)


def parse_level(text: str) -> str:
    level = text.lower()
    if level not in ("debug", "info", "warning", "error"):
        raise ValueError("takes debug, info, warning or error")
    return level


def parse_engine_choice(text: str) -> tuple[str, str]:
    """`MODEL=ENGINE`."""
    model, separator, engine = text.rpartition("=")
    if not separator or not model or engine not in ENGINE_NAMES:
        raise ValueError(f"takes MODEL=ENGINE, with ENGINE one of {', '.join(ENGINE_NAMES)}")
    return model, engine


def parse_engine(text: str) -> str:
    if text not in ENGINE_NAMES:
        raise ValueError(f"takes one of {', '.join(ENGINE_NAMES)}")
    return text


def parse_class_choice(text: str) -> tuple[str, str]:
    """`CLASS=ENGINE`."""
    kind, _, engine = text.rpartition("=")
    if kind not in CLASS_NAMES or engine not in ENGINE_NAMES:
        raise ValueError(
            f"takes CLASS=ENGINE, with CLASS one of {', '.join(CLASS_NAMES)} and ENGINE one of "
            f"{', '.join(ENGINE_NAMES)}"
        )
    return kind, engine


def option_field(
    default: Any,
    help: str,  # noqa: A002 - argparse's own word for it
    parse: Callable[[str], Any],
    metavar: str,
    *,
    repeated: bool = False,
    secret: bool = False,
    at_start: bool = False,
) -> Any:
    """A field of a dataclass of options; one that is read `at_start` cannot change afterwards."""
    metadata = {
        "help": help,
        "parse": parse,
        "metavar": metavar,
        "repeated": repeated,
        "secret": secret,
        "at_start": at_start,
    }
    return field(default=default, metadata=metadata, repr=not secret)


Option = dataclasses.Field[Any]


def texts(value: Any) -> str | list[str]:
    """A number may be written as one; everything is then read as on the command line."""
    return [str(item) for item in value] if isinstance(value, list) else str(value)


def written(option: Option, value: Any) -> str:
    """A value as a user would write it; a secret one is not shown."""
    if option.metadata["secret"] and value:
        return "(not shown)"
    if isinstance(value, tuple) and option.metadata["repeated"]:
        return ", ".join("=".join(v) if isinstance(v, tuple) else str(v) for v in value) or "–"
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if option.metadata["parse"] is parse_size:
        return size_text(value)
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def read(field_: Option, given: str | list[str], where: str) -> Any:
    if not field_.metadata["repeated"]:
        return _parse(field_, given, where)
    return tuple(
        _parse(field_, one, where) for one in ([given] if isinstance(given, str) else given)
    )


def _parse(field_: Option, text: str | list[str], where: str) -> Any:
    try:
        if isinstance(text, list):
            raise ValueError("takes one value")
        return field_.metadata["parse"](text)
    except ValueError as error:
        shown = "the value given" if field_.metadata["secret"] else repr(text)
        reason = str(error) if str(error).startswith("takes") else f"takes {_kind(field_)}"
        raise SettingsError(f"{where} {reason}, not {shown}.") from None


def _kind(field_: Option) -> str:
    return f"a {field_.metadata['metavar'].lower()}"


def read_table(
    table: Mapping[str, Any], options: Iterable[Option], place: Place
) -> dict[str, tuple[Any, str]]:
    """Values by option, each with where it was written.

    Raises:
        SettingsError: a key that is no option, naming the nearest that is, or a bad value.
    """
    by_name = {one.name: one for one in options}
    found: dict[str, tuple[Any, str]] = {}
    for key, value in table.items():
        known = by_name.get(key.replace("-", "_"))
        if known is None:
            no_option = f"has {key!r}, which is not an option{_near(key, by_name)}"
            raise SettingsError(f"{place.at(key)} {no_option}")
        where = f"{key} in {place.at(key)}"
        found[known.name] = (read(known, texts(value), where), where)
    return found


def _near(key: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(key.replace("-", "_"), names, n=1)
    return f"; did you mean {near[0].replace('_', '-')!r}?" if near else "."
