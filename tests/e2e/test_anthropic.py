"""Anthropic's own client against the three engines."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import pytest

from tests.e2e.conftest import MODELS
from tests.e2e.daemon import SLACK, Daemon
from tests.tiny import dialogues as d

GREEDY: dict[str, Any] = {"extra_body": {"temperature": 0}}
"""The client has no argument for it any more."""

WEATHER: Any = {
    "name": "get_weather",
    "input_schema": d.WEATHER_TOOL["function"]["parameters"],
}
AGENT: dict[str, Any] = {
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14",
    "x-app": "cli",
}


@pytest.fixture
def api(daemon: Daemon) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=daemon.url, api_key="none", max_retries=0) as client:
        yield client


def user(content: Any) -> Any:
    return {"role": "user", "content": content}


def assistant(content: Any) -> Any:
    return {"role": "assistant", "content": content}


def result(call: str, content: str) -> Any:
    return user([{"type": "tool_result", "tool_use_id": call, "content": content}])


def test_a_message(api: anthropic.Anthropic, model: str) -> None:
    answer = api.messages.create(model=model, max_tokens=50, messages=[user(d.QUESTION)], **GREEDY)
    (block,) = answer.content
    assert block.type == "text"
    assert block.text == d.SENTENCE
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", model)
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    usage = answer.usage
    assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == 21
    assert usage.output_tokens in (16, 17)


def test_the_system_prompt_is_read(api: anthropic.Anthropic, model: str) -> None:
    count = api.messages.count_tokens
    plain = count(model=model, messages=[user(d.QUESTION)]).input_tokens
    system: Any = [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=1f2e3;"},
        {"type": "text", "text": d.SYSTEM, "cache_control": {"type": "ephemeral"}},
    ]
    told = count(model=model, messages=[user(d.QUESTION)], system=system).input_tokens
    only = count(model=model, messages=[user(d.QUESTION)], system=d.SYSTEM).input_tokens
    assert plain < told == only
    answer = api.messages.create(
        model=model, max_tokens=50, messages=[user(d.FOOD_QUESTION)], system=system, **GREEDY
    )
    assert answer.content[0].type == "text"
    assert answer.content[0].text == d.FOOD


def test_a_prompt_is_counted_even_if_it_is_too_long(api: anthropic.Anthropic, model: str) -> None:
    count = api.messages.count_tokens
    assert count(model=model, messages=[user(d.QUESTION)]).input_tokens == 21
    assert count(model=model, messages=[user("x " * 3000)]).input_tokens > 3000
    tools = count(model=model, messages=[user(d.QUESTION)], tools=[WEATHER]).input_tokens
    assert tools > 100


def test_a_stream(api: anthropic.Anthropic, model: str) -> None:
    with api.messages.stream(
        model=model, max_tokens=50, messages=[user(d.FOOD_QUESTION)], **GREEDY
    ) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(pieces) == d.FOOD
    assert len(pieces) > 5
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens > 5
    counted = api.messages.count_tokens(model=model, messages=[user(d.FOOD_QUESTION)])
    read = final.usage.cache_read_input_tokens or 0
    assert final.usage.input_tokens + read == counted.input_tokens


def test_thoughts_are_taken_back_and_asked_for(api: anthropic.Anthropic, model: str) -> None:
    """By a model that has none: its template leaves them out, and nothing refuses."""
    thought: Any = {"type": "thinking", "thinking": "Who am I?", "signature": "x"}
    answer = api.messages.create(
        model=model,
        max_tokens=1100,
        messages=[
            user(d.QUESTION),
            assistant([thought, {"type": "text", "text": d.SENTENCE}]),
            user(d.FOOD_QUESTION),
        ],
        thinking={"type": "enabled", "budget_tokens": 1024},
        **GREEDY,
    )
    assert [block.type for block in answer.content] == ["text"]
    assert answer.content[0].type == "text"
    assert answer.content[0].text == d.FOOD


def test_the_limit_ends_an_answer(api: anthropic.Anthropic, model: str) -> None:
    answer = api.messages.create(model=model, max_tokens=3, messages=[user(d.QUESTION)], **GREEDY)
    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 3)


def test_a_stop_sequence_ends_an_answer(api: anthropic.Anthropic, model: str) -> None:
    answer = api.messages.create(
        model=model,
        max_tokens=50,
        messages=[user(d.QUESTION)],
        stop_sequences=["never", " parrot"],
        **GREEDY,
    )
    assert answer.content[0].type == "text"
    assert answer.content[0].text == "I am a small"
    if MODELS[model] == "mlx":
        assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", " parrot")
    else:
        assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)


def test_a_tool_is_called_and_its_result_used(api: anthropic.Anthropic, model: str) -> None:
    asked = user(d.WEATHER_QUESTION)
    answer = api.messages.create(
        model=model, max_tokens=50, messages=[asked], tools=[WEATHER], **GREEDY
    )
    (call,) = answer.content
    assert call.type == "tool_use"
    assert (call.name, call.input, answer.stop_reason) == (
        "get_weather", d.WEATHER_ARGUMENTS, "tool_use"
    )  # fmt: skip
    final = api.messages.create(
        model=model,
        max_tokens=50,
        messages=[asked, assistant(answer.content), result(call.id, d.WEATHER_TOOL_RESULT)],
        tools=[WEATHER],
        **GREEDY,
    )
    assert final.content[0].type == "text"
    assert (final.content[0].text, final.stop_reason) == (d.WEATHER, "end_turn")


def test_a_call_is_streamed_piece_by_piece(api: anthropic.Anthropic, model: str) -> None:
    with api.messages.create(
        model=model,
        max_tokens=50,
        messages=[user(d.WEATHER_QUESTION)],
        tools=[WEATHER],
        stream=True,
        **GREEDY,
    ) as stream:
        events = list(stream)
    first, start, *pieces, stop, delta, end = events
    assert first.type == "message_start"
    assert start.type == "content_block_start"
    assert start.content_block.type == "tool_use"
    assert (start.content_block.name, start.content_block.input) == ("get_weather", {})
    parts = []
    for piece in pieces:
        assert piece.type == "content_block_delta"
        assert piece.delta.type == "input_json_delta"
        parts.append(piece.delta.partial_json)
    assert json.loads("".join(parts)) == d.WEATHER_ARGUMENTS
    assert len(parts) > 3
    assert (stop.type, end.type) == ("content_block_stop", "message_stop")
    assert delta.type == "message_delta"
    assert delta.delta.stop_reason == "tool_use"


def test_a_tool_that_must_not_be_called_is_not(api: anthropic.Anthropic, model: str) -> None:
    answer = api.messages.create(
        model=model,
        max_tokens=50,
        messages=[user(d.WEATHER_QUESTION)],
        tools=[WEATHER],
        tool_choice={"type": "none"},
        **GREEDY,
    )
    assert [block.type for block in answer.content] == ["text"]
    assert answer.stop_reason == "end_turn"


def test_a_call_can_be_demanded_on_every_engine(api: anthropic.Anthropic, model: str) -> None:
    arguments: dict[str, Any] = {
        "model": model,
        "max_tokens": 50,
        "messages": [user(d.WEATHER_QUESTION)],
        "tools": [WEATHER],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        **GREEDY,
    }
    answer = api.messages.create(**arguments)
    assert [block.type for block in answer.content] == ["tool_use"]


# Errors


def refused(error: anthropic.APIStatusError) -> str:
    assert isinstance(error.body, dict)
    assert error.body.keys() == {"type", "error"}
    return str(error.body["error"]["type"])


def test_errors_are_those_of_the_client(api: anthropic.Anthropic, model: str) -> None:
    def ask(**fields: Any) -> None:
        api.messages.create(**{"model": model, "max_tokens": 5, "messages": [user("a")], **fields})

    with pytest.raises(anthropic.NotFoundError, match="Did you mean") as missing:
        ask(model="parrot")
    assert refused(missing.value) == "not_found_error"
    for wrong, path in (
        ({"messages": []}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": [{"role": "tool", "content": "x"}]}, r"messages\.0\.role"),
        ({"tools": [{"input_schema": {}}]}, r"tools\.0\.name"),
        ({"messages": [user([{"type": "image", "source": {"type": "url", "url": "http://x"}}])]},
         r"messages\.0\.content\.0\.source\.type"),
    ):  # fmt: skip
        with pytest.raises(anthropic.BadRequestError, match=path) as bad:
            ask(**wrong)
        assert refused(bad.value) == "invalid_request_error"


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long_is_the_clients_mistake(
    api: anthropic.Anthropic, model: str, stream: bool
) -> None:
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long") as caught:
        api.messages.create(
            model=model, max_tokens=5, messages=[user("word " * 40_000)], stream=stream
        )
    assert refused(caught.value) == "invalid_request_error"


def test_a_picture_needs_a_model_that_sees(api: anthropic.Anthropic, model: str) -> None:
    picture: Any = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
    }
    with pytest.raises(anthropic.BadRequestError, match="cannot see pictures"):
        api.messages.create(model=model, max_tokens=5, messages=[user([picture])])


def test_half_a_surrogate_pair_is_a_mistake_or_replaced(
    api: anthropic.Anthropic, daemon: Daemon, model: str
) -> None:
    body = '{"model": "%s", "max_tokens": 2, "messages": [{"role": "user", "content": "\\ud800"}]}'
    with daemon.client() as client:
        headers = {"content-type": "application/json"}
        answer = client.post("/v1/messages", content=body % model, headers=headers)
    assert answer.status_code in (200, 400), answer.text
    assert answer.json()["type"] in ("message", "error")


# Clients that leave, and many of them


def test_a_client_that_leaves_frees_the_model(
    api: anthropic.Anthropic, daemon: Daemon, model: str
) -> None:
    with api.messages.create(
        model=model, max_tokens=1500, messages=[user(d.SONG_QUESTION)], stream=True, **GREEDY
    ) as stream:
        for event in stream:
            if event.type == "content_block_delta":
                break
    deadline = time.monotonic() + 5 * SLACK
    while leases(daemon, model):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def leases(daemon: Daemon, model: str) -> int:
    return sum(one["leases"] for one in daemon.status()["instances"] if one["model"] == model)


def test_many_at_once(api: anthropic.Anthropic, model: str) -> None:
    def ask(number: int) -> str:
        question = (d.QUESTION, d.FOOD_QUESTION)[number % 2]
        with api.messages.stream(
            model=model, max_tokens=50, messages=[user(question)], **GREEDY
        ) as stream:
            return "".join(stream.text_stream)

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(ask, range(6))) == [d.SENTENCE, d.FOOD] * 3


# A coding agent


def session() -> Iterator[list[Any]]:
    """What a coding agent sends, request by request: twenty of them, each with all before it."""
    said: list[Any] = []
    for number in range(10):
        call = f"toolu_{number:04}"
        said.append(user([{"type": "text", "text": d.WEATHER_QUESTION}]))
        yield said
        said.append(assistant([{"type": "tool_use", "id": call, "name": "get_weather",
                                "input": d.WEATHER_ARGUMENTS}]))  # fmt: skip
        said.append(result(call, d.WEATHER_TOOL_RESULT))
        yield said
        said.append(assistant([{"type": "text", "text": d.WEATHER}]))


def marked(messages: list[Any]) -> list[Any]:
    """As coding agents do it: the last block is to be cached up to."""
    *earlier, last = messages
    *blocks, block = last["content"]
    return [*earlier, user([*blocks, {**block, "cache_control": {"type": "ephemeral"}}])]


@pytest.mark.parametrize("model", ["parrot-mlx-4bit", "parrot-gguf"])
def test_a_coding_agents_session_reads_its_past_from_the_cache(
    api: anthropic.Anthropic, model: str
) -> None:
    cached: Any = [{**WEATHER, "cache_control": {"type": "ephemeral"}}]
    read: list[int] = []
    prompts: list[int] = []
    for number, messages in enumerate(session()):
        billing = f"x-anthropic-billing-header: cc_version=2.1.{number}; cch={number:05};"
        system: Any = [
            {"type": "text", "text": billing},
            {"type": "text", "text": d.SYSTEM, "cache_control": {"type": "ephemeral"}},
        ]
        with api.beta.messages.stream(
            model=model,
            max_tokens=30 if number < 2 else 6,
            system=system,
            messages=marked(messages),
            tools=cached,
            metadata={"user_id": f"session-{number}"},
            betas=["claude-code-20250219"],
            extra_headers=AGENT,
            **GREEDY,
        ) as stream:
            final = stream.get_final_message()
        usage = final.usage
        read.append(usage.cache_read_input_tokens or 0)
        prompts.append(usage.input_tokens + read[-1])
        if number == 0:
            assert [block.type for block in final.content] == ["tool_use"]
            assert final.stop_reason == "tool_use"
    assert len(prompts) == 20
    assert prompts == sorted(set(prompts))
    assert read[1:] == sorted(set(read[1:]))
    for before, now in zip(prompts, read[1:], strict=False):
        assert now >= before - 8, (prompts, read)
