from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from backends.wire.request import CHAT_PATH, TEXT_PATH
from router.api.ollama_request import Question, chat, generate
from router.errors import InvalidRequestError
from router.keep_alive import KeepAlive

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
STREAM = {"stream": True, "stream_options": {"include_usage": True}}


def said(role: str, content: str = "Hi.", **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


def chatted(*messages: Any, **fields: Any) -> Question:
    return chat(json.dumps({"model": "m", "messages": messages, **fields}).encode())


def generated(**fields: Any) -> Question:
    return generate(json.dumps({"model": "m", **fields}).encode())


def asked(*messages: Any, **fields: Any) -> dict[str, Any]:
    """The engine's question, without what a stream has."""
    body = chatted(*(messages or [said("user")]), stream=False, **fields).body
    assert body is not None
    return body


def test_a_chat_streams_unless_it_is_told_not_to() -> None:
    messages = [said("system", "Be brief."), said("user"), said("assistant", "A"), said("user")]
    question = chatted(*messages)
    assert (question.model, question.stream, question.path) == ("m", True, CHAT_PATH)
    assert question.body == {"model": "m", "messages": messages, **STREAM}
    assert chatted(said("user"), stream=None).stream
    whole = chatted(said("user"), stream=False)
    assert not whole.stream
    assert whole.body == {"model": "m", "messages": [said("user")]}


@pytest.mark.parametrize("messages", [{}, {"messages": []}, {"messages": None}])
def test_no_messages_are_about_the_models_stay_alone(messages: dict[str, Any]) -> None:
    question = chat(json.dumps({"model": "m", "keep_alive": 0, **messages}).encode())
    assert (question.body, question.stream) == (None, False)
    assert question.keep_alive == KeepAlive(0)


def test_a_prompt_is_a_chat_of_one_message() -> None:
    assert generated(prompt="Hi.", stream=False).body == {
        "model": "m", "messages": [said("user")],
    }  # fmt: skip
    body = generated(prompt="Hi.", system="S", images=[PNG], stream=False).body
    assert body is not None
    system, user = body["messages"]
    assert system == said("system", "S")
    assert [part["type"] for part in user["content"]] == ["text", "image_url"]
    assert generated(prompt="").body is generated(keep_alive="5m").body is None


def test_a_raw_prompt_has_no_template() -> None:
    question = generated(prompt="Polly wants", raw=True, options={"num_predict": 3})
    assert question.path == TEXT_PATH
    assert question.body == {"model": "m", "prompt": "Polly wants", "max_tokens": 3, **STREAM}


def test_options_have_other_names_or_are_the_daemons() -> None:
    options = {
        "num_predict": 5, "temperature": 0, "top_k": 4, "top_p": 0.5, "min_p": 0.1, "seed": 7,
        "stop": ["a", "b"], "repeat_penalty": 1.1, "presence_penalty": 1, "frequency_penalty": 2,
        "num_ctx": 9, "num_gpu": 1, "mirostat": 2, "whatever": {}, "numa": None,
    }  # fmt: skip
    body = asked(options=options)
    assert {name: value for name, value in body.items() if name not in ("model", "messages")} == {
        "max_tokens": 5, "temperature": 0, "top_k": 4, "top_p": 0.5, "min_p": 0.1, "seed": 7,
        "stop": ["a", "b"], "repeat_penalty": 1.1, "presence_penalty": 1, "frequency_penalty": 2,
    }  # fmt: skip
    free = asked(options={"num_predict": -1, "seed": -1, "stop": "", "temperature": None})
    assert free.keys() == {"model", "messages"}
    assert asked(options={"stop": "x"})["stop"] == ["x"]


def test_the_form_of_an_answer() -> None:
    assert "response_format" not in asked(format="")
    assert asked(format="json")["response_format"] == {"type": "json_object"}
    schema = {"type": "object"}
    demanded = asked(format=schema)["response_format"]
    assert demanded["json_schema"]["schema"] == schema


def test_thinking_is_switched_where_the_template_has_a_switch() -> None:
    assert "chat_template_kwargs" not in asked()
    assert asked(think=False)["chat_template_kwargs"] == {"enable_thinking": False}
    assert asked(think="low")["chat_template_kwargs"] == {
        "enable_thinking": True, "reasoning_effort": "low",
    }  # fmt: skip


def test_likelihoods_are_asked_for() -> None:
    body = asked(logprobs=True, top_logprobs=2)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
    assert "top_logprobs" not in asked(top_logprobs=2)


def test_results_find_the_calls_that_they_answer() -> None:
    def call(name: str, **fields: Any) -> dict[str, Any]:
        return {"function": {"name": name, "arguments": {"é": 1}}, **fields}

    body = asked(
        said("user"),
        said("assistant", "", tool_calls=[call("f"), call("g"), call("f", id="own")]),
        said("tool", "1", tool_name="g"),
        said("tool", "2", tool_call_id="own"),
        said("tool", "3"),
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    )
    calls = body["messages"][1]["tool_calls"]
    assert [one["id"] for one in calls] == ["call_1", "call_2", "own"]
    assert calls[0]["function"] == {"name": "f", "arguments": '{"é": 1}'}
    answers = [one["tool_call_id"] for one in body["messages"][2:]]
    assert answers == ["call_2", "own", "call_1"]
    assert body["tools"][0]["function"]["name"] == "f"


def test_thoughts_of_earlier_turns_are_told() -> None:
    body = asked(said("user"), said("assistant", thinking="Hm."), said("user"))
    assert body["messages"][1]["reasoning_content"] == "Hm."


@pytest.mark.parametrize(
    ("begin", "kind"),
    [(b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF89a", "gif"), (b"RIFF", "webp")],
)
def test_a_pictures_type_is_seen_in_it(begin: bytes, kind: str) -> None:
    data = base64.b64encode(begin + b"xy").decode()
    question = chatted(said("user"), said("user", images=[data]))
    assert question.picture == "messages.1.images.0"
    assert question.body is not None
    url = question.body["messages"][1]["content"][1]["image_url"]["url"]
    assert url == f"data:image/{kind};base64,{data}"


WRONG_CHAT: list[tuple[str, dict[str, Any]]] = [
    ("messages", {"messages": "Hi."}),
    ("messages.0", {"messages": ["Hi."]}),
    ("messages", {"messages": [said("user"), said("assistant")]}),
    ("messages", {"messages": [said("system")]}),
    ("messages.0.role", {"messages": [{"content": "Hi."}]}),
    ("messages.0.role", {"messages": [said("narrator")]}),
    ("messages.0.role", {"messages": [said("tool")]}),
    ("messages.0.content", {"messages": [{"role": "user", "content": [1]}]}),
    ("messages.0.images", {"messages": [said("user", images=PNG)]}),
    ("messages.0.images.0", {"messages": [said("user", images=["http://x/y.png"])]}),
    ("messages.0.images.0", {"messages": [said("user", images=["é"])]}),
    ("messages.0.images.1", {"messages": [said("user", images=[PNG, "aGk="])]}),
    ("messages.0.tool_calls.0", {"messages": [said("assistant", tool_calls=[1])]}),
    (
        "messages.0.tool_calls.0.function.arguments",
        {
            "messages": [
                said("assistant", tool_calls=[{"function": {"name": "f", "arguments": "{}"}}])
            ]
        },
    ),
    ("tools", {"tools": {}}),
    ("tools.0.function", {"tools": [{"type": "function"}]}),
    ("tools.0.function.name", {"tools": [{"function": {"name": ""}}]}),
    ("tools.0.function.parameters", {"tools": [{"function": {"name": "f", "parameters": []}}]}),
    ("stream", {"stream": "no"}),
    ("format", {"format": "xml"}),
    ("format", {"format": 5}),
    ("think", {"think": "hard"}),
    ("think", {"think": 1}),
    ("options", {"options": []}),
    ("options.temperature", {"options": {"temperature": "hot"}}),
    ("options.num_predict", {"options": {"num_predict": -3}}),
    ("options.seed", {"options": {"seed": 1.5}}),
    ("options.stop.0", {"options": {"stop": [""]}}),
    ("logprobs", {"logprobs": 3}),
    ("top_logprobs", {"logprobs": True, "top_logprobs": -1}),
    ("keep_alive", {"keep_alive": "soon"}),
    ("model", {"model": ""}),
]


@pytest.mark.parametrize(("path", "fields"), WRONG_CHAT)
def test_what_is_wrong_in_a_chat_is_named(path: str, fields: dict[str, Any]) -> None:
    body = {"model": "m", "messages": [said("user")], **fields}
    with pytest.raises(InvalidRequestError) as caught:
        chat(json.dumps(body).encode())
    assert caught.value.param == path
    assert path in caught.value.message


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("prompt", {"prompt": ["Hi."]}),
        ("system", {"system": 1}),
        ("suffix", {"suffix": "x"}),
        ("template", {"template": "{{ .Prompt }}"}),
        ("context", {"context": [1, 2]}),
        ("raw", {"raw": "yes"}),
        ("system", {"raw": True, "system": "S"}),
        ("images", {"raw": True, "images": [PNG]}),
        ("images.0", {"images": [7]}),
    ],
)
def test_what_is_wrong_with_a_prompt_is_named(path: str, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        generated(**{"prompt": "Hi.", **fields})
    assert caught.value.param == path
    assert path in caught.value.message


def test_a_prompt_may_have_what_clients_send_as_nothing() -> None:
    fields: dict[str, Any] = {"suffix": "", "template": "", "context": [], "images": None}
    assert generated(prompt="Hi.", **fields).body == generated(prompt="Hi.").body
