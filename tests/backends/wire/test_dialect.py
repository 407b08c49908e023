from __future__ import annotations

from typing import Any

import pytest

from backends.wire.answer_parser import ReasoningFormat
from backends.wire.dialect import Dialect, dialect_of
from backends.wire.events import ReasoningDelta, TextDelta
from backends.wire.json_calls import deepseek, hermes, llama3, mistral
from backends.wire.request import GenerationRequest
from backends.wire.xml_calls import qwen3_coder
from tests.backends.wire.parsing import TOOLS, called, told

IPYTHON = '{{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}'


@pytest.mark.parametrize(
    ("template", "tools"),
    [
        ("<tool_call>\n{\"name\": <function-name>}\n</tool_call>", hermes),
        ("{{ '<tool_call>\\n<function=' + tool_call.name }}", qwen3_coder),
        ("<tool_call>\n<function=example>", qwen3_coder),
        ("{{ '[TOOL_CALLS][' }}", mistral),
        (IPYTHON, llama3),
        ('<|python_tag|> {"name": function name, "parameters": {}}', llama3),
        ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>", deepseek),
        ("<tool_call>{{ name }}<arg_key>", None),
        ("<minimax:tool_call><tool_call>", None),
        ("{{ messages }}", None),
        ("", None),
    ],
)  # fmt: skip
def test_a_template_tells_how_calls_are_written(template: str, tools: Any) -> None:
    assert dialect_of(template).tools is tools
    assert dialect_of(template).calls == (tools is not None)


@pytest.mark.parametrize(
    ("template", "start"),
    [("{{ content.split('</think>') }}", "<think>"), ("[THINK]a[/THINK]", "[THINK]"), ("", None)],
)
def test_a_template_tells_how_thoughts_are_written(template: str, start: str | None) -> None:
    reasoning = dialect_of(template).reasoning
    assert (reasoning and reasoning.start) == start


def test_harmony_is_told_from_its_markers() -> None:
    dialect = dialect_of("<|start|>system<|message|>… <|channel|>")
    assert dialect == Dialect(harmony=True)
    answer = "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b"
    events = told(dialect.parser(CHAT, "<|start|>assistant"), [answer])
    assert events == [ReasoningDelta("a"), TextDelta("b")]


CHAT = GenerationRequest(messages=({"role": "user", "content": "a"},), tools=TOOLS)
THINKS = Dialect(ReasoningFormat(), hermes)
CALL = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'


def test_a_prompt_may_open_or_close_the_thought() -> None:
    for end, events in {
        "<think>\n": [ReasoningDelta("a"), TextDelta("b")],
        "<think>\n\n</think>\n\n": [TextDelta("a</think>b")],
        "assistant\n": [TextDelta("a</think>b")],
    }.items():
        assert told(THINKS.parser(CHAT, end), ["a</think>b"]) == events
    assert told(THINKS.parser(CHAT, ""), ["<think>a</think>", CALL]) == [
        ReasoningDelta("a"),
        *called("{}"),
    ]


def test_without_tools_and_without_a_chat_a_call_is_text() -> None:
    for request in (GenerationRequest(messages=CHAT.messages), GenerationRequest(prompt="a")):
        assert told(THINKS.parser(request, ""), [CALL]) == [TextDelta(CALL)]
    assert told(THINKS.parser(GenerationRequest(prompt="a"), ""), ["<think>a"]) == [
        TextDelta("<think>a")
    ]
