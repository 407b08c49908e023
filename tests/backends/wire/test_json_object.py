from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.wire.json_object import ObjectScanner, arguments_of

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6
)
objects = st.dictionaries(st.text(), values, max_size=4)


def length(pieces: list[str]) -> int:
    """Of the object that they begin with; -1 if they begin with none."""
    scanner, count = ObjectScanner(), 0
    for piece in pieces:
        used = scanner.add(piece)
        count += used
        if scanner.broken:
            return -1
        if used < len(piece):
            break
    return count if scanner.ended else -1


@given(objects, st.booleans(), st.sampled_from([None, 1]), st.text(max_size=3))
def test_an_object_ends_where_it_ends(
    value: Any, ascii_only: bool, indent: int | None, behind: str
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert length([text + behind]) == len(text)
    assert length(list(text + behind)) == len(text)


@pytest.mark.parametrize(
    "text",
    [
        "{]",
        "{<",
        '{"a": [}',
        '{"a\nb": 1}',
        "{'a': 1}",
        '{"a": True}',
        "{\x00",
        '{"a": "\x1f"}',
        "{#",
    ],
)
def test_what_is_no_object_is_noticed_where_it_breaks(text: str) -> None:
    assert length([text]) == length(list(text)) == -1


def test_its_time_is_linear_in_the_text() -> None:
    began = time.process_time()
    for text in ('{"a":' * 10**5, '{"' + "\\" * 10**5, '{"a": "' + "b" * 10**6, "{" + " " * 10**6):
        assert length([text]) == -1
    assert length(["{"] + ['"', "a", '"', ":", "[", "]", ","] * 10**4) == -1
    assert time.process_time() - began < 20


@pytest.mark.parametrize(
    "text",
    ["", "1", "[]", "null", '"{}"', "{", "{}{}", '{"a": NaN}', '{"a": -Infinity}', "{" * 10**5],
)
def test_arguments_are_one_object(text: str) -> None:
    with pytest.raises((ValueError, RecursionError)):
        arguments_of(text)
    assert arguments_of('{"a": [1]}') == {"a": [1]}
