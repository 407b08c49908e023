from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backends.wire.calls import ToolFormat, Tools
from backends.wire.events import Event, TextDelta, ToolCallArguments, ToolCallBroken, ToolCallStart
from backends.wire.json_calls import deepseek, hermes, llama3, mistral
from tests.backends.wire.parsing import TOOLS, added, called, parser_of, split, told
from tests.backends.wire.test_json_object import objects

Format = Callable[[Tools], ToolFormat]

BEGIN, END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
SEP, ALL, LAST = "<｜tool▁sep｜>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
FENCE = "```"


def parsed(format_of: Format, pieces: list[str]) -> list[Event]:
    return told(parser_of(format_of(TOOLS), thinks=True), pieces)


# Each way of writing a call, from its name and its arguments.
WRITTEN: dict[str, tuple[Format, Callable[[str, str], str]]] = {
    "hermes": (
        hermes, lambda n, a: f'<tool_call>\n{{"name": "{n}", "arguments": {a}}}\n</tool_call>',
    ),
    "hermes, parameters": (
        hermes, lambda n, a: f'<tool_call>{{"name":"{n}","parameters":{a}}}</tool_call>',
    ),
    "hermes, turned round": (
        hermes, lambda n, a: f'<tool_call>{{"arguments": {a}, "name": "{n}"}}</tool_call>',
    ),
    "hermes, another key": (
        hermes, lambda n, a: f'<tool_call>{{"name": "{n}", "arguments": {a}, "id": 1}}</tool_call>',
    ),
    "mistral": (mistral, lambda n, a: f'[TOOL_CALLS][{{"name": "{n}", "arguments": {a}}}]'),
    "mistral, id": (
        mistral, lambda n, a: f'[TOOL_CALLS] [{{"name": "{n}", "arguments": {a}, "id": "aB3"}}]',
    ),
    "mistral, turned round": (
        mistral, lambda n, a: f'[TOOL_CALLS][{{"arguments": {a}, "name": "{n}"}}]',
    ),
    "mistral, head": (mistral, lambda n, a: f"[TOOL_CALLS]{n}[ARGS]{a}"),
    "mistral, head with id": (mistral, lambda n, a: f"[TOOL_CALLS]{n}[CALL_ID]aB3[ARGS]{a}"),
    "mistral, short head": (mistral, lambda n, a: f"[TOOL_CALLS]{n}{a}"),
    "llama": (llama3, lambda n, a: f'{{"name": "{n}", "parameters": {a}}}'),
    "llama, type": (
        llama3, lambda n, a: f'\n{{"type": "function", "name": "{n}", "parameters": {a}}}\n',
    ),
    "llama, tag": (llama3, lambda n, a: f'<|python_tag|>{{"name": "{n}", "parameters": {a}}}'),
    "deepseek": (deepseek, lambda n, a: f"{ALL}{BEGIN}{n}{SEP}{a}{END}{LAST}"),
    "deepseek, fence": (
        deepseek,
        lambda n, a: f"{ALL}{BEGIN}function{SEP}{n}\n{FENCE}json\n{a}\n{FENCE}{END}{LAST}",
    ),
}  # fmt: skip
NOT_STREAMED = {"hermes, turned round", "mistral, turned round"}


@pytest.mark.parametrize("way", WRITTEN)
def test_a_call_is_the_same_wherever_its_text_is_cut(way: str) -> None:
    format_of, write = WRITTEN[way]
    arguments = '{"a": "é🦜\\n\\"}{</tool_call>", "b": [1, {"c": null}], "d": {}}'
    if way in NOT_STREAMED:
        arguments = arguments.replace("</tool_call>", "")
    text = write("f", arguments)
    expected = called(arguments)
    assert parsed(format_of, [text]) == expected
    assert parsed(format_of, list(text)) == expected
    for cut in range(len(text)):
        assert parsed(format_of, [text[:cut], text[cut:]]) == expected


@given(st.sampled_from([*WRITTEN]), objects, st.booleans(), st.lists(st.integers(0, 300)))
@example("hermes", {"a": "\ud800"}, False, [])
def test_the_arguments_are_json_with_the_value_that_was_written(
    way: str, value: dict[str, Any], compact: bool, cuts: list[int]
) -> None:
    format_of, write = WRITTEN[way]
    text = write("f", json.dumps(value, indent=None if compact else 1))
    assert added(parsed(format_of, split(text, cuts))) == ("", [("f", value)])


@pytest.mark.parametrize("way", sorted(WRITTEN.keys() - NOT_STREAMED))
def test_a_call_is_told_as_it_comes_and_its_end_once_it_is_whole(way: str) -> None:
    format_of, write = WRITTEN[way]
    text = write("f", '{"a": "' + "b" * 50 + '"}')
    parser = parser_of(format_of(TOOLS))
    seen: list[tuple[int, Event]] = []
    for place, letter in enumerate(text):
        seen += [(place, event) for event in parser.add(letter)]
    assert seen[0] == (text.index('{"a"'), ToolCallStart("f"))
    assert len(seen) > 50
    (last,) = [place for place, event in seen if event == ToolCallArguments("}")]
    assert text[last + 1 :].strip() in ("", "]", LAST)


@pytest.mark.parametrize("way", sorted(WRITTEN.keys() - {"mistral, short head"}))
def test_a_call_of_an_unknown_tool_is_told_when_it_is_whole(way: str) -> None:
    format_of, write = WRITTEN[way]
    text = write("unknown", '{"a": 1}')
    events = parsed(format_of, list(text))
    # For Llama 3 it is an answer that happens to be JSON.
    assert events == ([TextDelta(text.removeprefix("\n"))] if "llama" in way and "tag" not in way
                      else [TextDelta(text)] if "llama" in way
                      else called('{"a": 1}', "unknown"))  # fmt: skip


@pytest.mark.parametrize("way", WRITTEN)
def test_whatever_is_cut_off_is_no_call_and_no_letter_is_lost(way: str) -> None:
    format_of, write = WRITTEN[way]
    arguments = '{"a": "b"}'
    text = write("f", arguments)
    whole = text.rindex("}") + 1
    for cut in range(whole):
        content, calls = added(parsed(format_of, [text[:cut]]))
        if calls:
            # There is nothing behind the arguments that could still come.
            assert calls == [("f", {"a": "b"})]
            assert text[cut:].strip() in ("", "]")
        else:
            assert content.strip() == text[:cut].replace(ALL, "").strip()


BROKEN = [
    (hermes, '<tool_call>{"name": "f", "arguments": {"a": 1]}}</tool_call>'),
    (hermes, '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>'),
    (hermes, '<tool_call>{"name": "f", "arguments": {"a": 01}}</tool_call>'),
    (hermes, '<tool_call>{"name": "f", "arguments": {"a": "b\nc"}}</tool_call>'),
    (hermes, '<tool_call>{"name": "f", "arguments": {"a": 1}</tool_call>'),
    (hermes, '<tool_call>{"name": "f", "arguments": {"a": 1}}}</tool_call>'),
    (hermes, '<tool_call>{"name": "f", "arguments": {"a": 1}, "name": "g"}</tool_call>'),
    (hermes, '<tool_call>{"name": "f", "arguments": {"a": 1}, "arguments": {}}</tool_call>'),
    (hermes, '<tool_call>{"name": "f", "arguments": {"a": 1}'),
    (hermes, '<tool_call>{"name": "f", "arguments": ' + '{"a":' * 10_000 + "1" + "}" * 10_001),
    (mistral, '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}x'),
    (mistral, '[TOOL_CALLS]f[ARGS]{"a": oops}'),
    (llama3, '{"name": "f", "parameters": {"a": 1}, "b": 2}'),
    (deepseek, f'{BEGIN}f{SEP}{{"a": 1}}oops{END}'),
]


@pytest.mark.parametrize(("format_of", "text"), BROKEN)
def test_a_call_that_breaks_is_given_back_and_no_json(format_of: Format, text: str) -> None:
    events = parsed(format_of, [text])
    assert events[0] == ToolCallStart("f")
    assert any(isinstance(event, ToolCallBroken) for event in events)
    assert added(events) == (text, [])
    assert added(parsed(format_of, list(text))) == (text, [])
    parser = parser_of(format_of(TOOLS))
    told(parser, [text])
    assert not parser.called


@pytest.mark.parametrize(
    ("format_of", "text", "content", "names"),
    [
        (hermes, "A\n<tool_call>{}</tool_call>\nB", "A\n<tool_call>{}</tool_call>\nB", ""),
        (hermes, 'A <tool_call>{"name": "f", "arguments": {"a": 1]', None, ""),
        (mistral, '[TOOL_CALLS][{"name": "f", "arguments": {}}, {"name": "g", "arguments": {}}]',
         "", "fg"),
        (mistral, "Yes.[TOOL_CALLS]f[ARGS]{}[TOOL_CALLS]g[ARGS]{}", "Yes.", "fg"),
        (mistral, "[TOOL_CALLS]f[ARGS]{}g[ARGS]{} So.", " So.", "fg"),
        (mistral, "[TOOL_CALLS]f[ARGS]{} Or so", " Or so", "f"),
        (mistral, "[TOOL_CALLS] is a marker.", "[TOOL_CALLS] is a marker.", ""),
        (llama3, '{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}}', "", "fg"),
        (llama3, '{"name": "f", "parameters": {}}\n{"name": "g", "parameters": {}}', "", "fg"),
        (llama3, '{"name": "f", "parameters": {}} So.', " So.", "f"),
        (llama3, 'So: {"name": "f", "parameters": {}}', 'So: {"name": "f", "parameters": {}}', ""),
        (llama3, '{"name": "Bob", "parameters": {}}', '{"name": "Bob", "parameters": {}}', ""),
        (llama3, '{"a": 1}', '{"a": 1}', ""),
        (llama3, "{", "{", ""),
        (llama3, '<|python_tag|>print("a")', '<|python_tag|>print("a")', ""),
        (deepseek, f"A{ALL}{BEGIN}f{SEP}{{}}{END}\n{BEGIN}g{SEP}{{}}{END}{LAST}", "A", "fg"),
        (deepseek, f"{BEGIN}f{SEP}{{}}{END}", "", "f"),
        (deepseek, f"{ALL}A", "A", ""),
        (deepseek, f"{BEGIN}A", f"{BEGIN}A", ""),
    ],
)  # fmt: skip
def test_texts_around_and_between_calls(
    format_of: Format, text: str, content: str | None, names: str
) -> None:
    expected = text if content is None else content
    for pieces in ([text], list(text)):
        said, calls = added(told(parser_of(format_of(TOOLS)), pieces))
        assert (said, "".join(name for name, _ in calls)) == (expected, names)


def test_an_answer_that_is_json_is_not_held_back() -> None:
    parser = parser_of(llama3(TOOLS))
    assert [*parser.add('{"name": "Bob", "x')] == [TextDelta('{"name": "Bob", "x')]
    parser = parser_of(llama3(TOOLS))
    assert [*parser.add('{"a')] == [TextDelta('{"a')]


HOSTILE = {
    "opens": lambda opening: opening * 10_000,
    "open objects": lambda opening: (opening + "{") * 10_000,
    "open names": lambda opening: (opening + '{"name": "f", "arguments": {') * 5_000,
    "depth": lambda opening: opening + '{"name": "f", "arguments": ' + '{"a":' * 10_000,
    "lists": lambda opening: opening + "[" * 100_000,
    "a name": lambda opening: opening + '{"name": "' + "a" * 100_000,
    "a head": lambda opening: opening + "a" * 100_000,
    "space": lambda opening: opening + " " * 100_000,
    "spaced": lambda opening: (opening + " " * 100) * 1_000,
    "a text": lambda opening: opening + '{"name": "f", "arguments": {"a": "' + "b" * 100_000,
    "ends": lambda opening: (opening + "</tool_call>]" + END) * 3_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize(
    ("format_of", "opening"),
    [(hermes, "<tool_call>"), (mistral, "[TOOL_CALLS]"), (llama3, "<|python_tag|>"), (llama3, ""),
     (deepseek, BEGIN)],
)  # fmt: skip
def test_hostile_text_takes_linear_time(kind: str, format_of: Format, opening: str) -> None:
    text = HOSTILE[kind](opening)
    began = time.process_time()
    whole = added(told(parser_of(format_of(TOOLS)), [text]))
    small = added(told(parser_of(format_of(TOOLS)), split(text, range(0, len(text), 7))))
    assert whole == small == (text, [])
    assert time.process_time() - began < 20
