from __future__ import annotations

import pytest

from backends.wire.expected import SPACE, Expected, Run

CALL = Expected(SPACE, "{", SPACE, '"name": "', Run(r"(?P<name>\w{1,8})"), '"', Run(r"(?=\{)"))


def test_a_whole_one_is_found_and_what_follows_is_left() -> None:
    match = CALL.match(' { "name": "f"{}')
    assert match
    assert (match["name"], match.end()) == ("f", 14)


def test_every_beginning_is_possible() -> None:
    text = ' {\n "name": "abcd"'
    assert all(CALL.possible(text[:length]) for length in range(len(text) + 1))


@pytest.mark.parametrize(
    "text", ["x", "{x", '{"nam_', '{"name": "-', '{"name": "f" ', '{"name": "f"[', "{{"]
)
def test_what_cannot_become_one_is_told_at_once(text: str) -> None:
    assert not CALL.possible(text)
    assert not CALL.match(text)


@pytest.mark.parametrize("text", [" " * 65, '{"name": "' + "a" * 9, '{"name": "' + "a" * 10**6])
def test_what_waits_for_one_is_bounded(text: str) -> None:
    assert not CALL.possible(text)
