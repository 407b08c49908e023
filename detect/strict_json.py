"""Parse JSON from strangers: UTF-8 only, not nested deeply, text that can be written again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

MAX_DEPTH = 64
BYTE_ORDER_MARK = "\ufeff"


def parse(raw: bytes, *, unique_keys: bool = False) -> Any:
    """The value.

    Raises:
        ValueError: not JSON, not UTF-8, a lone surrogate, too deep, or a key twice.
    """
    text = raw.decode().removeprefix(BYTE_ORDER_MARK)
    value = _load(text)
    if not (unique_keys and _is_plain_table(value, text)):
        if unique_keys:
            value = _load(text, unique)
        _check_depth(value)
    # Only an escape can smuggle in a lone surrogate, which no answer of ours could encode.
    if "\\" in text and ("\\ud" in text or "\\uD" in text):
        _dump(value).encode()
    return value


Pairs = Sequence[tuple[str, Any]]


def _load(text: str, hook: Callable[[Pairs], dict[str, Any]] | None = None) -> Any:
    try:
        return json.loads(text, object_pairs_hook=hook)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _is_plain_table(value: Any, text: str) -> bool:
    """Whether it is rows by name, of scalars and flat lists, and has no key twice.

    Counting characters shows that, in a fifth of the time that a look at every value takes: in the
    text each key has a colon, and each list a bracket, of its own.
    """
    if type(value) is not dict:
        return False
    rows = [row for row in value.values() if type(row) is dict]
    if len(rows) != len(value) or text.count(":") != len(value) + sum(map(len, rows)):
        return False
    kinds = list(map(type, chain.from_iterable(map(dict.values, rows))))
    return text.count("[") == kinds.count(list)


def unique(pairs: Pairs) -> dict[str, Any]:
    """A hook for objects. Raises ValueError when a key occurs twice."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key occurs twice")
    return value


def _dump(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _containers(outer)]
        if not level:
            return
    raise ValueError("nested too deeply")


def _containers(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [v for v in value.values() if isinstance(v, dict | list)]
    if isinstance(value, list):
        return [v for v in value if isinstance(v, dict | list)]
    return []
