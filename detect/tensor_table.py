"""The JSON of a safetensors header, decoded straight into typed rows.

It knows what is well-formed, and nothing about what is not: for that there is the slow way, which
says what is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import msgspec

from detect import strict_json

METADATA = "__metadata__"
OPENING = re.compile(r'\{\s*+"__metadata__"\s*+:\s*+')
NEXT = re.compile(r"\s*+,")
FIELDS = 3
COLON = ":"


class Row(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """One tensor as the header has it: integers are integers, and nothing else is known of them."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class TensorTable(msgspec.Struct, frozen=True):
    rows: Mapping[str, Row]
    metadata: Mapping[str, str]


ROWS = msgspec.json.Decoder(dict[str, Row])
UNIQUE = json.JSONDecoder(object_pairs_hook=strict_json.unique)


def decode(raw: bytes) -> TensorTable | None:
    """None unless every name is unique and every row is of the right types.

    Free metadata is expected first, where all writers put it.
    """
    if b"\\" in raw:
        return None
    try:
        text = raw.decode()
        metadata, rest = _metadata(text)
        rows = ROWS.decode(rest)
    except (ValueError, RecursionError):
        return None
    if METADATA in rows or not _unique(rows, rest):
        return None
    return TensorTable(rows, metadata)


def _metadata(text: str) -> tuple[Mapping[str, str], str]:
    """Split off, with the text of a table without it. Raises ValueError if it is no such thing."""
    if (opening := OPENING.match(text)) is None:
        return {}, text
    value, end = UNIQUE.raw_decode(text, opening.end())
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ValueError("not text by name")
    if (following := NEXT.match(text, end)) is None:
        raise ValueError("no tensors follow")
    return value, "{" + text[following.end() :]


def _unique(rows: Mapping[str, Row], text: str) -> bool:
    """A key that came twice left a colon behind; no dtype has one."""
    names = "".join(rows)
    own = names.count(COLON) if COLON in names else 0
    return text.count(COLON) == len(rows) * (1 + FIELDS) + own
