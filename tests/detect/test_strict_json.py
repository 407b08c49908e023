from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.strict_json import MAX_DEPTH, parse

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


@given(values)
def test_what_json_writes_is_read(value: Any) -> None:
    assert parse(json.dumps(value).encode(), unique_keys=True) == value


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff{}",
        "{}".encode("utf-16"),
        b'"\\ud800"',
        b'"\\uDC00"',
        b'["\xed\xa0\x80"]',
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"1" * 10_000,
    ],
)
def test_what_is_not_proper_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(raw)


def test_an_escaped_pair_of_surrogates_is_a_character() -> None:
    assert parse(b'"\\ud83d\\ude00"') == "\U0001f600"


def test_depth_has_a_bound() -> None:
    deepest = MAX_DEPTH - 1
    assert parse(b"[" * deepest + b"]" * deepest)
    with pytest.raises(ValueError, match="deep"):
        parse(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))


def test_a_key_that_occurs_twice_is_refused_only_where_asked() -> None:
    assert parse(b'{"a": 1, "a": 2}') == {"a": 2}
    with pytest.raises(ValueError, match="twice"):
        parse(b'{"a": 1, "a": 2}', unique_keys=True)
