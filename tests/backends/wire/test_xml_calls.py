from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.tool_parsers.qwen3_coder import parse_tool_call

from backends.wire.events import Event, ToolCallArguments, ToolCallStart
from backends.wire.xml_calls import qwen3_coder
from tests.backends.wire.parsing import added, called, parser_of, split, told, tool

TYPES = {
    "text": "string", "count": "integer", "ratio": "number", "flag": "boolean", "items": "array",
    "thing": "object", "odd": "double", "int32": "int32",
}  # fmt: skip
F = tool("f", **TYPES)
F["function"]["parameters"]["properties"] |= {
    "anything": {"description": "of no type"},
    "maybe": {"type": ["null", "string"]},
    "several": {"type": ["integer", "string"]},
    "broken": 7,
}
TOOLS = (F, tool("g"), {"type": "function", "function": {"name": "h"}})


def parsed(pieces: list[str]) -> list[Event]:
    return told(parser_of(qwen3_coder(TOOLS), thinks=True), pieces)


def written(name: str, **values: str) -> str:
    parameters = "".join(f"<parameter={key}>\n{v}\n</parameter>\n" for key, v in values.items())
    return f"<tool_call>\n<function={name}>\n{parameters}</function>\n</tool_call>"


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("text", "5", "5"),
        ("text", "true", "true"),
        ("text", '{"a": 1}', '{"a": 1}'),
        ("text", "null", None),
        ("text", "NULL", None),
        ("text", "nullable", "nullable"),
        ("text", "", ""),
        ("text", "\n\na long text\n\n", "\n\na long text\n\n"),
        ("text", 'é🦜 "\\ </function> </tool_call> <parameter=a>', None),
        ("count", "5", 5),
        ("count", "5.0", 5),
        ("count", "12345678901234567891", 12345678901234567891),
        ("count", "five", "five"),
        ("count", "1.5", "1.5"),
        ("int32", "7", 7),
        ("ratio", "2.5", 2.5),
        ("ratio", "1e400", "1e400"),
        ("ratio", "nan", "nan"),
        ("flag", "True", True),
        ("flag", "no", False),
        ("items", "[1, 2]", [1, 2]),
        ("items", "['a', None]", ["a", None]),
        ("items", "[" * 10_000, "[" * 10_000),
        ("thing", '{"a": "b\nc"}', {"a": "b\nc"}),
        ("thing", "{'a': True}", {"a": True}),
        ("thing", "{1, 2}", "{1, 2}"),
        ("thing", '{"a": NaN}', '{"a": NaN}'),
        ("thing", r"'\d'", r"\d"),
        ("odd", "2.5", 2.5),
        ("anything", "5", "5"),
        ("anything", "[5]", [5]),
        ("maybe", "5", "5"),
        ("several", "5", 5),
        ("broken", "5", "5"),
        ("unknown", "5", "5"),
    ],
)
def test_a_value_has_the_type_that_the_schema_names(key: str, value: str, read: Any) -> None:
    text = written("f", **{key: value})
    expected = ("", [("f", {key: value if read is None and len(value) > 9 else read})])
    assert added(parsed([text])) == expected
    assert added(parsed(list(text))) == expected


# What mlx-lm's parser reads wrongly or not at all is left out: a whole number of many digits goes
# through a float there, and one value that is not of its type spoils the call.
values = {
    "text": st.text('ab <>/=\n"\\é🦜', max_size=30).filter(lambda v: "</parameter" not in v)
    | st.sampled_from(["null", "5", "true", "\n", "nul"]),
    "count": st.integers(-(2**50), 2**50).map(str),
    "ratio": st.floats(-1e9, 1e9).map(str) | st.integers(-9, 9).map(str),
    "flag": st.sampled_from(["true", "false", "True", "yes"]),
    "items": st.lists(st.integers() | st.text("ab")).map(json.dumps),
    "thing": st.dictionaries(st.text("ab"), st.none() | st.booleans()).map(str),
    "anything": st.sampled_from(["5", "[5]", "{}", "[", "null"]),
    "unknown": st.text("ab\n", max_size=20),
}


@given(st.fixed_dictionaries({}, optional=values), st.lists(st.integers(0, 400), max_size=8))
def test_it_reads_what_the_parser_of_mlx_lm_reads(
    arguments: dict[str, str], cuts: list[int]
) -> None:
    text = written("f", **arguments)
    inner = text.removeprefix("<tool_call>").removesuffix("</tool_call>")
    theirs = parse_tool_call(inner, list(TOOLS))
    assert added(parsed(split(text, cuts))) == ("", [("f", theirs["arguments"])])
    assert parsed(list(text)) == parsed([text])


def test_a_call_is_the_same_wherever_its_text_is_cut() -> None:
    text = written("f", text="é🦜\n</para>\nb", count="5", items="[1]")
    expected = called('{"text": "é🦜\\n</para>\\nb", "count": 5, "items": [1]}')
    for cut in range(len(text)):
        assert parsed([text[:cut], text[cut:]]) == expected


def test_texts_are_told_as_they_come_and_the_rest_by_parameter() -> None:
    parser = parser_of(qwen3_coder(TOOLS))
    events = [*parser.add("<tool_call>\n<function=f>\n<parameter=text>\n" + "a" * 10)]
    assert events == [
        ToolCallStart("f"),
        ToolCallArguments('{"text": '),
        ToolCallArguments('"' + "a" * 10),
    ]
    assert [*parser.add("b\n")] == [ToolCallArguments("b")]
    assert [*parser.add("c\n</parameter>")] == [ToolCallArguments('\\nc"')]
    assert [*parser.add("<parameter=count>1")] == [ToolCallArguments(', "count": ')]
    assert [*parser.add("2</parameter>")] == [ToolCallArguments("12")]
    assert [*parser.add("\n</function>")] == [ToolCallArguments("}")]


G = "<function=g></function>"


@pytest.mark.parametrize(
    ("text", "content", "names"),
    [
        (f"A\n<tool_call>{G}</tool_call>\n", "A", "g"),
        (f"<tool_call>{G}\n{G}</tool_call> B", " B", "gg"),
        (f"<tool_call>{G}</tool_call>\n<tool_call>{G}</tool_call>", "", "gg"),
        (f"<tool_call>{G}", "", "g"),
        (f"<tool_call>{G} oops", " oops", "g"),
        (G, "", "g"),
        ("<tool_call>\n<function=h>\n</function>\n</tool_call>", "", "h"),
        ("<tool_call><function=x></function></tool_call>", "", "x"),
        ("<function=x></function>", None, ""),
        ("<tool_call>oops</tool_call>", None, ""),
        ("<tool_call>", None, ""),
        ("<function=", None, ""),
        ("<function=g", None, ""),
        ("<function=g>", None, ""),
        ("<tool_call><function=g></tool_call>", None, ""),
        ("<tool_call><function=g><parameter=a>b</function></tool_call>", None, ""),
        ("<tool_call><function=x><parameter=a>b", None, ""),
        ("<tool_call><function=g><parameter=>b</parameter></function></tool_call>", "", "g"),
        ("<tool_call><function=g> a <parameter=b >", None, ""),
    ],
)
def test_texts_around_and_between_calls(text: str, content: str | None, names: str) -> None:
    for pieces in ([text], list(text)):
        said, calls = added(told(parser_of(qwen3_coder(TOOLS)), pieces))
        found = "".join(name for name, _ in calls)
        assert (said, found) == (text if content is None else content, names)


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>" * 10_000, "<function=" * 10_000, "<function=g>" * 10_000,
        "<function=g>" + "<parameter=a>" * 10_000, "<function=g>" + "<parameter=" * 10_000,
        "<function=" + "a" * 100_000, "<function=g><parameter=" + "a" * 100_000,
        "<function=g><parameter=a>" + "\n" * 100_000,
        "<function=f><parameter=items>" + "[" * 100_000,
        "<function=g><parameter=a>" + "</param" * 20_000,
    ],
)  # fmt: skip
def test_hostile_text_takes_linear_time(text: str) -> None:
    began = time.process_time()
    small = split(text, range(0, len(text), 7))
    assert added(told(parser_of(qwen3_coder(TOOLS)), small)) == (text, [])
    assert time.process_time() - began < 20
