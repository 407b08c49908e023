"""The grammars that mistral.rs gets, taken by llguidance as it takes them: letter by letter."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from backends.mistral_rs.engine import SUPPORTED
from backends.mistral_rs.grammar import Grammars, reason
from backends.mistral_rs.text import stop_ids_of_folder
from backends.wire.answer_parser import ReasoningFormat
from backends.wire.dialect import Dialect
from backends.wire.notation import HERMES
from backends.wire.request import GenerationRequest, parse
from tests.backends.wire.parsing import TOOLS

WORDS = LLTokenizer("byte")
YES = {"grammar": 'root ::= "yes"'}
THINKS = Dialect(ReasoningFormat())


def asking(**body: Any) -> GenerationRequest:
    raw = json.dumps({"messages": [{"role": "user", "content": "a"}], **body}).encode()
    return parse(raw, chat=True, engine="mistral.rs", supported=SUPPORTED)


def takes(dialect: Dialect, answer: str, prompt_end: str = "", **body: Any) -> bool:
    """No marker is one token, and no token ends an answer."""
    grammars = Grammars(dialect, lambda text: list(text.encode()), frozenset())
    text = grammars.text(asking(**body), prompt_end)
    assert text is not None
    matcher = LLMatcher(WORDS, text, log_level=0)
    ids = WORDS.tokenize_str(answer)
    return bool(matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting())


def test_without_a_demand_there_is_no_grammar() -> None:
    grammars = Grammars(THINKS, lambda text: list(text.encode()), frozenset({2}))
    assert grammars.text(asking(), "") is None
    assert grammars.text(asking(tools=list(TOOLS), parallel_tool_calls=False), "") is None


@pytest.mark.parametrize("space", ["", "\n", "\n\n"])
def test_a_thought_comes_before_the_form(space: str) -> None:
    assert takes(THINKS, f"<think>Hm, </ no.</think>{space}yes", **YES)
    assert takes(THINKS, f"{space}yes", **YES)
    assert not takes(THINKS, f"<think>Hm</think>{space}no", **YES)
    assert not takes(THINKS, "<think>Hm", **YES)
    assert not takes(THINKS, "Hm</think>yes", **YES)


def test_a_prompt_may_open_or_close_the_thought() -> None:
    assert takes(THINKS, "Hm</think>yes", "<think>\n", **YES)
    assert not takes(THINKS, "yes", "<think>\n", **YES)
    assert takes(THINKS, "yes", "<think>\n\n</think>\n", **YES)
    assert not takes(THINKS, "<think>Hm</think>yes", "<think></think>", **YES)


def test_a_demanded_call_comes_after_a_thought() -> None:
    dialect = Dialect(ReasoningFormat(), HERMES)
    call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    body: dict[str, Any] = {"tools": list(TOOLS), "tool_choice": "required"}
    assert takes(dialect, f"<think>Hm</think>\n\n{call}", **body)
    assert takes(dialect, call, **body)
    assert not takes(dialect, "<think>Hm</think>yes", **body)


def test_the_forms_of_harmony_stand_in_their_channels() -> None:
    dialect = Dialect(harmony=True)
    final = "<|channel|>final<|message|>"
    call = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}"
    assert takes(dialect, f"{final}yes", **YES)
    assert not takes(dialect, "yes", **YES)
    tools = list(TOOLS)
    assert takes(dialect, call, tools=tools, tool_choice="required")
    assert not takes(dialect, f"{final}yes", tools=tools, tool_choice="required")
    assert takes(dialect, call, tools=tools, **YES)
    assert takes(dialect, f"{final}yes", tools=tools, **YES)


def test_white_space_in_json_is_bounded() -> None:
    form: dict[str, Any] = {"response_format": {"type": "json_object"}}
    for spaced in ('{"a": [1, 2], "b": {}}', '{"a":[1,2],"b":{}}'):
        assert takes(Dialect(), spaced, **form)
    for spaced in ('{"a":  1}', '{ "a": 1}', '{"a" : 1}', '{"a": 1\n}'):
        assert not takes(Dialect(), spaced, **form)


def test_only_what_is_said_of_grammars_is_a_reason() -> None:
    assert reason(ValueError("Invalid grammar. at 1(8): unknown name")) == "at 1(8): unknown name"
    assert reason(ValueError("NoExtensionBias\n<state>")) == "NoExtensionBias\n<state>"
    assert reason(ValueError("Channel was erroneously closed")) is None


@pytest.mark.parametrize(
    ("generation", "config", "found"),
    [
        ({"eos_token_id": [2, 0, "a", True]}, {"eos_token_id": 7}, {0, 2}),
        ({}, {"eos_token_id": 7}, {7}),
        ({"eos_token_id": None}, {"eos_token_id": True}, set()),
    ],
)
def test_the_ends_of_answers_are_told_as_transformers_tells_them(
    tmp_path: Any, generation: Any, config: Any, found: set[int]
) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert stop_ids_of_folder(tmp_path) == found
