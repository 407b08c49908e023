from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backends.wire.answer_parser import ReasoningFormat
from backends.wire.constraint import constraint
from backends.wire.dialect import Dialect, dialect_of
from backends.wire.events import ReasoningDelta, TextDelta
from backends.wire.notation import (
    DEEPSEEK,
    DEEPSEEK_FENCED,
    HERMES,
    LLAMA3,
    MISTRAL,
    MISTRAL_LIST,
    MISTRAL_WITH_ID,
    QWEN3_CODER,
)
from backends.wire.request import GenerationRequest
from tests.backends.wire.parsing import TOOLS, called, told

IPYTHON = '{{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}'


@pytest.mark.parametrize(
    ("template", "tools"),
    [
        ("<tool_call>\n{\"name\": <function-name>}\n</tool_call>", HERMES),
        ("{{ '<tool_call>\\n<function=' + tool_call.name }}", QWEN3_CODER),
        ("<tool_call>\n<function=example>", QWEN3_CODER),
        ("{{ '[TOOL_CALLS][' }}", MISTRAL_LIST),
        ("{{ '[TOOL_CALLS]' + name + '[ARGS]' }}", MISTRAL),
        ("{{ '[TOOL_CALLS]' + name + '[CALL_ID]' + id + '[ARGS]' }}", MISTRAL_WITH_ID),
        (IPYTHON, LLAMA3),
        ('<|python_tag|> {"name": function name, "parameters": {}}', LLAMA3),
        ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>", DEEPSEEK),
        ("<｜tool▁call▁begin｜>function<｜tool▁sep｜>{{ name }}\n```json", DEEPSEEK_FENCED),
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


def test_in_harmony_only_a_demanded_call_needs_a_grammar_beside_the_answers() -> None:
    harmony, hermes, unknown = Dialect(harmony=True), Dialect(tools=HERMES), Dialect()

    def held(dialect: Dialect, **body: Any) -> tuple[bool, bool]:
        asked = constraint(body, TOOLS, chat=True)
        left = dialect.demanded(replace(CHAT, constraint=asked))
        return bool(left and left.answer), bool(left and left.calls)

    form: dict[str, Any] = {"response_format": {"type": "json_object"}}
    assert held(harmony, tool_choice="required", **form) == (False, True)
    assert held(harmony, parallel_tool_calls=False) == (False, False)
    assert held(harmony, **form) == (True, False)
    assert held(unknown, tool_choice="required") == (False, True)
    assert held(unknown, parallel_tool_calls=False) == (False, False)
    assert held(unknown, **form) == (True, False)
    assert held(hermes, parallel_tool_calls=False) == (False, True)
    assert held(hermes, **form) == (True, True)


CHAT = GenerationRequest(messages=({"role": "user", "content": "a"},), tools=TOOLS)
THINKS = Dialect(ReasoningFormat(), HERMES)
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
