"""Parse JSON from strangers: UTF-8 only, not nested deeply, text that can be written again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

MAX_DEPTH = 64


def parse(raw: bytes, *, unique_keys: bool = False) -> Any:
    """The value.

    Raises:
        ValueError: not JSON, not UTF-8, a lone surrogate, too deep, or a key twice.
    """
    text = raw.decode("utf-8-sig")
    try:
        value = json.loads(text, object_pairs_hook=_unique if unique_keys else None)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # Only an escape can smuggle in a lone surrogate, which no answer of ours could encode.
    if "\\ud" in text or "\\uD" in text:
        _dump(value).encode()
    _check_depth(value)
    return value


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
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
