from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.wire.answer_parser import AnswerParser, ReasoningFormat
from backends.wire.calls import whole_calls
from backends.wire.events import Event, ReasoningDelta, TextDelta, ToolCallStart
from backends.wire.json_calls import hermes
from tests.backends.wire.parsing import TOOLS, called, joined, split

CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
JSON_CALLS = hermes(TOOLS)
TO_THE_LAST = whole_calls("[CALL]", "", json.loads)
PIECES = [
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<", "<t", "a", "b ", " ", "\n", "é🦜",
    '{"name": "f", "arguments": {}}', '{"name": 1}', "[]", CALL, "[CALL]", '"',
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


def parsed(pieces: Sequence[str], **formats: Any) -> list[Event]:
    parser = AnswerParser(**formats)
    events = [event for piece in pieces for event in parser.add(piece)]
    return joined([*events, *parser.finish()])


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
        '{"name": "f", "arguments": Infinity}', '{"name": "f", "arguments": "no"}',
        '{"name": "f", "arguments": [1]}', '{"name": "h", "arguments": {"a": NaN}}',
        '{"arguments": {"a": NaN}, "name": "f"}',
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
