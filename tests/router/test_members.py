from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from router.api.members import edited

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


def test_what_is_kept_stays_as_it_was_written() -> None:
    body = b'{ "a" : 1.10 , "ttl":5,\n"b":[1e3, "\\u00e9}"], "keep_alive":"5m" }'
    assert edited(body, {"ttl", "keep_alive"}, {"n": 1}) == (
        b'{"a" : 1.10, "b":[1e3, "\\u00e9}"], "n": 1}'
    )


def test_an_object_may_lose_everything_or_have_had_nothing() -> None:
    assert edited(b' {"a":1} ', {"a"}, {}) == b"{}"
    assert edited(b"{}", {"a"}, {"b": None}) == b'{"b": null}'


@given(
    st.dictionaries(st.text(), values, max_size=6),
    st.sets(st.text(), max_size=3),
    st.integers(0, 4),
    st.booleans(),
)
def test_an_edit_is_what_it_would_be_for_the_parsed_object(
    value: dict[str, Any], extra_names: set[str], indent: int, ascii_only: bool
) -> None:
    without = set(list(value)[::2])
    body = json.dumps(value, indent=indent or None, ensure_ascii=ascii_only)
    try:
        encoded = body.encode()
    except UnicodeEncodeError:
        return
    kept = {name: v for name, v in value.items() if name not in without}
    extra = {name: 1 for name in extra_names if name not in kept}
    assert json.loads(edited(encoded, without, extra)) == kept | extra
