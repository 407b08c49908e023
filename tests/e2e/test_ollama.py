"""Ollama's dialect on the real engines, asked by Ollama's own Python client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import ollama
import pytest

from tests.e2e.conftest import MODELS
from tests.e2e.daemon import Daemon
from tests.tiny import dialogues as d

GREEDY = {"temperature": 0}
LIKELIHOODS = [model for model, engine in MODELS.items() if engine != "mistral.rs"]
"""Models on engines that tell them."""


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[ollama.Client]:
    with ollama.Client(host=daemon.url, timeout=300, trust_env=False) as client:
        yield client


def test_models_are_listed_and_shown(client: ollama.Client, model: str) -> None:
    assert {one.model for one in client.list().models} >= set(MODELS)
    shown = client.show(model)
    assert "completion" in (shown.capabilities or [])
    assert shown.details
    assert shown.modelinfo


def test_a_chat(client: ollama.Client, model: str) -> None:
    answer = client.chat(f"{model}:latest", [d.user(d.QUESTION)], options=GREEDY)
    assert answer.message.content == d.SENTENCE
    assert (answer.done, answer.done_reason) == (True, "stop")
    assert answer.prompt_eval_count
    assert answer.eval_count
    assert answer.total_duration
    assert answer.eval_duration
    running = {one.model: one for one in client.ps().models}
    assert running[model].expires_at


def test_a_stream(client: ollama.Client, model: str) -> None:
    parts = list(client.chat(model, [d.user(d.FOOD_QUESTION)], options=GREEDY, stream=True))
    assert "".join(part.message.content or "" for part in parts) == d.FOOD
    assert len(parts) > 3
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].eval_count
    assert parts[-1].prompt_eval_count


def test_tools_there_and_back(client: ollama.Client, model: str) -> None:
    messages: list[Any] = [d.user(d.WEATHER_QUESTION)]
    tools = [d.WEATHER_TOOL]
    whole = client.chat(model, messages, tools=tools, options=GREEDY)
    streamed = client.chat(model, messages, tools=tools, options=GREEDY, stream=True)
    called = [call for part in streamed for call in part.message.tool_calls or ()]
    for (call,) in (whole.message.tool_calls or (), called):
        assert (call.function.name, call.function.arguments) == (
            "get_weather", d.WEATHER_ARGUMENTS,
        )  # fmt: skip
    result = {"role": "tool", "tool_name": "get_weather", "content": d.WEATHER_TOOL_RESULT}
    answer = client.chat(model, [*messages, whole.message, result], tools=tools, options=GREEDY)
    assert answer.message.content == d.WEATHER


def test_a_prompt_with_and_without_the_template(client: ollama.Client, model: str) -> None:
    answer = client.generate(model, d.QUESTION, system=d.SYSTEM, options=GREEDY)
    assert answer.response == d.SENTENCE
    raw = client.generate(model, d.PROMPT, raw=True, options={**GREEDY, "num_predict": 3})
    assert raw.response
    assert d.CONTINUATION.startswith(raw.response)
    assert raw.done_reason == "length"
    parts = client.generate(model, d.QUESTION, options=GREEDY, stream=True)
    assert "".join(part.response or "" for part in parts) == d.SENTENCE


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihoods_of_tokens(client: ollama.Client, name: str) -> None:
    fields: dict[str, Any] = {"logprobs": True, "top_logprobs": 2, "options": GREEDY}
    whole = client.chat(name, [d.user(d.QUESTION)], **fields).logprobs or ()
    parts = client.generate(name, d.QUESTION, stream=True, **fields)
    streamed = [one for part in parts for one in part.logprobs or ()]
    for told in (whole, streamed):
        assert "".join(one.token for one in told) == d.SENTENCE
        assert all(len(one.top_logprobs or ()) == 2 for one in told)


def test_an_answer_of_a_demanded_form(client: ollama.Client, model: str) -> None:
    schema = {
        "type": "object",
        "properties": {"size": {"enum": ["small", "big"]}},
        "required": ["size"],
        "additionalProperties": False,
    }
    answer = client.chat(model, [d.user(d.QUESTION)], format=schema, options=GREEDY)
    assert json.loads(answer.message.content or "")["size"] in ("small", "big")


def test_errors(client: ollama.Client, model: str) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat("absent", [d.user(d.QUESTION)])
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match=r"options\.stop\.0") as caught:
        client.chat(model, [d.user(d.QUESTION)], options={"stop": [1]})
    assert caught.value.status_code == 400
    picture = {**d.user("What is it?"), "images": ["iVBORw0KGgo="]}
    with pytest.raises(ollama.ResponseError, match="cannot see") as caught:
        client.chat(model, [picture], stream=False)
    assert caught.value.status_code == 400


def test_a_client_that_leaves_ends_the_answer(
    client: ollama.Client, daemon: Daemon, model: str
) -> None:
    answer = client.chat(model, [d.user(d.SONG_QUESTION)], options=GREEDY, stream=True)
    next(iter(answer))
    answer.close()  # type: ignore[attr-defined]
    assert client.generate(model, d.QUESTION, options=GREEDY).response == d.SENTENCE
    (status,) = [one for one in daemon.status()["instances"] if one["model"] == model]
    assert status["leases"] == 0


def test_a_model_is_loaded_and_let_go(client: ollama.Client, model: str) -> None:
    assert client.generate(model, keep_alive="10m").done_reason == "load"
    assert model in {one.model for one in client.ps().models}
    assert client.chat(model, [], keep_alive=0).done_reason == "unload"
