from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from router.api.responses_answer import ResponseStream, whole
from router.api.sse import EventReader
from router.errors import EngineFailedError, RouterError

HEAD = {"model": "m", "metadata": {"a": "b"}}
USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 20},
}
TEXT_EVENTS = [
    "response.output_item.added", "response.content_part.added", "response.output_text.delta",
    "response.output_text.done", "response.content_part.done", "response.output_item.done",
]  # fmt: skip


def chunk(reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def piece(index: int, name: str | None = None, arguments: str | None = None) -> dict[str, Any]:
    head = {"id": f"c{index}"} if name else {}
    function = {"name": name, "arguments": arguments}
    return chunk(tool_calls=[{"index": index, **head, "function": function}])


def completion(reason: str | None = "stop", **said: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", **said}}
    return {"choices": [choice], "usage": USAGE}


def call(arguments: Any) -> dict[str, Any]:
    return {"id": "c1", "function": {"name": "f", "arguments": arguments}}


def events(pieces: Iterable[bytes]) -> list[dict[str, Any]]:
    """What a client reads; the name of an event is its type, and they are numbered."""
    found = []
    for number, event in enumerate(EventReader().add(b"".join(pieces))):
        value = json.loads(event.data)
        assert (value["type"], value.pop("sequence_number")) == (event.name, number)
        found.append(value)
    return found


def streamed(*chunks: dict[str, Any]) -> list[dict[str, Any]]:
    kept: list[Any] = []
    stream = ResponseStream(HEAD, kept.append)
    pieces = [one for chunk in chunks for one in stream.add(chunk)]
    assert kept == []
    told = events([*pieces, *stream.finish()])
    assert kept == [told[-1]["response"]]
    return told


def kinds(told: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in told]


def output(response: dict[str, Any]) -> list[Any]:
    """The items without their ids, in short."""
    short: list[Any] = []
    for item in response["output"]:
        assert item["id"].partition("_")[0] in ("msg", "rs", "fc")
        if item["type"] == "function_call":
            said = (item["call_id"], item["name"], item["arguments"])
        else:
            said = tuple(part["text"] for part in item["content"])
        short.append((item["type"], item["status"], *said))
    return short


def test_a_text_is_told_in_openais_order() -> None:
    told = streamed(chunk(content="Hi"), chunk(content="."), chunk("stop"), {"usage": USAGE})
    assert kinds(told) == [
        "response.created", "response.in_progress",
        *TEXT_EVENTS[:3], *TEXT_EVENTS[2:], "response.completed",
    ]  # fmt: skip
    created, _, added, part, first, second, done, part_done, item_done, completed = told
    assert created["response"]["status"] == "in_progress"
    assert created["response"]["output"] == added["item"]["content"] == []
    item = added["item"]["id"]
    for event in (part, first, second, done, part_done):
        assert (event["item_id"], event["output_index"], event["content_index"]) == (item, 0, 0)
    assert (first["delta"], second["delta"], done["text"]) == ("Hi", ".", "Hi.")
    assert part["part"]["text"] == ""
    assert part_done["part"] == {
        "type": "output_text", "text": "Hi.", "annotations": [], "logprobs": [],
    }  # fmt: skip
    response = completed["response"]
    assert response["id"] == created["response"]["id"]
    assert response["output"] == [item_done["item"]]
    assert output(response) == [("message", "completed", "Hi.")]
    assert (response["model"], response["metadata"]) == ("m", {"a": "b"})
    assert response["usage"] == {
        "input_tokens": 30, "input_tokens_details": {"cached_tokens": 20}, "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 37,
    }  # fmt: skip


def test_thoughts_texts_and_calls_are_items_one_after_another() -> None:
    told = streamed(
        chunk(reasoning_content="H"), chunk(reasoning_content="m."), chunk(content="Well."),
        piece(0, "f", '{"a"'), piece(0, arguments=": 1}"), piece(1, "g"), chunk("tool_calls"),
    )  # fmt: skip
    assert output(told[-1]["response"]) == [
        ("reasoning", "completed", "Hm."),
        ("message", "completed", "Well."),
        ("function_call", "completed", "c0", "f", '{"a": 1}'),
        ("function_call", "completed", "c1", "g", "{}"),
    ]
    assert kinds(told)[2:9] == [
        "response.output_item.added", "response.content_part.added",
        "response.reasoning_text.delta", "response.reasoning_text.delta",
        "response.reasoning_text.done", "response.content_part.done", "response.output_item.done",
    ]  # fmt: skip
    assert kinds(told)[15:20] == [
        "response.output_item.added", "response.function_call_arguments.delta",
        "response.function_call_arguments.delta", "response.function_call_arguments.done",
        "response.output_item.done",
    ]  # fmt: skip
    assert told[15]["item"]["arguments"] == ""
    assert told[18]["arguments"] == '{"a": 1}'
    indices = [event["output_index"] for event in told if "output_index" in event]
    assert indices == sorted(indices)
    assert set(indices) == {0, 1, 2, 3}


def test_an_answer_that_was_cut_off_is_incomplete() -> None:
    told = streamed(chunk(content="Hi"), chunk("length"))
    response = told[-1]["response"]
    assert kinds(told)[-1] == "response.incomplete"
    assert (response["status"], response["incomplete_details"]) == (
        "incomplete", {"reason": "max_output_tokens"},
    )  # fmt: skip
    assert output(response) == [("message", "incomplete", "Hi")]
    half = streamed(piece(0, "f", '{"a"'), chunk("stop"))[-1]["response"]
    assert output(half) == [("function_call", "incomplete", "c0", "f", '{"a"')]


def test_a_whole_answer_is_the_response_of_the_stream() -> None:
    kept: list[Any] = []
    calls = [call('{"a": 1}'), {"function": {}}, call("")]
    said = completion("tool_calls", reasoning_content="Hm.", content="Hi.", tool_calls=calls)
    response = whole(said, HEAD, kept.append)
    assert kept == [response]
    assert (response["object"], response["status"]) == ("response", "completed")
    assert output(response) == [
        ("reasoning", "completed", "Hm."),
        ("message", "completed", "Hi."),
        ("function_call", "completed", "c1", "f", '{"a": 1}'),
        ("function_call", "completed", "c1", "f", "{}"),
    ]
    assert response["usage"]["total_tokens"] == 37


@pytest.mark.parametrize(
    "odd",
    [{}, {"choices": None}, {"choices": [3]}, {"choices": [{"message": 1, "finish_reason": 7}]},
     {"choices": [{"message": {"content": 1, "tool_calls": "x"}}], "usage": 3}],
)  # fmt: skip
def test_odd_answers_are_empty(odd: dict[str, Any]) -> None:
    response = whole(odd, HEAD, lambda response: None)
    assert response["output"] == []
    assert streamed(odd, chunk("stop"))[-1]["response"]["output"] == []


def test_a_stream_without_an_end_is_a_failure_and_not_kept() -> None:
    kept: list[Any] = []
    stream = ResponseStream(HEAD, kept.append)
    pieces = [*stream.add(chunk(content="A")), *stream.add(piece(0, "f", "{"))]
    with pytest.raises(EngineFailedError):
        list(stream.finish())
    with pytest.raises(EngineFailedError):
        list(stream.add(piece(1, None, "}")))
    *_, failed = events([*pieces, *stream.fail(RouterError("x"))])
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "internal_error", "message": "x"}
    assert output(failed["response"]) == [("message", "completed", "A")]
    assert kept == []


def test_a_wait_begins_the_stream_and_is_no_event() -> None:
    stream = ResponseStream(HEAD, lambda response: None)
    pieces = [*stream.wait(), *stream.wait(), *stream.add(chunk("stop")), *stream.finish()]
    assert b"".join(pieces).count(b": keep-alive\n\n") == 2
    assert kinds(events(pieces)) == [
        "response.created", "response.in_progress", "response.completed",
    ]  # fmt: skip


def test_bytes_may_come_in_any_pieces() -> None:
    chunks = [chunk(content="né🥜\r\n\n"), piece(0, "f", '{"a": "ü"}'), chunk("stop")]
    text = b"".join(
        b"data: " + json.dumps(one, ensure_ascii=False).encode() + b"\n\n" for one in chunks
    )
    expected = output(streamed(*chunks)[-1]["response"])
    for cut in range(len(text) + 1):
        reader, stream = EventReader(), ResponseStream(HEAD, lambda response: None)
        pieces = [
            one
            for part in (text[:cut], text[cut:])
            for event in reader.add(part)
            for one in stream.add(json.loads(event.data))
        ]
        assert output(events([*pieces, *stream.finish()])[-1]["response"]) == expected
