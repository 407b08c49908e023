from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from backends.wire.events import (
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallArguments,
    ToolCallStart,
)
from backends.wire.text import (
    JSON_CALLS,
    AnswerParser,
    Detokenizer,
    ReasoningFormat,
    StopMatcher,
    ToolFormat,
    overlap,
)

CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
TO_THE_LAST = ToolFormat("[CALL]", "", json.loads)
PIECES = [
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<", "<t", "a", "b ", " ", "\n", "é🦜",
    '{"name": "f", "arguments": {}}', '{"name": 1}', "[]", CALL, "[CALL]", '"',
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


def split(text: str, cuts: Iterable[int]) -> list[str]:
    places = [0, *sorted({min(cut, len(text)) for cut in cuts}), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


def joined(events: Iterable[Event]) -> list[Event]:
    """Neighbours of one kind as one: how a text was cut into deltas does not matter."""
    found: list[Event] = []
    for event in events:
        match found[-1:], event:
            case [TextDelta(before)], TextDelta(text):
                found[-1] = TextDelta(before + text)
            case [ReasoningDelta(before)], ReasoningDelta(text):
                found[-1] = ReasoningDelta(before + text)
            case _:
                found.append(event)
    return found


def parsed(pieces: Sequence[str], **formats: Any) -> list[Event]:
    parser = AnswerParser(**formats)
    events = [event for piece in pieces for event in parser.add(piece)]
    return joined([*events, *parser.finish()])


def called(arguments: str, name: str = "f") -> list[Event]:
    return [ToolCallStart(name), ToolCallArguments(arguments)]


FORMATS: list[dict[str, Any]] = [
    {},
    {"tools": JSON_CALLS},
    {"tools": TO_THE_LAST},
    {"reasoning": ReasoningFormat()},
    {"reasoning": ReasoningFormat(), "reasoning_open": True},
    {"tools": JSON_CALLS, "reasoning": ReasoningFormat()},
    {"tools": JSON_CALLS, "reasoning": ReasoningFormat(), "reasoning_open": True},
    {"tools": TO_THE_LAST, "reasoning": ReasoningFormat()},
]


# Answers


@given(st.sampled_from(FORMATS), texts, st.lists(st.integers(0, 200), max_size=6))
def test_an_answer_is_the_same_however_it_arrives(
    formats: dict[str, Any], text: str, cuts: list[int]
) -> None:
    assert parsed(split(text, cuts), **formats) == parsed([text], **formats)


@given(st.sampled_from(FORMATS), texts)
def test_an_answer_is_the_same_letter_by_letter(formats: dict[str, Any], text: str) -> None:
    assert parsed(list(text), **formats) == parsed([text], **formats)


@given(st.lists(st.text(), max_size=5))
def test_without_formats_every_letter_is_said(pieces: list[str]) -> None:
    said = parsed(pieces)
    assert said == ([TextDelta("".join(pieces))] if "".join(pieces) else [])


@given(texts)
def test_with_tools_only_calls_and_the_space_around_them_are_taken_out(text: str) -> None:
    events = parsed([text], tools=JSON_CALLS)
    said = "".join(event.text for event in events if isinstance(event, TextDelta))
    if not any(isinstance(event, ToolCallStart) for event in events):
        assert said == text


@given(texts)
def test_what_is_told_early_is_never_half_a_marker(text: str) -> None:
    parser = AnswerParser(tools=JSON_CALLS)
    told = [event for letter in text for event in parser.add(letter)]
    for event in told:
        assert not isinstance(event, TextDelta) or not event.text.endswith("<tool_call")


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("Hello.\n", [TextDelta("Hello.\n")]),
        (CALL, called('{"a": 1}')),
        (f"Well.\n\n{CALL}\n", [TextDelta("Well."), *called('{"a": 1}')]),
        (f"{CALL}\n{CALL}", called('{"a": 1}') * 2),
        ('<tool_call>{"name": "f"}', called("{}")),
        ("<tool_call>[]</tool_call>", [TextDelta("<tool_call>[]</tool_call>")]),
        ("So: \n<tool_call>oops</tool_call>!", [TextDelta("So: \n<tool_call>oops</tool_call>!")]),
        ("a <tool_call", [TextDelta("a <tool_call")]),
        ("a <tool_call>", [TextDelta("a <tool_call>")]),
        ("<think>a</think>b", [TextDelta("<think>a</think>b")]),
    ],
)
def test_calls_are_events_and_what_is_no_call_is_text(text: str, events: list[Event]) -> None:
    assert parsed([text], tools=JSON_CALLS) == events


@pytest.mark.parametrize(
    "inner",
    [
        "", "null", "1", '"text"', "{}", '{"name": ""}', '{"name": 1}', '{"name": null}',
        '{"arguments": {}}', "[1]", '[{"name": "f"}, 1]', "[" * 100_000, '{"name": "f"',
        '{"name": "f", "arguments": {"a": NaN}}', '{"name": "f", "arguments": Infinity}',
    ],
)  # fmt: skip
def test_a_call_that_makes_no_sense_stays_text(inner: str) -> None:
    written = f"<tool_call>{inner}</tool_call>"
    assert parsed([written], tools=JSON_CALLS) == [TextDelta(written)]


def test_several_calls_in_one_block_are_several_events() -> None:
    block = '<tool_call>[{"name": "f"}, {"name": "g", "arguments": "{}"}]</tool_call>'
    assert parsed([block], tools=JSON_CALLS) == [*called("{}"), *called("{}", "g")]


def test_letters_beyond_ascii_stay_readable_in_arguments() -> None:
    call = '<tool_call>{"name": "f", "arguments": {"city": "Zürich"}}</tool_call>'
    assert parsed([call], tools=JSON_CALLS) == called('{"city": "Zürich"}')


def test_a_format_without_an_end_takes_everything_to_the_last() -> None:
    events = parsed(['Yes. [CALL]{"name"', ': "f"}'], tools=TO_THE_LAST)
    assert events == [TextDelta("Yes."), *called("{}")]


def test_a_call_is_remembered_for_the_reason_of_the_end() -> None:
    parser = AnswerParser(tools=JSON_CALLS)
    assert not parser.called
    list(parser.add(CALL))
    assert parser.called


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("<think>a b</think>\n\nc", [ReasoningDelta("a b"), TextDelta("c")]),
        ("\n<think>a</think>c", [ReasoningDelta("a"), TextDelta("c")]),
        ("<think>a", [ReasoningDelta("a")]),
        ("<think>a</thin", [ReasoningDelta("a</thin")]),
        ("<think></think>", []),
        ("c", [TextDelta("c")]),
        ("c <think>a</think>", [TextDelta("c <think>a</think>")]),
        ("<thin", [TextDelta("<thin")]),
    ],
)
def test_reasoning_opens_an_answer_or_does_not_occur(text: str, events: list[Event]) -> None:
    assert parsed([text], reasoning=ReasoningFormat()) == events
    assert parsed(list(text), reasoning=ReasoningFormat()) == events


def test_reasoning_that_the_prompt_has_opened_is_reasoning() -> None:
    events = parsed(["a</think>b"], reasoning=ReasoningFormat(), reasoning_open=True)
    assert events == [ReasoningDelta("a"), TextDelta("b")]


def test_a_call_inside_reasoning_is_a_thought() -> None:
    formats: dict[str, Any] = {"tools": JSON_CALLS, "reasoning": ReasoningFormat()}
    assert parsed([f"<think>{CALL}</think>ok"], **formats) == [
        ReasoningDelta(CALL),
        TextDelta("ok"),
    ]


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
