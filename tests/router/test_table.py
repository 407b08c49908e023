from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.table import printable, table, wrap


def lines(*rows: tuple[str, ...], width: int = 0) -> list[str]:
    return table(("A", "B"), rows, width).split("\n")


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert lines(("short", "x"), ("much longer", "y")) == [
        "A            B",
        "short        x",
        "much longer  y",
    ]


def test_no_line_ends_with_spaces() -> None:
    assert lines(("a", "")) == ["A  B", "a"]


def test_wide_characters_take_two_columns_and_combining_ones_none() -> None:
    assert lines(("模型", "x"), ("e\N{COMBINING ACUTE ACCENT}tat", "y")) == [
        "A     B",
        "模型  x",
        "e\N{COMBINING ACUTE ACCENT}tat  y",
    ]


def test_the_last_column_wraps_under_itself() -> None:
    assert lines(("ab", "one two three four five six"), width=24) == [
        "A   B",
        "ab  one two three four",
        "    five six",
    ]


def test_the_last_column_keeps_some_room_in_a_narrow_terminal() -> None:
    long_name = "n" * 60
    assert lines((long_name, "one two three four five six"), width=40)[1:] == [
        f"{long_name}  one two three four",
        " " * 62 + "five six",
    ]


def test_without_a_width_nothing_wraps() -> None:
    assert len(lines(("a", "word " * 200))) == 2


def test_a_word_longer_than_the_width_stays_whole() -> None:
    assert wrap("a " + "b" * 30 + " c", 10) == ["a", "b" * 30, "c"]
    assert wrap("", 10) == [""]
    assert wrap("one two", 7) == ["one two"]


def test_wide_words_wrap_by_their_columns() -> None:
    assert wrap("模型 模型", 8) == ["模型", "模型"]
    assert wrap("模型 模型", 9) == ["模型 模型"]


@pytest.mark.parametrize(
    "evil",
    ["\x1b[2J", "\r", "\n", "\t", "\x00", "\x7f", "\x9b", "\N{RIGHT-TO-LEFT OVERRIDE}", "\udcff"],
)
def test_control_characters_reach_no_terminal(evil: str) -> None:
    shown = table(("A", "B"), [(f"a{evil}b", f"{evil}c")])
    assert printable(evil).startswith("\N{REPLACEMENT CHARACTER}")
    assert evil[0] not in shown.replace("\n", "", 1)
    shown.encode()


@given(st.text())
def test_whatever_a_name_is_a_row_stays_one_line_that_can_be_printed(name: str) -> None:
    head, row = table(("A", "B"), [(name, name)]).split("\n")
    assert head.startswith("A")
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in row)


def test_names_for_people_stay_as_they_are() -> None:
    name = "Qwen3-8B («Größe») 模型 🦜"
    assert printable(name) == name


@given(st.text(alphabet="ab模 ", max_size=40), st.integers(1, 20))
def test_wrapping_loses_no_word(text: str, width: int) -> None:
    assert " ".join(wrap(text, width)).split() == text.split()
