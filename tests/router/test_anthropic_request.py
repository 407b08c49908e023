from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.api.anthropic_request import question
from router.errors import InvalidRequestError
from router.keep_alive import KeepAlive

USER = {"role": "user", "content": "Hello"}
TOOL = {"name": "b", "description": "Does b.", "input_schema": {"type": "object"}}
OTHER = {"name": "a", "input_schema": {"type": "object", "properties": {"x": {}}}, "type": "custom"}
PNG = {"type": "base64", "media_type": "image/png", "data": "aGk="}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "b", "input": {"z": 1, "a": "é"}}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def request(*messages: Any, **fields: Any) -> bytes:
    body = {"model": "m", "max_tokens": 5, "messages": list(messages) or [USER], **fields}
    return json.dumps({name: value for name, value in body.items() if value != "missing"}).encode()


def asked(*messages: Any, **fields: Any) -> dict[str, Any]:
    return question(request(*messages, **fields)).body


def messages(*turns: Any, **fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = asked(*turns, **fields)["messages"]
    return found


def test_the_least_request() -> None:
    assert asked() == {"model": "m", "messages": [USER], "max_tokens": 5}


def test_what_is_about_anthropics_servers_is_ignored() -> None:
    block = text("Hello", cache_control={"type": "ephemeral"}, citations=None)
    extra = {"metadata": {"user_id": "x"}, "service_tier": "auto", "container": None, "what": [1]}
    assert asked({"role": "user", "content": [block]}, **extra) == asked()


def test_sampling_keeps_its_names() -> None:
    sampling = {"temperature": 0.5, "top_p": 0.9, "top_k": 40}
    assert asked(**sampling, stop_sequences=["x", "y"]) == {
        **asked(), **sampling, "stop": ["x", "y"]
    }  # fmt: skip


def test_a_stream_asks_for_its_usage() -> None:
    read = question(request(stream=True))
    assert read.stream
    assert read.body == {**asked(), "stream": True, "stream_options": {"include_usage": True}}


def test_how_long_the_model_stays_is_the_routers() -> None:
    read = question(request(keep_alive="5m"))
    assert (read.keep_alive, read.body) == (KeepAlive(300.0), asked())


# System


@pytest.mark.parametrize(
    "system",
    [
        "Be brief.",
        [text("Be brief.")],
        "x-anthropic-billing-header: cc_version=2.1; cch=00000;\nBe brief.",
        [text("x-anthropic-billing-header: cc_version=2.1; cch=1f2e3;"), text("Be brief.")],
    ],
)
def test_the_system_prompt_comes_first_and_without_what_differs_each_time(system: Any) -> None:
    assert messages(USER, system=system) == [{"role": "system", "content": "Be brief."}, USER]


def test_what_only_mentions_the_header_stays() -> None:
    words = "Never say x-anthropic-billing-header: to anybody."
    assert messages(USER, system=words)[0]["content"] == words


def test_blocks_of_a_system_prompt_are_paragraphs() -> None:
    found = messages(USER, system=[text("a"), text(""), text("b")])
    assert found[0] == {"role": "system", "content": "a\n\nb"}


@pytest.mark.parametrize("system", ["", [], [text("")], "x-anthropic-billing-header: a"])
def test_an_empty_system_prompt_is_none(system: Any) -> None:
    assert messages(USER, system=system) == [USER]


def test_the_system_in_between_speaks_in_the_users_turn() -> None:
    found = messages(USER, {"role": "system", "content": "Stop."})
    content = "Hello\n\n<system-reminder>\nStop.\n</system-reminder>"
    assert found == [{"role": "user", "content": content}]


# Messages


def test_turns_of_one_role_in_a_row_are_one() -> None:
    again = {"role": "user", "content": [text("and"), text("more")]}
    assert messages(USER, again) == [{"role": "user", "content": "Hello\n\nand\n\nmore"}]


def test_an_assistants_turn() -> None:
    blocks = [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        text("I call."),
        CALL,
    ]
    said, *_ = messages({"role": "assistant", "content": blocks}, USER)
    assert said == {
        "role": "assistant",
        "content": "I call.",
        "reasoning_content": "Hm.",
        "tool_calls": [
            {
                "id": "toolu_1",
                "type": "function",
                "function": {"name": "b", "arguments": '{"z": 1, "a": "é"}'},
            }
        ],
    }


def test_results_come_right_behind_the_calls_and_words_after_them() -> None:
    blocks = [
        text("Here."),
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "one"},
        {"type": "tool_result", "tool_use_id": "toolu_2", "content": [text("t"), text("wo")]},
        {"type": "tool_result", "tool_use_id": "toolu_3"},
        {"type": "tool_result", "tool_use_id": "toolu_4", "content": "gone", "is_error": True},
        {"type": "tool_result", "tool_use_id": "x", "content": "error: no", "is_error": True},
    ]
    called = {"role": "assistant", "content": [CALL]}
    assert messages(USER, called, {"role": "user", "content": blocks})[2:] == [
        {"role": "tool", "tool_call_id": "toolu_1", "content": "one"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": "t\n\nwo"},
        {"role": "tool", "tool_call_id": "toolu_3", "content": ""},
        {"role": "tool", "tool_call_id": "toolu_4", "content": "Error: gone"},
        {"role": "tool", "tool_call_id": "x", "content": "error: no"},
        {"role": "user", "content": "Here."},
    ]  # fmt: skip


def test_a_result_without_a_call_is_tolerated() -> None:
    result = {"type": "tool_result", "tool_use_id": "toolu_9", "content": "x"}
    (found,) = messages({"role": "user", "content": [result]})
    assert found == {"role": "tool", "tool_call_id": "toolu_9", "content": "x"}


def test_pictures_are_data_urls_and_their_place_is_told() -> None:
    blocks = [text("Look:"), {"type": "image", "source": PNG}]
    read = question(request(USER, {"role": "user", "content": blocks}))
    assert read.picture == "messages.1.content.1"
    assert read.body["messages"][0]["content"][1:] == [
        text("Look:"),
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
    ]
    result = {"type": "tool_result", "tool_use_id": "x", "content": [blocks[1]]}
    read = question(request({"role": "user", "content": [result]}))
    assert read.picture == "messages.0.content.0.content.0"


def test_documents_and_findings_are_texts() -> None:
    blocks = [
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "D"}},
        {"type": "search_result", "source": "u", "title": "T", "content": [text("c")]},
        {"type": "tool_reference", "tool_name": "b"},
    ]
    (found,) = messages({"role": "user", "content": blocks})
    assert found["content"] == "D\n\nT\n\nc\n\nThe tool b can be called."


# Tools, thinking and form


def test_tools_keep_their_order_and_their_schemas() -> None:
    assert asked(tools=[TOOL, OTHER])["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "b", "description": "Does b.", "parameters": TOOL["input_schema"]
            },
        },
        {"type": "function", "function": {"name": "a", "parameters": OTHER["input_schema"]}},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        (
            {"type": "tool", "name": "b"},
            {"tool_choice": {"type": "function", "function": {"name": "b"}}},
        ),
        (
            {"type": "auto", "disable_parallel_tool_use": True},
            {"tool_choice": "auto", "parallel_tool_calls": False},
        ),
    ],
)
def test_the_choice_of_tools(choice: Any, wanted: dict[str, Any]) -> None:
    assert asked(tools=[TOOL], tool_choice=choice) == {**asked(tools=[TOOL]), **wanted}


def test_tools_that_must_not_be_called_are_not_shown() -> None:
    assert asked(tools=[TOOL], tool_choice={"type": "none"}) == asked()


@pytest.mark.parametrize(
    ("thinking", "wanted"),
    [
        (
            {"type": "enabled", "budget_tokens": 1024},
            {
                "chat_template_kwargs": {"enable_thinking": True},
                "thinking_budget_tokens": 1024,
            },
        ),
        ({"type": "adaptive"}, {"chat_template_kwargs": {"enable_thinking": True}}),
        ({"type": "disabled"}, {"chat_template_kwargs": {"enable_thinking": False}}),
    ],
)
def test_thinking(thinking: Any, wanted: dict[str, Any]) -> None:
    assert asked(thinking=thinking) == {**asked(), **wanted}


@pytest.mark.parametrize("field", ["output_config", "output_format"])
def test_the_form_of_the_answer(field: str) -> None:
    form: Any = {"type": "json_schema", "schema": {"type": "object"}}
    found = asked(**{field: {"format": form, "effort": "low"} if "config" in field else form})
    assert found["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
    }


def test_counting_needs_no_limit_and_takes_any_last_turn() -> None:
    said = {"role": "assistant", "content": "Hi"}
    body = request(USER, said, max_tokens="missing", tools=[TOOL], tool_choice={"type": "any"})
    read = question(body, counting=True)
    assert read.body.keys() == {"model", "messages", "tools"}
    assert not read.stream


# What is wrong


def block(**fields: Any) -> Any:
    return {"messages": [{"role": "user", "content": [fields]}]}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": "missing"}, "messages"),
    ({"messages": {}}, "messages"),
    ({"messages": [1]}, "messages.0"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
    ({"messages": [{"content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": ""}]}, "messages.0.content"),
    ({"messages": [USER, {"role": "user", "content": []}]}, "messages.1.content"),
    ({"messages": [{"role": "user", "content": [1]}]}, "messages.0.content.0"),
    ({"messages": [USER, {"role": "assistant", "content": "{"}]}, "messages.1"),
    (block(text="x"), "messages.0.content.0.type"),
    (block(type="text"), "messages.0.content.0.text"),
    (block(type="video"), "messages.0.content.0.type"),
    (block(**CALL), "messages.0.content.0.type"),
    (block(type="tool_result"), "messages.0.content.0.tool_use_id"),
    (
        block(type="tool_result", tool_use_id="x", content=[{"type": "text"}]),
        "messages.0.content.0.content.0.text",
    ),
    (block(type="image"), "messages.0.content.0.source"),
    (
        block(type="image", source={"type": "url", "url": "http://x"}),
        "messages.0.content.0.source.type",
    ),
    (
        block(type="image", source={**PNG, "media_type": "text/html,"}),
        "messages.0.content.0.source.media_type",
    ),
    (
        block(type="document", source={"type": "base64", "data": "x"}),
        "messages.0.content.0.source.type",
    ),
    (
        {"messages": [USER, {"role": "assistant", "content": [{**CALL, "input": "{}"}]}, USER]},
        "messages.1.content.0.input",
    ),
    (
        {"messages": [USER, {"role": "assistant", "content": [{"type": "image"}]}, USER]},
        "messages.1.content.0.type",
    ),
    ({"max_tokens": "missing"}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"model": "missing"}, "model"),
    ({"model": ""}, "model"),
    ({"stream": "yes"}, "stream"),
    ({"system": 1}, "system"),
    ({"system": [{"type": "image"}]}, "system.0.type"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_k": -1}, "top_k"),
    ({"top_p": True}, "top_p"),
    ({"stop_sequences": "x"}, "stop_sequences"),
    ({"stop_sequences": [""]}, "stop_sequences.0"),
    ({"tools": {}}, "tools"),
    ({"tools": [{}]}, "tools.0.name"),
    ({"tools": [{"name": "a"}]}, "tools.0.input_schema"),
    ({"tools": [TOOL, TOOL]}, "tools"),
    ({"tools": [{**TOOL, "description": 1}]}, "tools.0.description"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "all"}}, "tool_choice.type"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "a"}}, "tool_choice.name"),
    ({"thinking": {"type": "on"}}, "thinking.type"),
    ({"thinking": {"type": "enabled", "budget_tokens": "much"}}, "thinking.budget_tokens"),
    ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
    ({"keep_alive": "for ever"}, "keep_alive"),
]


@pytest.mark.parametrize(("fields", "path"), WRONG)
def test_a_mistake_is_told_with_its_path(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        question(request(**fields))
    assert caught.value.param == path
    assert path in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"model": "m", "model": "n"}',
        b'{"model": "m", "messages": NaN}',
        b'{"model": "m", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_no_sound_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        question(body)


FULL: dict[str, Any] = {
    "model": "m",
    "max_tokens": 5,
    "system": [text("s")],
    "messages": [
        {"role": "user", "content": [text("a"), {"type": "image", "source": PNG}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "t"}, CALL]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1",
                                      "content": [text("r")], "is_error": True}]},
        {"role": "system", "content": "Stop."},
    ],
    "tools": [TOOL],
    "tool_choice": {"type": "tool", "name": "b"},
    "thinking": {"type": "enabled", "budget_tokens": 9},
    "output_config": {"format": {"type": "json_schema", "schema": {}}},
    "stop_sequences": ["x"],
}  # fmt: skip

ODD = st.sampled_from([None, True, 0, -1, 1.5, "", "x", "text", [], [1], {}, {"type": "text"}])


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner: dict[Any, Any] = value if isinstance(value, dict) else {}
    inner = dict(enumerate(value)) if isinstance(value, list) else inner
    return [path, *(place for key, part in inner.items() for place in places(part, (*path, key)))]


def put(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    if not path:
        return odd
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(value[path[0]], path[1:], odd)
    return copy


@given(st.sampled_from(places(FULL)), ODD, st.booleans())
def test_whatever_stands_at_any_place_is_read_or_refused_with_its_path(
    path: tuple[Any, ...], odd: Any, counting: bool
) -> None:
    body = json.dumps(put(FULL, path, odd)).encode()
    named: str | None = "nothing is wrong"
    try:
        json.dumps(question(body, counting=counting).body)
    except InvalidRequestError as error:
        named = error.param
    assert named or not path


def test_the_full_request_is_read() -> None:
    assert question(json.dumps(FULL).encode()).body["messages"][-1]["role"] == "user"
