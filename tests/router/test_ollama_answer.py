from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import pytest

from router.api.ollama_answer import LineStream, Voice, whole
from router.api.sse import EventReader
from router.api.stopwatch import Stopwatch
from router.errors import EngineFailedError, RouterError

CHAT, TEXT = Voice("m", chat=True), Voice("m", chat=False)
USAGE = {"prompt_tokens": 30, "completion_tokens": 7}


def watch(*times: int) -> Stopwatch:
    clock: Iterator[int] = iter(times)
    return Stopwatch(lambda: next(clock))


def loaded(*times: int) -> Stopwatch:
    running = watch(*times)
    running.loaded()
    return running


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


def lines(pieces: Iterable[bytes]) -> list[dict[str, Any]]:
    """What a client reads; what all lines have is looked at and left out."""
    text = b"".join(pieces)
    assert text.endswith(b"\n")
    found = [json.loads(line) for line in text.split(b"\n")[:-1]]
    for line in found:
        assert line.pop("model") == "m"
        assert datetime.fromisoformat(line.pop("created_at")).tzinfo is not None
    return found


def streamed(*chunks: dict[str, Any], voice: Voice = CHAT) -> list[dict[str, Any]]:
    stream = LineStream(voice, Stopwatch())
    pieces = [one for chunk in chunks for one in stream.add(chunk)]
    return lines([*pieces, *stream.finish()])


def told(*chunks: dict[str, Any]) -> list[Any]:
    """The messages, without role and what is empty, and the reason of the end."""
    *between, last = streamed(*chunks)
    assert not any(line["done"] for line in between)
    assert last["message"] == {"role": "assistant", "content": ""}
    short = [{k: v for k, v in line["message"].items() if k != "role" and v} for line in between]
    return [*short, last["done_reason"]]


def test_a_message_with_its_counts_and_times() -> None:
    answer = whole(completion(content="Hi."), CHAT, loaded(100, 130, 200))
    answer.pop("created_at")
    assert answer == {
        "model": "m", "message": {"role": "assistant", "content": "Hi."}, "done": True,
        "done_reason": "stop", "total_duration": 100, "load_duration": 30, "eval_duration": 70,
        "prompt_eval_count": 30, "eval_count": 7,
    }  # fmt: skip


def test_times_that_the_engine_tells_are_told() -> None:
    timings = {"prompt_ms": 1.5, "predicted_ms": 2}
    answer = whole({**completion(), "timings": timings}, CHAT, loaded(0, 1, 2))
    assert (answer["prompt_eval_duration"], answer["eval_duration"]) == (1_500_000, 2_000_000)
    odd = {"prompt_ms": "x", "predicted_ms": -1}
    answer = whole({**completion(), "timings": odd}, CHAT, loaded(0, 1, 2))
    assert "prompt_eval_duration" not in answer


def test_a_stream_tells_when_it_began_to_speak() -> None:
    stream = LineStream(CHAT, loaded(0, 10, 30, 100))
    pieces = [*stream.add(chunk(content="a")), *stream.add(chunk("length", content="b"))]
    *_, last = lines([*pieces, *stream.add({"choices": [], "usage": USAGE}), *stream.finish()])
    assert last == {
        "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "length",
        "total_duration": 100, "load_duration": 10, "prompt_eval_duration": 20,
        "eval_duration": 70, "prompt_eval_count": 30, "eval_count": 7,
    }  # fmt: skip


def test_a_response_to_a_prompt() -> None:
    answer = whole(completion(content="Hi.", reasoning_content="Hm."), TEXT, loaded(0, 0, 0))
    assert (answer["response"], answer["thinking"]) == ("Hi.", "Hm.")
    raw = {"choices": [{"text": " a cracker.", "finish_reason": "length"}]}
    answer = whole(raw, TEXT, loaded(0, 0, 0))
    assert (answer["response"], answer["done_reason"]) == (" a cracker.", "length")
    first, last = streamed(
        {"choices": [{"text": "x"}]}, {"choices": [{"text": "", "finish_reason": "stop"}]},
        voice=TEXT,
    )  # fmt: skip
    assert first == {"response": "x", "done": False}
    assert (last["response"], last["done"]) == ("", True)


def test_calls_are_told_with_their_arguments_as_an_object() -> None:
    calls = [call('{"city": "Paris"}'), call('{"cit'), call(None), call("[]")]
    answer = whole(completion("tool_calls", content=None, tool_calls=calls), CHAT, watch(0, 0))
    assert answer["message"]["tool_calls"] == [
        {"id": "c1", "function": {"name": "f", "arguments": {"city": "Paris"}}},
        {"id": "c1", "function": {"name": "f", "arguments": {}}},
    ]
    assert answer["done_reason"] == "stop"


def test_a_streamed_call_is_told_when_it_is_complete() -> None:
    assert told(
        chunk(reasoning_content="Hm."), chunk(content="Well."),
        piece(0, "f", '{"a"'), piece(0, arguments=": 1}"), piece(1, "g"), chunk("tool_calls"),
    ) == [
        {"thinking": "Hm."},
        {"content": "Well."},
        {"tool_calls": [{"id": "c0", "function": {"name": "f", "arguments": {"a": 1}}}]},
        {"tool_calls": [{"id": "c1", "function": {"name": "g", "arguments": {}}}]},
        "stop",
    ]  # fmt: skip
    assert told(piece(0, "f", '{"a"'), chunk("length")) == ["length"]


def test_likelihoods_are_told_with_the_text_that_they_are_of() -> None:
    token = {"token": "a", "logprob": -0.5, "top_logprobs": []}
    answer = completion(content="a")
    answer["choices"][0]["logprobs"] = {"content": [token]}
    assert whole(answer, CHAT, watch(0, 0))["logprobs"] == [token]
    spoken = chunk(content="a")
    spoken["choices"][0]["logprobs"] = {"content": [token]}
    assert streamed(spoken, chunk("stop"))[0]["logprobs"] == [token]


def test_a_stream_without_an_end_is_a_failure() -> None:
    stream = LineStream(CHAT, Stopwatch())
    with pytest.raises(EngineFailedError):
        list(stream.finish())
    with pytest.raises(EngineFailedError):
        list(stream.add(piece(3, None, "}")))


def test_an_error_is_a_line() -> None:
    text = b"".join(LineStream(CHAT, Stopwatch()).fail(RouterError("a\nb")))
    assert json.loads(text) == {"error": "a\nb"}
    assert text.count(b"\n") == 1


@pytest.mark.parametrize(
    "odd",
    [{}, {"choices": None}, {"choices": [3]}, {"choices": [{"delta": "x", "message": 1}]},
     {"choices": [{"delta": {"content": 1, "tool_calls": "x"}, "logprobs": 3}], "usage": 3}],
)  # fmt: skip
def test_odd_answers_are_empty(odd: dict[str, Any]) -> None:
    assert told(odd, chunk("stop")) == ["stop"]
    assert whole(odd, CHAT, watch(0, 0))["message"] == {"role": "assistant", "content": ""}


def test_bytes_may_come_in_any_pieces() -> None:
    chunks = [chunk(content="né🥜\n"), piece(0, "f", '{"a": "ü"}'), chunk("stop")]
    events = b"".join(
        b"data: " + json.dumps(one, ensure_ascii=False).encode() + b"\n\n" for one in chunks
    )
    expected = streamed(*chunks)
    for cut in range(len(events) + 1):
        reader, stream = EventReader(), LineStream(CHAT, Stopwatch())
        pieces = [
            line
            for part in (events[:cut], events[cut:])
            for event in reader.add(part)
            for line in stream.add(json.loads(event.data))
        ]
        found = lines([*pieces, *stream.finish()])
        assert found[:-1] == expected[:-1]
        assert found[-1]["done"]
