from __future__ import annotations

import json
import time
from typing import Any

import pytest

from router.api.conversations import Conversation
from router.api.responses_request import Question, question
from router.errors import InvalidRequestError, LostResponseError

PNG = "data:image/png;base64,iVBORw0KGgo="
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "sunny"}
EARLIER = (
    {"role": "user", "content": "A"},
    {"type": "message", "role": "assistant", "content": "B"},
)


def past(identity: str) -> Conversation:
    if identity != "resp_1":
        raise LostResponseError("lost", param="previous_response_id")
    return Conversation({"id": identity}, EARLIER, 100)


def read(given: Any = "Hi.", **fields: Any) -> Question:
    body = {"model": "m", "input": given, **fields}
    return question(json.dumps(body).encode(), past)


def asked(given: Any = "Hi.", **fields: Any) -> dict[str, Any]:
    return read(given, **fields).body


def messages(given: Any, **fields: Any) -> list[tuple[Any, ...]]:
    """In short: role, content and, where there is more, that."""
    read = asked(given, **fields)["messages"]
    return [(one.pop("role"), one.pop("content"), *one.values()) for one in read]


def said(role: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


def test_a_text_is_what_the_user_says() -> None:
    assert asked() == {"model": "m", "messages": [said("user", "Hi.")]}
    assert messages("Hi.", instructions="S") == [("system", "S"), ("user", "Hi.")]


def test_a_stream_asks_for_its_usage() -> None:
    question = read(stream=True)
    assert question.stream
    assert question.body["stream_options"] == {"include_usage": True}


def test_items_of_one_turn_are_one_message() -> None:
    parts = [{"type": "input_text", "text": "x"}, {"type": "input_text", "text": "y"}]
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}]}
    words = [{"type": "output_text", "text": "Well."}, {"type": "refusal", "refusal": "No."}]
    items = [
        said("developer", "D"), said("user", parts), said("user", "z", type="message"),
        thought, said("assistant", words), CALL, {**CALL, "call_id": "c2", "arguments": ""},
        RESULT, {**RESULT, "call_id": "c2", "output": parts}, said("user", "Go on."),
    ]  # fmt: skip
    system, user, assistant, first, second, last = messages(items, instructions="S")
    assert system == ("system", "S\n\nD")
    assert user == ("user", "x\n\ny\n\nz")
    assert assistant[:3] == ("assistant", "Well.\n\nNo.", "Hm.")
    assert [call["id"] for call in assistant[3]] == ["c1", "c2"]
    assert assistant[3][1]["function"] == {"name": "f", "arguments": "{}"}
    assert first == ("tool", "sunny", "c1")
    assert second == ("tool", "x\n\ny", "c2")
    assert last == ("user", "Go on.")


def test_a_thought_is_told_in_full_or_in_short() -> None:
    summary = [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}]
    items = [{"type": "reasoning", "summary": summary, "encrypted_content": "x"}, said("user", "")]
    assert messages(items)[0] == ("assistant", "", "a\n\nb")
    assert messages([{"type": "reasoning", "summary": []}, said("user", "x")]) == [("user", "x")]


def test_pictures_are_parts_and_their_place_is_told() -> None:
    picture = {"type": "input_image", "image_url": PNG, "detail": "auto"}
    question = read([said("user", "See:"), said("user", [picture])])
    assert question.picture == "input.1.content.0"
    assert question.body["messages"] == [
        said("user", [
            {"type": "text", "text": "See:"},
            {"type": "image_url", "image_url": {"url": PNG}},
        ])
    ]  # fmt: skip


def test_what_was_said_before_comes_first() -> None:
    question = read("C", previous_response_id="resp_1", instructions="S")
    assert [one["content"] for one in question.body["messages"]] == ["S", "A", "B", "C"]
    assert question.items == (*EARLIER, said("user", "C"))
    assert question.nbytes > 100
    with pytest.raises(LostResponseError):
        read(previous_response_id="resp_2")


def test_tools_are_functions() -> None:
    body = asked(tools=[TOOL], parallel_tool_calls=False)
    function = {"name": "f", "parameters": {"type": "object"}}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["parallel_tool_calls"] is False
    assert "tool_choice" not in asked(tools=[TOOL], tool_choice="auto")
    assert asked(tools=[TOOL], tool_choice="required")["tool_choice"] == "required"
    named = asked(tools=[TOOL], tool_choice={"type": "function", "name": "f"})["tool_choice"]
    assert named == {"type": "function", "function": {"name": "f"}}
    assert "tools" not in asked(tools=[TOOL], tool_choice="none")


def test_the_rest_has_other_names() -> None:
    schema = {"type": "object"}
    wanted = {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}}
    body = asked(max_output_tokens=9, temperature=0, top_p=0.5, text=wanted)
    del body["messages"]
    assert body == {
        "model": "m", "max_tokens": 9, "temperature": 0, "top_p": 0.5,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": schema, "strict": True},
        },
    }  # fmt: skip
    json_object = asked(text={"format": {"type": "json_object"}})["response_format"]
    assert json_object == {"type": "json_object"}
    assert "response_format" not in asked(text={"format": {"type": "text"}, "verbosity": "low"})


def test_thinking_is_switched_where_the_template_has_a_switch() -> None:
    assert "chat_template_kwargs" not in asked(reasoning={"summary": "auto"})
    off = asked(reasoning={"effort": "none"})["chat_template_kwargs"]
    assert off == {"enable_thinking": False}
    low = asked(reasoning={"effort": "low"})["chat_template_kwargs"]
    assert low == {"enable_thinking": True, "reasoning_effort": "low"}


def test_the_response_tells_of_its_request() -> None:
    head = read(metadata={"a": "b"}, temperature=0.5, previous_response_id="resp_1").head
    assert head["metadata"] == {"a": "b"}
    assert head["previous_response_id"] == "resp_1"
    assert head["temperature"] == 0.5
    assert head["store"] is head["parallel_tool_calls"] is True
    assert not read(store=False).store


def test_what_is_about_openais_servers_is_ignored() -> None:
    fields = {"service_tier": "auto", "include": ["reasoning.encrypted_content"], "user": "x"}
    assert asked(truncation="auto", background=False, top_logprobs=0, **fields) == asked()


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("input", {"input": None}),
    ("input", {"input": 5}),
    ("input", {"input": ""}),
    ("input", {"input": []}),
    ("input", {"input": [said("assistant", "A")]}),
    ("input", {"input": [said("system", "A")]}),
    ("input.0", {"input": ["Hi."]}),
    ("input.0.role", {"input": [{"content": "Hi."}]}),
    ("input.0.role", {"input": [said("narrator", "Hi.")]}),
    ("input.0.content", {"input": [said("user", None)]}),
    ("input.0.content.0", {"input": [said("user", ["Hi."])]}),
    ("input.0.content.0.type", {"input": [said("user", [{"type": "input_file"}])]}),
    ("input.0.content.0.text", {"input": [said("user", [{"type": "input_text"}])]}),
    (
        "input.0.content.0.image_url",
        {"input": [said("user", [{"type": "input_image", "image_url": "https://x/y.png"}])]},
    ),
    ("input.0.type", {"input": [{"type": "computer_call"}]}),
    ("input.0.type", {"input": [{"type": "item_reference", "id": "x"}]}),
    ("input.0.type", {"input": [{"type": 5}]}),
    ("input.0.call_id", {"input": [{**CALL, "call_id": ""}, RESULT]}),
    ("input.0.arguments", {"input": [{**CALL, "arguments": {}}, RESULT]}),
    ("input.0.call_id", {"input": [RESULT]}),
    ("input.1.output", {"input": [CALL, {**RESULT, "output": 5}]}),
    ("instructions", {"instructions": ["S"]}),
    ("tools", {"tools": [TOOL, TOOL]}),
    ("tools.0.type", {"tools": [{"type": "web_search"}]}),
    ("tools.0.name", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
    ("tools.0.parameters", {"tools": [{**TOOL, "parameters": "x"}]}),
    ("tool_choice", {"tool_choice": "required"}),
    ("tool_choice", {"tools": [TOOL], "tool_choice": "any"}),
    ("tool_choice.type", {"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}),
    ("tool_choice.name", {"tools": [TOOL], "tool_choice": {"type": "function", "name": "g"}}),
    ("text.format.type", {"text": {"format": {"type": "grammar"}}}),
    ("text.format.schema", {"text": {"format": {"type": "json_schema", "name": "n"}}}),
    ("reasoning.effort", {"reasoning": {"effort": "huge"}}),
    ("max_output_tokens", {"max_output_tokens": 0}),
    ("temperature", {"temperature": "hot"}),
    ("metadata", {"metadata": {str(i): "" for i in range(17)}}),
    ("metadata.a", {"metadata": {"a": 1}}),
    ("store", {"store": "yes"}),
    ("stream", {"stream": 1}),
    ("background", {"background": True}),
    ("conversation", {"conversation": "conv_1"}),
    ("prompt", {"prompt": {"id": "x"}}),
    ("top_logprobs", {"top_logprobs": 2}),
    ("include.0", {"include": ["message.output_text.logprobs"]}),
    ("previous_response_id", {"previous_response_id": 7}),
    ("model", {"model": None}),
]


@pytest.mark.parametrize(("path", "fields"), WRONG)
def test_what_is_wrong_is_named(path: str, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read(**{"given": fields.get("input", "Hi."), **fields})
    assert caught.value.param == path
    assert path in caught.value.message


def test_a_call_that_was_cut_off_is_said_again() -> None:
    (_, _, calls), *_ = messages([{**CALL, "arguments": '{"a"'}, RESULT])
    assert calls[0]["function"] == {"name": "f", "arguments": "{}"}


def test_what_cannot_be_written_is_no_request() -> None:
    body = b'{"model": "m", "input": "a", "text": {"verbosity": 1e999}}'
    with pytest.raises(ValueError, match="JSON compliant"):
        question(body, past)


def test_many_items_take_no_more_than_their_share_of_time() -> None:
    began = time.perf_counter()
    read([said("user", "x")] * 100_000)
    assert time.perf_counter() - began < 10
