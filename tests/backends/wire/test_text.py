from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from backends.wire.text import Detokenizer, StopMatcher, overlap
from tests.backends.wire.parsing import split

# Stop strings


def stopped(pieces: Iterable[str], stops: Sequence[str]) -> tuple[str, bool]:
    matcher, said = StopMatcher(stops), ""
    for piece in pieces:
        said += matcher.add(piece)
        if matcher.stopped:
            return said, True
    return said + matcher.rest(), False


short = st.text("abc", max_size=12)
some_stops = st.lists(st.text("abc", min_size=1, max_size=4), max_size=3)


@given(short, some_stops, st.lists(st.integers(0, 12), max_size=5))
def test_a_text_is_cut_at_the_same_place_however_it_arrives(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    assert stopped(split(text, cuts), stops) == stopped(list(text), stops)


@given(short, some_stops)
def test_no_stop_string_is_ever_said(text: str, stops: list[str]) -> None:
    said, found = stopped(list(text), stops)
    assert not any(stop in said for stop in stops)
    assert found == any(stop in text for stop in stops)
    assert text.startswith(said)
    assert found or said == text


@pytest.mark.parametrize(
    ("text", "stops", "said"),
    [
        ("one two three", ["two"], "one "),
        ("one two three", ["three", "two"], "one "),
        ("abc", ["abc", "c"], ""),
        ("abc", ["abc", "b"], "a"),
        ("aab", ["ab"], "a"),
        ("caf\N{LATIN SMALL LETTER E WITH ACUTE}!", ["\N{LATIN SMALL LETTER E WITH ACUTE}"], "caf"),
    ],
)
def test_the_stop_string_that_is_complete_first_cuts(
    text: str, stops: list[str], said: str
) -> None:
    assert stopped([text], stops) == stopped(list(text), stops) == (said, True)


@given(short, some_stops)
def test_the_overlap_is_the_longest_end_that_begins_a_marker(text: str, markers: list[str]) -> None:
    assume(not any(marker in text for marker in markers))
    length = overlap(text, markers)
    begun = {
        size for marker in markers for size in range(1, len(marker)) if text.endswith(marker[:size])
    }
    assert length == max(begun, default=0)


# Tokens


def decode(ids: list[int]) -> str:
    """A vocabulary of bytes: the hardest case."""
    return bytes(ids).decode("utf-8", "replace")


def told(ids: Iterable[int], before: int | None = None) -> list[str]:
    detokenizer = Detokenizer(decode, before)
    return [*(detokenizer.add(token) for token in ids), detokenizer.rest()]


@given(st.text(), st.sampled_from([None, 65, 0xC3]))
def test_text_comes_whole_out_of_its_bytes(text: str, before: int | None) -> None:
    text = text.replace("\N{REPLACEMENT CHARACTER}", "")
    pieces = told(text.encode("utf-8", "ignore"), before)
    assert "".join(pieces) == text.encode("utf-8", "ignore").decode()
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_half_a_character_waits_for_the_rest() -> None:
    assert told("a🦜b".encode()) == ["a", "", "", "", "🦜", "b", ""]


def test_bytes_that_are_no_text_do_not_hold_the_answer_back_for_ever() -> None:
    pieces = told([0xF0] * 12 + [65])
    assert any(pieces[:12])
    assert "".join(pieces).endswith("A")


def test_an_answer_that_ends_inside_a_character_shows_it() -> None:
    assert told("é".encode()[:1]) == ["", "\N{REPLACEMENT CHARACTER}"]


def test_how_an_id_is_spelled_may_depend_on_the_one_before_it() -> None:
    def spaced(ids: list[int]) -> str:
        """Like SentencePiece: the first word of a text loses its space."""
        return "".join(f" {token}" for token in ids).removeprefix(" ")

    detokenizer = Detokenizer(spaced, 7)
    assert [detokenizer.add(8), detokenizer.add(9)] == [" 8", " 9"]
