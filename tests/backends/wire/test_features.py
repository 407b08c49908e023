from __future__ import annotations

import json
from typing import Any

import pytest

from backends.errors import BadRequestError
from backends.wire.features import (
    EMBEDDING_FEATURES,
    EVERY,
    FEATURES,
    asked_for,
    honoured,
    unsupported,
)
from backends.wire.request import parse

HELLO = {"role": "user", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}

ASKED: dict[str, Any] = {
    "n": 2, "best_of": 2, "logprobs": 0, "top_logprobs": 1,
    "response_format": {"type": "json_object"}, "tool_choice": "required", "seed": 0,
    "logit_bias": {"1": 1}, "echo": True, "suffix": "a", "grammar": "root ::= a",
    "grammar (an object)": {"type": "regex", "value": "a"}, "grammar (in Lark)": " %llguidance {}",
    "grammar (with tools)": "root ::= a", "response_format (of a text)": {"type": "json_object"},
    "json_schema": {"type": "object"}, "prompt (token ids)": [[1, 2]],
    "prompt (several)": ["a", "b"],
    "tool_choice (none)": "none", "parallel_tool_calls (false)": False,
    "tool_choice (a function)": {"type": "function", "function": {"name": "f"}},
    "stop (an empty text)": ["", "a"], "repetition_penalty": 1.1, "reasoning_effort": "low",
    "response_format (minProperties, maxProperties, patternProperties, multipleOf)": {
        "type": "json_schema", "json_schema": {"schema": {"items": {"multipleOf": 5}}},
    },
    "logprobs (0)": 0, "functions": [{"name": "f"}],
    "function_call": {"name": "f"}, "modalities": ["text", "audio"], "web_search_options": {},
    "dynatemp_range": 0.5, "typical_p": 0.5, "top_n_sigma": 1.0, "xtc_probability": 0.1,
    "dry_multiplier": 0.8, "mirostat": 2, "ignore_eos": True,
}  # fmt: skip


def test_every_feature_is_tested() -> None:
    assert ASKED.keys() == FEATURES.keys()


@pytest.mark.parametrize("name", FEATURES)
def test_what_an_engine_does_not_have_is_refused_by_name(name: str) -> None:
    param = name.partition(" ")[0]
    chat = param != "prompt" and "text" not in name.partition("(of")[2] and name != "logprobs (0)"
    asked = {"messages": [HELLO], "tools": [TOOL]} if chat else {"prompt": "a"}
    body = json.dumps({**asked, param: ASKED[name]}).encode()
    with pytest.raises(BadRequestError, match=f"`{param}`.* is not supported by fake") as caught:
        parse(body, chat=chat, engine="fake", supported=frozenset(FEATURES) - {name})
    assert caught.value.param == param
    if not name.endswith("logprobs"):
        # Those two depend on each other.
        parse(body, chat=chat, engine="fake", supported=frozenset(FEATURES))


@pytest.mark.parametrize(
    ("name", "value"),
    [("n", 1), ("best_of", 1), ("logprobs", False), ("tool_choice", "auto"), ("echo", False),
     ("response_format", {"type": "text"}), ("suffix", ""), ("logit_bias", {}), ("seed", -1),
     ("typical_p", 1.0), ("mirostat", 0), ("dry_multiplier", 0.0), ("xtc_probability", 0.0),
     ("top_n_sigma", -1.0), ("dynatemp_range", 0.0), ("ignore_eos", False), ("functions", []),
     ("function_call", "none"), ("modalities", ["text"]), ("web_search_options", None),
     ("grammar", ""), ("prompt", [["a"]])],
)  # fmt: skip
def test_asking_for_what_happens_anyway_is_no_feature(name: str, value: Any) -> None:
    assert asked_for({name: value}) == frozenset()


@pytest.mark.parametrize("value", [None, 5, "a", [], {}, [{}], {"type": []}, [[]], True, 1e9])
def test_whatever_a_value_is_it_can_be_asked_about(value: Any) -> None:
    for name in (*FEATURES, "prompt"):
        asked_for({name.partition(" ")[0]: value})


def test_an_engine_has_what_the_table_says_and_an_unknown_one_nothing() -> None:
    assert honoured("nobody") == frozenset()
    both = {**FEATURES, **EMBEDDING_FEATURES}
    for engine in EVERY:
        assert honoured(engine) == {name for name in both if engine in both[name].engines}


def test_who_lacks_something_is_told_who_has_it() -> None:
    assert "llama.cpp and mlx have it" in unsupported("seed", "mistral.rs").message
    assert "; mlx has it" in unsupported("dimensions", "llama.cpp").message
    assert "no engine here has it" in unsupported("echo", "mlx").message
    ids = unsupported("prompt (token ids)", "mistral.rs")
    assert ids.message.startswith("`prompt` (token ids) is not supported by mistral.rs;")
    assert ids.param == "prompt"
