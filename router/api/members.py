"""Members of a JSON object, taken out and put in without touching the others' bytes. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")


def edited(body: bytes, without: Collection[str], extra: Mapping[str, Any]) -> bytes:
    """`body`, which has been parsed already, without some members of its outermost object, and
    with `extra` ones. What is kept stays as it was written."""
    text = body.decode()
    kept = [text[begin:end] for name, begin, end in _members(text) if name not in without]
    added = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in extra.items()]
    return ("{" + ", ".join([*kept, *added]) + "}").encode()


def _members(text: str) -> Iterator[tuple[str, int, int]]:
    """The name of every member, and where it begins and ends."""
    decoder = json.JSONDecoder()
    at = _after_space(text, text.index("{") + 1)
    while text[at] == '"':
        begin = at
        name, at = decoder.raw_decode(text, at)
        colon = _after_space(text, at)
        _, end = decoder.raw_decode(text, _after_space(text, colon + 1))
        yield name, begin, end
        at = _after_space(text, end)
        if text[at] == ",":
            at = _after_space(text, at + 1)


def _after_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None
    return space.end()
