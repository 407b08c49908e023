"""An answer ends with its first call, wherever a stream is cut."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.api.one_call import FirstCallEvents, first_call
from router.api.sse import MAX_EVENT_BYTES

Json = dict[str, Any]


def call(index: int, **function: Any) -> Json:
    return {"index": index, "function": function}


def chunk(choice: int = 0, reason: str | None = None, **delta: Any) -> Json:
    return {"id": "é", "choices": [{"index": choice, "delta": delta, "finish_reason": reason}]}


def event(value: Json) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


BEFORE = [
    chunk(role="assistant", content=None),
    chunk(content='say "tool_calls"'),
    chunk(tool_calls=[call(0, name="f", arguments="")]),
    chunk(tool_calls=[call(0, arguments='{"ü": 1}')]),
]
AGAIN = [
    chunk(tool_calls=[call(1, name="f", arguments="")]),
    chunk(tool_calls=[call(1, arguments="{")]),
    chunk(content="and so on"),
]
USAGE: Json = {"choices": [], "usage": {"completion_tokens": 9}}
DONE = b"data: [DONE]\n\n"


def through(pieces: Sequence[bytes]) -> bytes:
    events = FirstCallEvents()
    return b"".join(map(events.add, pieces)) + events.finish()


def stream(*chunks: Json) -> bytes:
    return b"".join(map(event, chunks)) + DONE


@pytest.mark.parametrize("reason", ["tool_calls", "length", "stop"])
def test_a_stream_ends_with_its_first_call_at_every_split(reason: str) -> None:
    said = stream(*BEFORE, *AGAIN, chunk(reason=reason), USAGE)
    told = stream(*BEFORE, chunk(reason="tool_calls"), USAGE)
    assert through([said]) == told
    for at in range(len(said)):
        assert through([said[:at], said[at:]]) == told
    assert through([bytes([byte]) for byte in said]) == told


def test_one_call_that_is_cut_off_stays_so() -> None:
    said = stream(*BEFORE, chunk(reason="length"), USAGE)
    assert through([said]) == said


def test_an_event_with_both_calls_keeps_the_first() -> None:
    both = [call(0, name="f", arguments="{}"), call(1, name="g", arguments="{}")]
    told = through([stream(chunk(tool_calls=both), chunk(reason="stop"))])
    assert told == stream(chunk(tool_calls=both[:1]), chunk(reason="tool_calls"))


def test_an_event_with_more_than_calls_loses_only_the_others() -> None:
    both = [call(3, name="f", arguments="{}"), call(4, name="g", arguments="{}")]
    told = through([stream(chunk(role="assistant", content="a", tool_calls=both))])
    assert told == stream(chunk(role="assistant", content="a", tool_calls=both[:1]))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("head", ["data:", ": a comment\ndata: "])
def test_however_events_are_written_there_is_one_call(end: str, head: str) -> None:
    events = [head.replace("\n", end) + json.dumps(one) for one in (*BEFORE, *AGAIN)]
    said = "".join(event + 2 * end for event in events).encode()
    told = "".join(event + 2 * end for event in events[: len(BEFORE)]).encode()
    for at in range(len(said) - len(told), len(said)):
        assert through([said[:at], said[at:]]) == told
    assert through([said.removesuffix(2 * end.encode())]) == told


def test_a_long_event_in_small_pieces_takes_no_longer_than_its_length() -> None:
    events = FirstCallEvents()
    piece = b"a" * 512
    assert not any(events.add(piece) for _ in range(20_000))
    assert events.finish() == 20_000 * piece


def test_each_choice_ends_by_itself() -> None:
    other = chunk(1, content="hello"), chunk(1, "stop")
    said = stream(*BEFORE, *AGAIN, *other, chunk(0, "length"))
    assert through([said]) == stream(*BEFORE, *other, chunk(0, "tool_calls"))


@pytest.mark.parametrize(
    "odd",
    [
        b": a comment\n\n",
        b"data: {not JSON\n\n",
        b'data: {"choices": 1}\n\n',
        b'data: {"choices": [1, {"delta": 2}, {"delta": {"tool_calls": "a"}}]}\n\n',
        b'data: {"choices": [{"delta": {"tool_calls": [7, {"index": null}]}}]}\n\n',
        b'data: ' + b"[" * 100_000 + b'"tool_calls"\n\n',
        b'data: "tool_calls" without an end',
        b'data: {"choices": [{"index": [], "delta": {"tool_calls": [{"index": 0}]}}]}\n\n',
        b"",
    ],
)  # fmt: skip
def test_what_is_odd_passes_as_it_came(odd: bytes) -> None:
    said = b"".join(map(event, BEFORE)) + odd
    assert through([said]) == said


def test_an_event_without_an_end_is_not_held_for_ever() -> None:
    events = FirstCallEvents()
    assert len(events.add(b"a" * (MAX_EVENT_BYTES + 1))) == MAX_EVENT_BYTES + 1


@given(st.lists(st.binary(max_size=30)))
def test_bytes_without_calls_are_those_that_came(pieces: list[bytes]) -> None:
    assert through(pieces) == b"".join(pieces)


def whole(*names: str, reason: str = "tool_calls") -> Json:
    message = {"content": "é", "tool_calls": [{"function": {"name": name}} for name in names]}
    return {"choices": [{"index": 0, "message": message, "finish_reason": reason}], "usage": {}}


def test_a_whole_answer_keeps_its_first_call() -> None:
    assert json.loads(first_call(json.dumps(whole("f", "g", reason="length")).encode())) == whole(
        "f"
    )


@pytest.mark.parametrize(
    "said",
    [
        json.dumps(whole("f", reason="length")).encode(),
        b'{"choices": [{"message": {"content": "a"}}]}',
        b'{"choices": [{"message": {"tool_calls": 1}}, 2]}',
        b'["tool_calls"]',
        b'{"tool_calls"',
        b"[" * 100_000 + b'"tool_calls"',
    ],
)
def test_other_whole_answers_stay_as_they_are(said: bytes) -> None:
    assert first_call(said) is said
