from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import BadRequestError
from backends.wire.features import FEATURES, honoured
from backends.wire.request import GenerationRequest, Sampling, check, parse

HELLO = {"role": "user", "content": "Hello"}


def chat(supported: frozenset[str] = frozenset(FEATURES), **fields: Any) -> GenerationRequest:
    body = {"messages": [HELLO], **fields}
    return parse(json.dumps(body).encode(), chat=True, engine="fake", supported=supported)


def text(prompt: Any, **fields: Any) -> GenerationRequest:
    body = json.dumps({"prompt": prompt, **fields}).encode()
    return parse(body, chat=False, engine="fake", supported=frozenset(FEATURES))


def refused(param: str | None, **fields: Any) -> BadRequestError:
    with pytest.raises(BadRequestError) as caught:
        chat(**fields)
    assert caught.value.param == param, caught.value
    return caught.value


# Plain requests


def test_a_request_that_says_nothing_leaves_everything_to_the_model() -> None:
    assert chat() == GenerationRequest(messages=(HELLO,), sampling=Sampling())


def test_every_field_is_understood() -> None:
    request = chat(
        stream=True, stream_options={"include_usage": True}, max_tokens=5, stop="x", seed=1,
        temperature=0.5, top_p=0.9, top_k=3, min_p=0.1, repetition_penalty=1.5,
        presence_penalty=-1, frequency_penalty=2, logit_bias={"7": -100, "8": 0.5},
        chat_template_kwargs={"a": 1}, unknown=[1],
    )  # fmt: skip
    assert request == GenerationRequest(
        messages=(HELLO,), stream=True, include_usage=True, max_tokens=5, stop=("x",),
        template_arguments={"a": 1},
        sampling=Sampling(
            temperature=0.5, top_p=0.9, top_k=3, min_p=0.1, seed=1, repetition_penalty=1.5,
            presence_penalty=-1.0, frequency_penalty=2.0, logit_bias={7: -100.0, 8: 0.5},
        ),
    )  # fmt: skip


def test_null_is_the_same_as_nothing() -> None:
    names = (
        "stream", "stream_options", "max_tokens", "max_completion_tokens", "stop", "seed", "top_p",
        "temperature", "top_k", "logit_bias", "tools", "chat_template_kwargs", "n", "logprobs",
    )  # fmt: skip
    nothing: dict[str, Any] = dict.fromkeys(names)
    assert chat(**nothing) == chat()


@pytest.mark.parametrize("prompt", [["a", "b"], [[1], [2]]])
def test_several_prompts_are_for_engines_that_read_them(prompt: Any) -> None:
    assert "prompt (several)" in check({"prompt": prompt}, chat=False)
    body = json.dumps({"prompt": prompt}).encode()
    with pytest.raises(BadRequestError, match=r"`prompt` .* llama\.cpp has it"):
        parse(body, chat=False, engine="mlx", supported=honoured("mlx") | {"prompt (token ids)"})


def test_llama_cpps_limit_is_a_limit() -> None:
    assert chat(n_predict=5).max_tokens == 5
    assert chat(n_predict=5, max_tokens=6).max_tokens == 6
    assert chat(n_predict=-1).max_tokens is None
    refused("n_predict", n_predict=0)
    refused("n_predict", n_predict=-2)


@pytest.mark.parametrize(
    ("effort", "arguments"),
    [("none", {"enable_thinking": False}),
     ("low", {"enable_thinking": True, "reasoning_effort": "low"})],
)  # fmt: skip
def test_how_much_to_think_is_the_templates_to_know(effort: str, arguments: Any) -> None:
    assert chat(reasoning_effort=effort).template_arguments == arguments
    own = {"enable_thinking": 5, "b": 1}
    both = chat(reasoning_effort=effort, chat_template_kwargs=own).template_arguments
    assert both == {**arguments, **own}


def test_the_newer_limit_wins() -> None:
    assert chat(max_tokens=5, max_completion_tokens=6).max_tokens == 6


def test_both_names_of_the_repetition_penalty_count() -> None:
    assert chat(repeat_penalty=1.1).sampling.repetition_penalty == 1.1


def test_empty_stop_strings_stop_nothing() -> None:
    assert chat(stop=["", "a", ""]).stop == ("a",)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("a", "a"), ("", ""), (["a"], "a"), ([1, 2], (1, 2)), ([[1, 2]], (1, 2)), ([1], (1,))],
)
def test_a_prompt_is_text_or_ids(prompt: Any, expected: Any) -> None:
    request = text(prompt)
    assert request.prompt == expected
    assert not request.chat


@pytest.mark.parametrize(
    "prompt",
    [None, 1, True, {}, [], [[]], [1, "a"], ["a", 1], [[1], "a"], [[1], []], ["a", None], [True],
     [True, True], [None], [1.5], [["a"]], [[[1]]]],
)  # fmt: skip
def test_a_prompt_that_is_neither_is_refused(prompt: Any) -> None:
    with pytest.raises(BadRequestError) as caught:
        text(prompt)
    assert caught.value.param == "prompt"


# Messages


def test_a_developer_is_a_system_to_templates() -> None:
    request = chat(messages=[{"role": "developer", "content": "a"}])
    assert request.messages == ({"role": "system", "content": "a"},)


def test_text_parts_become_one_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert chat(messages=[{"role": "user", "content": parts}]).messages[0]["content"] == "a\nb"


def test_a_message_without_content_has_an_empty_one() -> None:
    assert chat(messages=[{"role": "assistant"}]).messages[0]["content"] == ""


def calling(arguments: Any) -> list[dict[str, Any]]:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return [{"role": "assistant", "content": None, "tool_calls": [call]}]


@pytest.mark.parametrize(
    ("written", "read"), [('{"a": 1}', {"a": 1}), ("", {}), ({"a": 1}, {"a": 1})]
)
def test_arguments_of_calls_are_objects(written: Any, read: Any) -> None:
    (message,) = chat(messages=calling(written)).messages
    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": read}


@pytest.mark.parametrize("written", ["{", '{"a": "b', "[" * 100_000])
def test_arguments_that_were_cut_off_stay_text(written: str) -> None:
    (message,) = chat(messages=calling(written)).messages
    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": written}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ([], "messages"),
        ({}, "messages"),
        ("Hello", "messages"),
        (["Hello"], "messages[0]"),
        ([HELLO, None], "messages[1]"),
        ([{}], "messages[0].role"),
        ([{"role": "robot"}], "messages[0].role"),
        ([{"role": ["user"]}], "messages[0].role"),
        ([{"role": {"a": 1}}], "messages[0].role"),
        ([{"role": "user", "content": 1}], "messages[0].content"),
        ([{"role": "user", "content": {}}], "messages[0].content"),
        ([{"role": "user", "content": ["a"]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": [{"type": []}]}], "messages[0].content[0]"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
            "messages[0].content[0]",
        ),
        ([{"role": "assistant", "tool_calls": {"a": 1}}], "messages[0].tool_calls"),
        ([{"role": "assistant", "tool_calls": [1]}], "messages[0].tool_calls[0].function"),
        ([{"role": "assistant", "tool_calls": [{}]}], "messages[0].tool_calls[0].function"),
    ],
)
def test_a_message_that_is_wrong_is_named(messages: Any, param: str) -> None:
    refused(param, messages=messages)


# Tools


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def test_tools_are_passed_on_unless_the_choice_is_none() -> None:
    assert chat(tools=[TOOL]).tools == (TOOL,)
    assert chat(tools=[TOOL], tool_choice="none").tools == ()


@pytest.mark.parametrize(
    ("tools", "param"),
    [({}, "tools"), ("f", "tools"), ([1], "tools[0].function"), ([TOOL, {}], "tools[1].function"),
     ([{"function": {"name": 1}}], "tools[0].function")],
)  # fmt: skip
def test_a_tool_that_is_wrong_is_named(tools: Any, param: str) -> None:
    refused(param, tools=tools)


# Fields


WRONG: dict[str, list[Any]] = {
    "stream": [1, "true", []],
    "stream_options": [1, "a", []],
    "chat_template_kwargs": [1, "a", []],
    "max_tokens": [0, -1, 1.5, True, "1", [], 2**31],
    "reasoning_effort": [1, [], {}],
    "max_completion_tokens": [0, 1.5, "1"],
    "temperature": [-0.1, 101, 10**400, True, "1", [], {}],
    "top_p": [-0.1, 1.1, "1"],
    "top_k": [-2, 1.5, True],
    "min_p": [-0.1, 1.1],
    "seed": [1.5, "1", True, 2**63, -(2**63)],
    "repetition_penalty": [0, 11, "1"],
    "presence_penalty": [-3, 3],
    "frequency_penalty": [-3, 3],
    "logit_bias": [
        [], "a", 1, {"a": 1}, {"1": "1"}, {"1": "nan"}, {"1": None}, {"1": True}, {"1": []},
        {"1": 101}, {"1": -101}, {"1": 10**400},
    ],
    "n": [0, 33, 1.5, "2"],
    "logprobs": [1, "yes", 0],
    "top_logprobs": [1, -1, 21, "2"],
    "stop": [1, [1], {}, ["a", None], ["a"] * 17],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in WRONG.items() for v in vs])
def test_a_field_that_is_wrong_is_named(name: str, value: Any) -> None:
    assert f"`{name}`" in refused(name, **{name: value}).message


def test_a_seed_of_minus_one_is_none() -> None:
    assert chat(seed=-1) == chat()


def test_what_every_engine_would_refuse_is_found_before_one_is_asked() -> None:
    with pytest.raises(BadRequestError) as caught:
        check({"messages": [HELLO], "temperature": "hot"}, chat=True)
    assert caught.value.param == "temperature"
    assert check({"messages": [HELLO], "n": 2, "unknown": 1}, chat=True) == {"n"}
    assert check({"prompt": [1, 2]}, chat=False) == {"prompt (token ids)"}


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "video_url"])
def test_pictures_and_sounds_are_for_the_engine_to_judge(kind: str) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": kind, kind: {"url": "data:,"}}]
    assert check({"messages": [{"role": "user", "content": parts}]}, chat=True) == frozenset()
    with pytest.raises(BadRequestError):
        chat(messages=[{"role": "user", "content": parts}])


@pytest.mark.parametrize("part", [None, 5, {}, {"type": 5}, {"type": "text"}, {"type": []}])
def test_a_part_that_is_none_is_nobodys(part: Any) -> None:
    with pytest.raises(BadRequestError):
        check({"messages": [{"role": "user", "content": [part]}]}, chat=True)


# Bodies


DEEP = 100_000


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"nul", b"\xff\xfe", b'{"prompt": "\xff"}', b"[" * DEEP, b'{"a":' * DEEP,
        b'{"prompt": "a", "temperature": NaN}', b'{"prompt": "a", "x": [Infinity]}',
        b'{"prompt": "a", "x": -Infinity}', b'{"prompt": "a", "x": 1' + b"0" * 5000 + b"}",
        rb'{"prompt": "\ud800"}', rb'{"prompt": "a", "\uDFFF": 1}',
        rb'{"prompt": "a", "x": {"y": ["\udc00\ud800"]}}',
    ],
)  # fmt: skip
def test_a_body_that_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequestError, match="not JSON"):
        parse(raw, chat=False, engine="fake", supported=frozenset())


@pytest.mark.parametrize("raw", [b"[]", b"1", b"null", b'"a"'])
def test_a_body_that_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequestError, match="must be a JSON object"):
        parse(raw, chat=False, engine="fake", supported=frozenset())


def test_a_pair_of_surrogates_is_a_character() -> None:
    raw = rb'{"prompt": "\ud83e\udd9c and \\ud800"}'
    request = parse(raw, chat=False, engine="fake", supported=frozenset())
    assert request.prompt == "🦜 and \\ud800"


@pytest.mark.parametrize("depth", [10, 500, 900, 940, 960, 980, 990, 2000])
def test_nesting_of_any_depth_is_read_or_refused(depth: int) -> None:
    for opening, closing in (("[", "]"), ('{"type":', "}")):
        nested = opening * depth + "1" + closing * depth
        for name in ("prompt", "messages", "stop", "logit_bias", "tools", "response_format"):
            with pytest.raises(BadRequestError):
                parse(
                    f'{{"{name}": {nested}}}'.encode(),
                    chat=name != "prompt",
                    engine="fake",
                    supported=frozenset(FEATURES),
                )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
NAMES = [*WRONG, *FEATURES, "messages", "prompt", "tools"]


@given(st.dictionaries(st.sampled_from(NAMES), json_values, max_size=4), st.booleans())
def test_whatever_the_body_it_is_a_request_or_a_refusal(
    body: dict[str, Any], is_chat: bool
) -> None:
    whole = {"messages": [HELLO], "prompt": "a", **body}
    try:
        request = parse(
            json.dumps(whole).encode(), chat=is_chat, engine="fake", supported=frozenset(FEATURES)
        )
    except BadRequestError:
        return
    assert request.chat is is_chat


@pytest.mark.parametrize(
    ("chat", "fields", "count"),
    [
        (True, {}, None),
        (True, {"logprobs": False}, None),
        (True, {"logprobs": True}, 0),
        (True, {"logprobs": True, "top_logprobs": 5}, 5),
        (False, {}, None),
        (False, {"logprobs": 0}, 0),
        (False, {"logprobs": 3}, 3),
    ],
)
def test_likelihoods_are_asked_for_in_two_ways(
    chat: bool, fields: dict[str, Any], count: int | None
) -> None:
    asked = {"messages": [HELLO]} if chat else {"prompt": "a"}
    body = json.dumps({**asked, **fields}).encode()
    request = parse(body, chat=chat, engine="fake", supported=frozenset(FEATURES))
    assert request.logprobs == count
