"""What a client says in words that its engine does not have."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from backends.wire.features import FEATURES
from backends.wire.request import check
from router.api.body import asked
from router.api.engine_body import ONE_CALL, RETOLD, for_engine
from router.api.task import CHAT, TEXT
from tests.router.entries import entry, yes

HELLO = {"role": "user", "content": "Hello"}
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]
NAMED = {"type": "function", "function": {"name": "g"}}
SCHEMA = {"type": "array"}


def told(engine: str, *, chat: bool = True, **fields: Any) -> dict[str, Any]:
    """What the engine gets beside the model and the prompt."""
    name, prompt = ("messages", [HELLO]) if chat else ("prompt", "a")
    body = json.dumps({"model": "m", name: prompt, **fields}).encode()
    request = asked(body, name, lambda value: check(value, chat=chat))
    mending = asyncio.run(
        for_engine(body, request, entry("m", yes(engine)), CHAT if chat else TEXT)
    )
    whole = json.loads(mending.body)
    return {key: value for key, value in whole.items() if key not in ("model", name)}


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ({"repetition_penalty": 1.5, "repeat_penalty": 1.1}, {"repeat_penalty": 1.5}),
        ({"stop": ["", "a"]}, {"stop": ["a"]}),
        ({"stop": ""}, {"stop": []}),
        ({"tools": TOOLS, "tool_choice": "none", "top_k": 1}, {"top_k": 1}),
        (
            {"tools": TOOLS, "tool_choice": NAMED},
            {"tools": TOOLS[1:], "tool_choice": "required", "parallel_tool_calls": False},
        ),
        (
            {"reasoning_effort": "low", "chat_template_kwargs": {"a": 1}},
            {"chat_template_kwargs":
             {"enable_thinking": True, "reasoning_effort": "low", "a": 1}},
        ),
        ({"reasoning_effort": "none"}, {"chat_template_kwargs": {"enable_thinking": False}}),
    ],
)  # fmt: skip
def test_llama_cpp_is_told_in_words_that_it_knows(
    said: dict[str, Any], heard: dict[str, Any]
) -> None:
    assert told("llama.cpp", **said) == heard
    assert told("mlx", **said) == said


@pytest.mark.parametrize(
    ("form", "schema"),
    [
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_object", "schema": SCHEMA}, SCHEMA),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}, SCHEMA),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}, {}),
    ],
)
def test_llama_cpp_is_told_the_form_of_a_text_by_its_schema(form: Any, schema: Any) -> None:
    assert told("llama.cpp", chat=False, response_format=form) == {"json_schema": schema}
    assert told("llama.cpp", response_format=form) == {"response_format": form}


def test_what_all_engines_say_alike_goes_as_it_came() -> None:
    said: dict[str, Any] = {"stop": ["a"], "tools": TOOLS, "tool_choice": "auto"}
    assert told("llama.cpp", **said) == said


def test_whatever_is_told_otherwise_is_a_feature_of_its_engine() -> None:
    assert all(engine in FEATURES[name].engines for engine, name in {*RETOLD, *ONE_CALL})
