from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.wire.events import Event, ReasoningDelta, TextDelta, ToolCallStart
from backends.wire.harmony import HarmonyParser
from tests.backends.wire.parsing import TOOLS, added, called, split, told

THOUGHT = "<|channel|>analysis<|message|>Hm.<|end|>"
FINAL = "<|start|>assistant<|channel|>final<|message|>Hello."
CALL = '<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}'
OTHER = '<|start|>assistant to=functions.g<|channel|>commentary json<|message|>{"b": {}}<|call|>'
F = called('{"a": 1}')


def parsed(pieces: list[str], tools: Any = TOOLS) -> list[Event]:
    return told(HarmonyParser(tools), pieces)


@pytest.mark.parametrize(
    ("text", "events"),
    [
        (THOUGHT + FINAL, [ReasoningDelta("Hm."), TextDelta("Hello.")]),
        (FINAL.removeprefix("<|start|>assistant") + "<|return|>", [TextDelta("Hello.")]),
        (THOUGHT + CALL, [ReasoningDelta("Hm."), *F]),
        (THOUGHT + CALL + "<|call|>", [ReasoningDelta("Hm."), *F]),
        (CALL + "<|call|>" + OTHER, [*F, *called('{"b": {}}', "g")]),
        (CALL + OTHER + FINAL, [*F, *called('{"b": {}}', "g"), TextDelta("Hello.")]),
        (THOUGHT + "<|start|>assistant" + THOUGHT, [ReasoningDelta("Hm.\nHm.")]),
        ("<|channel|>commentary<|message|>I look.<|end|>" + CALL, [TextDelta("I look."), *F]),
        ("<|channel|>analysis to=functions.f code<|message|>{}<|call|>", called("{}")),
        (" to=functions.f<|channel|>commentary<|message|><|call|>", called("{}")),
        ("<|channel|>commentary to=f<|message|> \n{} \n<|call|>", called("{}")),
        ("<|channel|>commentary to=functions.x<|message|>{}", called("{}", "x")),
        ("<|message|>Hello.", [TextDelta("Hello.")]),
        ("Hello.", [TextDelta("Hello.")]),
        ("to", [TextDelta("to")]),
        (THOUGHT + "Hello.", [ReasoningDelta("Hm."), TextDelta("Hello.")]),
        ("<|channel|>analysis<|message|>Hm", [ReasoningDelta("Hm")]),
        ("<|channel|>analysis<|message|>Hm <|en", [ReasoningDelta("Hm <|en")]),
        ("<|channel|>anal", []),
        ("", []),
    ],
)
def test_each_channel_is_what_it_is(text: str, events: list[Event]) -> None:
    assert parsed([text]) == events
    for cut in range(len(text)):
        assert parsed([text[:cut], text[cut:]]) == events
    assert parsed(list(text)) == events


def test_without_tools_a_call_is_a_thought() -> None:
    assert parsed([CALL + "<|call|>" + FINAL], ()) == [
        ReasoningDelta('{"a": 1}'),
        TextDelta("Hello."),
    ]


BEGUN = "<|channel|>commentary to=functions.f<|message|>"


@pytest.mark.parametrize(
    "rest",
    ["", "oops", "[1]", '{"a": 1', '{"a": oops}', '{"a": NaN}', '{"a": 1} oops', "{" * 10_000],
)
def test_a_call_that_breaks_is_given_back_as_text(rest: str) -> None:
    for pieces in ([BEGUN + rest], list(BEGUN + rest)):
        parser = HarmonyParser(TOOLS)
        assert added(told(parser, pieces)) == (BEGUN + rest, [])
        assert not parser.called


def test_a_call_is_told_as_it_comes() -> None:
    parser = HarmonyParser(TOOLS)
    assert next(parser.add(BEGUN + '{"a": ')) == ToolCallStart("f")
    assert parser.called


pieces = st.sampled_from(
    ["<|start|>", "assistant", "<|channel|>", "analysis", "final", "commentary", "<|message|>", "a",
     " to=functions.f", " to=x", "<|constrain|>json", '{"a": 1}', "{", "<|end|>", "<|call|>", " ",
     "<|return|>", "<|", "é🦜"]
)  # fmt: skip


@given(st.lists(pieces, max_size=12).map("".join), st.lists(st.integers(0, 150), max_size=6))
def test_an_answer_is_the_same_however_it_arrives(text: str, cuts: list[int]) -> None:
    assert parsed(split(text, cuts)) == parsed([text]) == parsed(list(text))
    added(parsed([text]))


@pytest.mark.parametrize(
    "text",
    [
        "<|start|>" * 10_000, "<|channel|>" * 10_000, "<|message|>" * 10_000, "<|end|>" * 10_000,
        "<|channel|>" + "a" * 100_000, " " * 100_000, BEGUN + " " * 100_000, (BEGUN + "{") * 3_000,
        " to=" + "a" * 100_000, BEGUN + '{"a":' * 20_000, (BEGUN + "<|call|>") * 3_000,
    ],
)  # fmt: skip
def test_hostile_text_takes_linear_time(text: str) -> None:
    began = time.process_time()
    assert parsed(split(text, range(0, len(text), 7))) == parsed([text])
    assert time.process_time() - began < 20
