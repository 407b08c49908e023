"""Answers of a demanded form on mlx, streamed to the official client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from openai import BadRequestError, OpenAI

from tests.backends.mlx.schemas import random_schema
from tests.conftest import Variant
from tests.e2e.daemon import Daemon, serving
from tests.tiny import dialogues as d
from tests.tiny.others import forgetful, thoughtful
from tests.tiny.variants import build

SONG: Any = {
    "type": "object",
    "properties": {
        "song": {"enum": ["la", "lalala"]},
        "times": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["song", "times"],
    "additionalProperties": False,
}
SING: Any = {"type": "function", "function": {"name": "sing", "parameters": SONG}}
WEATHER: Any = d.WEATHER_TOOL
NAMED: Any = {"type": "function", "function": {"name": "sing"}}


@pytest.fixture(scope="module")
def daemon(variant: Variant, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("forms")
    build("mlx-4bit", root / "parrot")
    names = ("forgetful", "thoughtful")
    for make, name in zip((forgetful, thoughtful), names, strict=True):
        make(variant("safetensors"), root / name)
    wishes = [word for name in names for word in ("--engine", f"{name}=mlx")]
    with serving(root, flags=tuple(wishes)) as running:
        yield running


def streamed(daemon: Daemon, model: str, question: str, **fields: Any) -> Any:
    """The whole answer as the client adds it up, which it does by OpenAI's rules."""
    fields = {"temperature": 0, "max_tokens": 400, **fields}
    messages: Any = [d.user(question)]
    with (
        OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client,
        client.chat.completions.stream(model=model, messages=messages, **fields) as stream,
    ):
        kinds = [event.type for event in stream]
        assert kinds.count("chunk") > 1
        return stream.get_final_completion().choices[0]


def schema_format(schema: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}


@pytest.mark.parametrize("model", ["parrot", "forgetful"])
def test_an_answer_of_a_schema_is_valid_when_the_stream_ends(daemon: Daemon, model: str) -> None:
    for seed in range(4):
        schema = random_schema(seed)
        form = schema_format(schema)
        choice = streamed(daemon, model, d.QUESTION, response_format=form, temperature=1, seed=seed)
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content), schema)


@pytest.mark.parametrize("model", ["parrot", "forgetful"])
@pytest.mark.parametrize("chosen", ["required", NAMED])
def test_a_demanded_call_is_streamed_as_a_call(daemon: Daemon, model: str, chosen: Any) -> None:
    tools = [SING] if chosen == "required" else [WEATHER, SING]
    choice = streamed(
        daemon,
        model,
        d.WEATHER_QUESTION,
        tools=tools,
        tool_choice=chosen,
        parallel_tool_calls=False,
        temperature=1,
    )
    assert choice.finish_reason == "tool_calls"
    assert not choice.message.content
    (call,) = choice.message.tool_calls
    assert call.function.name == "sing"
    jsonschema.validate(json.loads(call.function.arguments), SONG)


def test_a_call_in_place_of_a_formed_answer_is_streamed_as_a_call(daemon: Daemon) -> None:
    choice = streamed(
        daemon,
        "parrot",
        d.WEATHER_QUESTION,
        tools=[WEATHER],
        response_format={"type": "json_object"},
    )
    (call,) = choice.message.tool_calls
    assert json.loads(call.function.arguments) == d.WEATHER_ARGUMENTS


def test_a_thought_comes_before_the_form_in_a_field_of_its_own(daemon: Daemon) -> None:
    choice = streamed(
        daemon,
        "thoughtful",
        d.WEATHER_QUESTION,
        tools=[WEATHER],
        response_format=schema_format({"enum": ["yes", "no"]}),
    )
    assert json.loads(choice.message.content) in ("yes", "no")
    assert json.loads(choice.message.reasoning_content)["arguments"] == d.WEATHER_ARGUMENTS


def test_a_form_that_cannot_be_kept_is_refused_before_the_stream(daemon: Daemon) -> None:
    with pytest.raises(BadRequestError) as caught:
        streamed(daemon, "parrot", d.QUESTION, response_format=schema_format({"not": {}}))
    assert caught.value.param == "response_format.json_schema.schema"


def test_a_call_that_was_cut_off_can_be_sent_again(daemon: Daemon) -> None:
    """And the conversation goes on."""
    function = {"name": "get_weather", "arguments": '{"city": "Par'}
    call = {"id": "call_1", "type": "function", "function": function}
    body = {
        "model": "parrot",
        "messages": [
            d.user(d.WEATHER_QUESTION),
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "no JSON"},
            d.user(d.QUESTION),
        ],
        "tools": [d.WEATHER_TOOL],
        "max_tokens": 5,
    }
    with daemon.client() as api:
        answer = api.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
