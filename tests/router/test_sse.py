from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.api.sse import EventReader, ServerSentEvent, written
from router.errors import EngineFailedError

STREAM = (
    ": a comment\n\n"
    "data: é 🥜\n\n"
    "event: error\r\ndata:{}\r\n\r\n"
    "data: one\rdata: two\r\r"
    "id: 7\nretry: 1\nnonsense\n\n"
    "data\n\n"
    "data:  a: b\n\n"
    "data: cut off"
).encode()
EVENTS = [
    ServerSentEvent("", "é 🥜"),
    ServerSentEvent("error", "{}"),
    ServerSentEvent("", "one\ntwo"),
    ServerSentEvent("", ""),
    ServerSentEvent("", " a: b"),
]


def read(*pieces: bytes) -> list[ServerSentEvent]:
    reader = EventReader()
    return [event for piece in pieces for event in reader.add(piece)]


@pytest.mark.parametrize("at", range(len(STREAM) + 1))
def test_it_may_be_cut_anywhere(at: int) -> None:
    assert read(STREAM[:at], STREAM[at:]) == EVENTS


def test_it_may_come_byte_by_byte() -> None:
    assert read(*(STREAM[i : i + 1] for i in range(len(STREAM)))) == EVENTS


def test_what_is_no_utf_8_is_replaced() -> None:
    assert read(b"data: \xff\n\n") == [ServerSentEvent("", "\ufffd")]


@pytest.mark.parametrize("piece", [b"x" * 8, b"data: x\n", b"data\n"])
def test_an_event_that_does_not_end_is_an_error(piece: bytes) -> None:
    reader = EventReader(limit_bytes=100)
    for _ in range(12):
        assert list(reader.add(piece)) == []
    with pytest.raises(EngineFailedError):
        list(reader.add(piece * 20))


@given(st.text(), st.integers(0, 400))
def test_no_text_can_end_an_event_early(text: str, at: int) -> None:
    event = written({"text": text, "more": "\u2028\r\n\r\ndata: x"}, "delta")
    (found,) = read(event[:at], event[at:])
    assert found.name == "delta"
    assert json.loads(found.data)["text"] == text


def test_half_a_surrogate_pair_is_written_as_something() -> None:
    assert written("\ud800") == b'data: "?"\n\n'
