"""Answers of a demanded form, in the wheel of mistral.rs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest

from tests.backends.mlx.schemas import random_schema
from tests.conftest import Variant
from tests.e2e.daemon import Daemon, serving
from tests.tiny import dialogues as d
from tests.tiny.others import forgetful, thoughtful

MODELS = ("safetensors", "gguf-f32", "forgetful")

SING: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "sing",
        "parameters": {
            "type": "object",
            "properties": {
                "song": {"enum": ["la", "lalala"]},
                "times": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["song", "times"],
            "additionalProperties": False,
        },
    },
}
NAMED = {"type": "function", "function": {"name": "sing"}}


@pytest.fixture(scope="module")
def daemon(variant: Variant, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("forms")
    for name in ("safetensors", "gguf-f32"):
        shutil.copytree(variant(name), root / name)
    forgetful(variant("safetensors"), root / "forgetful")
    thoughtful(variant("safetensors"), root / "thoughtful")
    names = (*MODELS, "thoughtful")
    wishes = [word for name in names for word in ("--engine", f"{name}=mistral.rs")]
    with serving(root, flags=(*wishes, "--parallel", "4")) as running:
        yield running


def said(answer: Any) -> Any:
    """The one choice of an answer."""
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    return choice


def schema_format(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}


@pytest.mark.parametrize("model", MODELS)
def test_answers_to_schemas_are_valid_and_end(daemon: Daemon, model: str) -> None:
    """Four at once, and one of no form beside them."""

    def ask(seed: int) -> Any:
        form = schema_format(random_schema(seed))
        return daemon.chat(model, d.QUESTION, response_format=form, temperature=1, max_tokens=400)

    with ThreadPoolExecutor(4) as threads:
        plain = threads.submit(daemon.chat, model, d.QUESTION, max_tokens=17)
        answers = list(threads.map(ask, range(8)))
        alone = daemon.chat(model, d.QUESTION, max_tokens=17)
    for seed, answer in enumerate(answers):
        choice = said(answer)
        assert choice["finish_reason"] == "stop", choice
        jsonschema.validate(json.loads(choice["message"]["content"]), random_schema(seed))
    assert said(plain.result())["message"] == said(alone)["message"]


@pytest.mark.parametrize("model", MODELS)
def test_json_object_is_an_object(daemon: Daemon, model: str) -> None:
    form = {"type": "json_object", "schema": {"maxProperties": 2, "type": "object"}}
    for stream in (False, True):
        text = (
            streamed(daemon, model, response_format=form, max_tokens=300)
            if stream
            else said(daemon.chat(model, d.QUESTION, response_format=form, max_tokens=300))[
                "message"
            ]["content"]
        )
        assert text.startswith("{")


def streamed(daemon: Daemon, model: str, **body: Any) -> str:
    body = {"model": model, "messages": [d.user(d.QUESTION)], "stream": True, **body}
    with daemon.client() as api:
        lines = api.post("/v1/chat/completions", json=body).text.splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events)


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        ('root ::= "yes" | "no"', "yes|no"),
        ('root ::= item+\nitem ::= "- " [^\\r\\n]{1,9} "\\n"\n', r"(- [^\r\n]{1,9}\n)+"),
        ('%llguidance {}\nstart: "I am " /[a-z ]{3,8}/ "."', "I am [a-z ]{3,8}[.]"),
        ({"type": "regex", "value": "[0-9]{3}/[a-f]{2}"}, "[0-9]{3}/[a-f]{2}"),
        ({"type": "gbnf", "value": 'root ::= "a" root | "b"'}, "a*b"),
    ],
)
@pytest.mark.parametrize("model", MODELS)
def test_answers_match_their_grammar(
    daemon: Daemon, model: str, grammar: Any, pattern: str
) -> None:
    bias = {str(token): 100 for token in (40, 41)}
    for body in ({"temperature": 1}, {"temperature": 0}, {"logit_bias": bias}):
        choice = said(daemon.chat(model, d.QUESTION, grammar=grammar, max_tokens=80, **body))
        if choice["finish_reason"] == "stop":
            assert re.fullmatch(pattern, choice["message"]["content"]), choice


def test_a_continued_text_has_a_form_as_well(daemon: Daemon) -> None:
    body = {"model": "gguf-f32", "prompt": d.PROMPT, "json_schema": {"enum": ["Polly", "wants"]}}
    with daemon.client() as api:
        answer = api.post("/v1/completions", json={**body, "max_tokens": 30}).json()
    assert json.loads(answer["choices"][0]["text"]) in ("Polly", "wants")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_demanded_call_is_made(daemon: Daemon, model: str, choice: Any) -> None:
    made = said(
        daemon.chat(
            model,
            d.QUESTION,
            tools=[d.WEATHER_TOOL, SING] if choice == NAMED else [SING],
            tool_choice=choice,
            parallel_tool_calls=False,
            temperature=1,
        )
    )
    assert made["finish_reason"] == "tool_calls"
    (call,) = made["message"]["tool_calls"]
    assert call["function"]["name"] == "sing"
    jsonschema.validate(json.loads(call["function"]["arguments"]), SING["function"]["parameters"])


@pytest.mark.parametrize("model", ["safetensors", "gguf-f32"])
def test_a_model_that_may_call_decides_itself(daemon: Daemon, model: str) -> None:
    for body in (
        {"parallel_tool_calls": False},
        {"response_format": {"type": "json_object"}},
    ):
        made = said(daemon.chat(model, d.WEATHER_QUESTION, tools=[d.WEATHER_TOOL], **body))
        (call,) = made["message"]["tool_calls"]
        assert json.loads(call["function"]["arguments"]) == d.WEATHER_ARGUMENTS
    made = said(daemon.chat(model, d.QUESTION, tools=[d.WEATHER_TOOL], parallel_tool_calls=False))
    assert made["message"]["content"] == d.SENTENCE


def test_the_form_begins_where_the_thought_ends(daemon: Daemon) -> None:
    body: dict[str, Any] = {"tools": [d.WEATHER_TOOL], "grammar": 'root ::= "yes"'}
    message = said(daemon.chat("thoughtful", d.WEATHER_QUESTION, **body))["message"]
    assert json.loads(message["reasoning_content"])["arguments"] == d.WEATHER_ARGUMENTS
    assert message["content"] == "yes"


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"json_schema": {"not": {}}}, "json_schema", "`not`"),
        ({"json_schema": {"type": "strin"}}, "json_schema", "strin"),
        ({"json_schema": {"$ref": "http://x/y"}}, "json_schema", "http://x/y"),
        ({"json_schema": {"$ref": "#"}}, "json_schema", "no text"),
        ({"json_schema": {"minLength": 3, "maxLength": 1, "type": "string"}}, "json_schema",
         "minLength"),
        ({"response_format": schema_format({"uniqueItems": True})},
         "response_format.json_schema.schema", "uniqueItems"),
        ({"grammar": "root ::= ("}, "grammar", "GBNF"),
        ({"grammar": "%llguidance {}\nstart: nobody"}, "grammar", "nobody"),
        ({"grammar": "%llguidance {}\nstart: start"}, "grammar", "no text"),
        ({"grammar": {"type": "regex", "value": "(a"}}, "grammar.value", "regex"),
        ({"tool_choice": "required"}, "tool_choice", "tools"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("model", ["safetensors", "gguf-f32"])
def test_what_cannot_be_enforced_is_named_with_the_reason(
    daemon: Daemon, model: str, body: dict[str, Any], param: str, words: str
) -> None:
    answer = daemon.chat(model, d.QUESTION, **body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert words in error["message"]
    assert "\n" not in error["message"]


def test_a_grammar_that_becomes_too_large_fails_its_own_answer_only(daemon: Daemon) -> None:
    optional = {"properties": {f"property{i}": {"type": "null"} for i in range(900)}}
    either = [{"type": "object", **optional, "required": [f"last{i}"]} for i in range(4)]
    with ThreadPoolExecutor(2) as threads:
        mine = threads.submit(daemon.chat, "safetensors", d.QUESTION, json_schema={"anyOf": either})
        neighbour = daemon.chat("safetensors", d.QUESTION)
    assert said(neighbour)["message"]["content"] == d.SENTENCE
    assert mine.result().status_code == 400
    assert "json_schema" in mine.result().json()["error"]["message"]
    assert said(daemon.chat("safetensors", d.QUESTION))["message"]["content"] == d.SENTENCE
