from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from router.api.anthropic_answer import MessageStream, message, signature
from router.api.sse import EventReader
from router.errors import EngineFailedError, RouterError

USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 20},
}
COUNTED = {
    "input_tokens": 10,
    "output_tokens": 7,
    "cache_read_input_tokens": 20,
    "cache_creation_input_tokens": 0,
}
NOTHING = dict.fromkeys(COUNTED, 0)


def completion(reason: str = "stop", **said: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", **said}}
    return {"choices": [choice], "usage": USAGE}


def call(arguments: Any, **fields: Any) -> dict[str, Any]:
    return {"id": "c1", "function": {"name": "f", "arguments": arguments}, **fields}


def chunk(reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def piece(index: int, name: str | None = None, arguments: str | None = None) -> dict[str, Any]:
    head = {"id": f"c{index}"} if name else {}
    function = {"name": name, "arguments": arguments}
    return chunk(tool_calls=[{"index": index, **head, "function": function}])


def events(pieces: Iterable[bytes]) -> list[dict[str, Any]]:
    """What a client reads; the name of an event is that of its type."""
    reader = EventReader()
    found = []
    for event in reader.add(b"".join(pieces)):
        value = json.loads(event.data)
        assert value["type"] == event.name
        found.append(value)
    return found


def streamed(*chunks: dict[str, Any]) -> list[dict[str, Any]]:
    stream = MessageStream("m")
    pieces = [piece for chunk in chunks for piece in stream.add(chunk)]
    return events([*pieces, *stream.finish()])


def told(*chunks: dict[str, Any]) -> list[Any]:
    """The events, without those that every stream has, in short."""
    first, *between, delta, stop = streamed(*chunks, {"choices": [], "usage": USAGE})
    assert (first["type"], delta["type"], stop) == (
        "message_start", "message_delta", {"type": "message_stop"}
    )  # fmt: skip
    short: list[Any] = []
    for event in between:
        index = event["index"]
        match event["type"]:
            case "content_block_start":
                short.append((index, event["content_block"]))
            case "content_block_delta":
                short.append((index, *event["delta"].values()))
            case "content_block_stop":
                short.append(index)
    return [*short, delta["delta"]["stop_reason"]]


# Whole


def test_a_message() -> None:
    found = message(completion(content="Hi", reasoning_content="Hm."), "m")
    assert found.pop("id").startswith("msg_")
    assert found == {
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": signature("Hm.")},
            {"type": "text", "text": "Hi"},
        ],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": COUNTED,
    }


@pytest.mark.parametrize(
    ("finish", "stop"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("tool_calls", "tool_use"),
        ("content_filter", "refusal"),
        ("what", "end_turn"),
    ],
)
def test_why_it_stopped(finish: str, stop: str) -> None:
    assert message(completion(finish), "m")["stop_reason"] == stop


def test_a_stop_sequence_is_told_where_the_engine_tells_it() -> None:
    answer = completion(content="a")
    answer["choices"][0]["stop_reason"] = "END"
    found = message(answer, "m")
    assert (found["stop_reason"], found["stop_sequence"]) == ("stop_sequence", "END")


def test_calls_are_blocks_and_half_a_call_is_none() -> None:
    calls = [call('{"a": 1}'), call(""), call('{"a": '), call("[]"), call("{}", id=None), "x"]
    content = message(completion("tool_calls", content=None, tool_calls=calls), "m")["content"]
    assert [block["input"] for block in content] == [{"a": 1}, {}, {}]
    assert content[0] == {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}
    assert content[2]["id"].startswith("toolu_")


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"choices": 1, "usage": []},
        {"choices": [1], "usage": {"prompt_tokens": "x", "prompt_tokens_details": 1}},
        {"choices": [{"message": {"content": 1, "tool_calls": {}, "reasoning_content": []}}]},
    ],
)
def test_an_odd_answer_is_an_empty_message(answer: dict[str, Any]) -> None:
    found = message(answer, "m")
    assert (found["content"], found["usage"]) == ([], NOTHING)


# Streamed


def test_the_frame_of_a_stream() -> None:
    opening, end = chunk(role="assistant", content=None), {**chunk("length"), "usage": USAGE}
    first, last, stop = streamed(opening, end)
    started = first["message"]
    assert started.pop("id").startswith("msg_")
    assert started == {
        "type": "message", "role": "assistant", "model": "m", "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": NOTHING,
    }  # fmt: skip
    assert last == {
        "type": "message_delta",
        "delta": {"stop_reason": "max_tokens", "stop_sequence": None},
        "usage": COUNTED,
    }
    assert stop == {"type": "message_stop"}


def test_text_and_thoughts_are_blocks_of_their_own() -> None:
    chunks = [chunk(reasoning_content="H"), chunk(reasoning_content="m."), chunk(content="a"),
              chunk(content="b"), chunk("stop")]  # fmt: skip
    assert told(*chunks) == [
        (0, {"type": "thinking", "thinking": "", "signature": ""}),
        (0, "thinking_delta", "H"),
        (0, "thinking_delta", "m."),
        (0, "signature_delta", signature("Hm.")),
        0,
        (1, {"type": "text", "text": ""}),
        (1, "text_delta", "a"),
        (1, "text_delta", "b"),
        1,
        "end_turn",
    ]


def test_calls_are_streamed_as_they_come() -> None:
    chunks = [chunk(content="I"), piece(0, "f", ""), piece(0, None, '{"a"'), piece(0, None, ":1}"),
              piece(1, "g", "{}"), chunk("tool_calls")]  # fmt: skip
    assert told(*chunks) == [
        (0, {"type": "text", "text": ""}),
        (0, "text_delta", "I"),
        0,
        (1, {"type": "tool_use", "id": "c0", "name": "f", "input": {}}),
        (1, "input_json_delta", '{"a"'),
        (1, "input_json_delta", ":1}"),
        1,
        (2, {"type": "tool_use", "id": "c1", "name": "g", "input": {}}),
        (2, "input_json_delta", "{}"),
        2,
        "tool_use",
    ]


def test_a_call_that_goes_back_cannot_be_told() -> None:
    stream = MessageStream("m")
    for one in (piece(0, "f", "{"), piece(1, "g", "{}")):
        list(stream.add(one))
    with pytest.raises(EngineFailedError):
        list(stream.add(piece(0, None, "}")))


def test_an_answer_without_an_end_has_no_last_event() -> None:
    stream = MessageStream("m")
    list(stream.add(chunk(content="a")))
    with pytest.raises(EngineFailedError):
        list(stream.finish())


def test_pings_come_after_the_start_and_it_comes_once() -> None:
    stream = MessageStream("m")
    found = events(
        [*stream.wait(), *stream.wait(), *stream.add(chunk(content="a")), *stream.wait()]
    )
    assert [event["type"] for event in found] == [
        "message_start", "ping", "ping", "content_block_start", "content_block_delta", "ping"
    ]  # fmt: skip


def test_an_error_is_an_event() -> None:
    (found,) = events(MessageStream("m").fail(RouterError("Broken.")))
    assert found == {"type": "error", "error": {"type": "api_error", "message": "Broken."}}


@pytest.mark.parametrize("odd", [{}, {"choices": [{"delta": 1}]}, chunk(tool_calls=1)])
def test_odd_chunks_say_nothing(odd: dict[str, Any]) -> None:
    assert told(odd, chunk("stop")) == ["end_turn"]
