from __future__ import annotations

from typing import Any

import pytest

from router.errors import InvalidRequestError
from router.keep_alive import KeepAlive, keep_alive


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (300, 300.0),
        (0, 0.0),
        (1.5, 1.5),
        (-1, None),
        (1e300, None),
        ("300", 300.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("250ms", 0.25),
        ("0", 0.0),
        ("-1", None),
        ("-1m", None),
    ],
)
@pytest.mark.parametrize("field", ["keep_alive", "ttl"])
def test_a_time_is_read_as_clients_write_it(field: str, value: Any, seconds: float | None) -> None:
    assert keep_alive({field: value}) == KeepAlive(seconds)


def test_nothing_said_is_nothing() -> None:
    assert keep_alive({}) is None
    assert keep_alive({"keep_alive": None, "ttl": None}) is None


@pytest.mark.parametrize("value", ["", "soon", "5 m", "m5", "--1", True, [], {}, "9" * 400])
def test_what_is_no_time_is_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidRequestError, match="`ttl` must be") as caught:
        keep_alive({"ttl": value})
    assert caught.value.param == "ttl"
