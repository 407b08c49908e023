from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from backends.errors import EngineDiedError, EngineProtocolError
from backends.wire.events import (
    Choice,
    Event,
    Finished,
    ReasoningDelta,
    Spelling,
    TextDelta,
    TokenLikelihood,
    ToolCallArguments,
    ToolCallBroken,
    ToolCallStart,
    Usage,
)
from backends.wire.request import GenerationRequest
from backends.wire.response import respond
from tests.backends.messages import Exchange
from tests.slack import run
from tests.waiting import until

USAGE = Usage(prompt_tokens=3, completion_tokens=4, cached_tokens=2)
END = Finished("stop", USAGE)
COUNTED = {
    "prompt_tokens": 3,
    "completion_tokens": 4,
    "total_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 2},
}
CHAT = GenerationRequest(messages=({"role": "user", "content": "a"},))
TEXT = GenerationRequest(prompt="a")


async def telling(events: Sequence[Event | Exception]) -> AsyncGenerator[Event, None]:
    for event in events:
        if isinstance(event, Exception):
            raise event
        yield event


def answer(request: GenerationRequest, *events: Event) -> Exchange:
    async def main() -> Exchange:
        exchange = Exchange()
        await respond(request, "m", telling(events), exchange.receive, exchange.send)
        return exchange

    exchange = run(main())
    assert exchange.status == 200
    assert exchange.complete
    return exchange


def whole(request: GenerationRequest, *events: Event) -> Any:
    exchange = answer(request, *events)
    assert exchange.headers[b"content-type"] == b"application/json"
    assert exchange.headers[b"content-length"] == str(len(exchange.body)).encode()
    return json.loads(exchange.body)


def streamed(request: GenerationRequest, *events: Event, usage: bool = False) -> list[Any]:
    exchange = answer(replace(request, stream=True, include_usage=usage), *events)
    assert exchange.headers[b"content-type"].startswith(b"text/event-stream")
    *chunks, done, nothing = exchange.body.split(b"\n\n")
    assert (done, nothing) == (b"data: [DONE]", b"")
    assert all(b"\n" not in chunk and b"\r" not in chunk for chunk in chunks)
    return [json.loads(chunk.removeprefix(b"data: ")) for chunk in chunks]


def deltas(chunks: Sequence[Any]) -> list[Any]:
    return [chunk["choices"][0]["delta"] for chunk in chunks]


def test_a_whole_chat_answer() -> None:
    body = whole(CHAT, TextDelta("Hel"), TextDelta("lo"), END)
    assert (body["object"], body["model"]) == ("chat.completion", "m")
    assert body["id"].startswith("chatcmpl-")
    assert body["choices"] == [
        {
            "index": 0,
            "finish_reason": "stop",
            "logprobs": None,
            "message": {"role": "assistant", "content": "Hello"},
        }
    ]
    assert body["usage"] == COUNTED


def test_a_whole_text_answer() -> None:
    body = whole(TEXT, TextDelta("Hello"), Finished("length", USAGE))
    assert body["object"] == "text_completion"
    assert body["id"].startswith("cmpl-")
    assert body["choices"] == [
        {"index": 0, "finish_reason": "length", "logprobs": None, "text": "Hello"}
    ]


def test_the_stop_string_that_was_met_is_told_as_vllm_does() -> None:
    end = Finished("stop", USAGE, "END")
    assert whole(CHAT, end)["choices"][0]["stop_reason"] == "END"
    assert streamed(TEXT, end)[-1]["choices"][0]["stop_reason"] == "END"
    assert "stop_reason" not in whole(CHAT, END)["choices"][0]


def test_reasoning_stands_beside_the_text() -> None:
    events: list[Event] = [ReasoningDelta("h"), ReasoningDelta("m"), TextDelta("a"), END]
    message = whole(CHAT, *events)["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    told = deltas(streamed(CHAT, *events))
    assert told[1:3] == [{"reasoning_content": "h"}, {"reasoning_content": "m"}]


CALLS: list[Event] = [
    ToolCallStart("f"),
    ToolCallArguments("{"),
    ToolCallArguments("}"),
    ToolCallStart("g"),
    ToolCallArguments('{"a": 1}'),
]
BROKEN: list[Event] = [
    TextDelta("So: "),
    ToolCallStart("f"),
    ToolCallArguments('{"a": '),
    ToolCallBroken('<call>{"a": oops'),
]


def test_calls_without_text_have_no_content() -> None:
    message = whole(CHAT, *CALLS, Finished("tool_calls", USAGE))["choices"][0]["message"]
    assert message["content"] is None
    assert [call["function"] for call in message["tool_calls"]] == [
        {"name": "f", "arguments": "{}"},
        {"name": "g", "arguments": '{"a": 1}'},
    ]
    assert len({call["id"] for call in message["tool_calls"]}) == 2


def test_a_streamed_call_is_named_first_and_then_told_in_pieces() -> None:
    chunks = streamed(CHAT, *CALLS, Finished("tool_calls", USAGE))
    told = [delta["tool_calls"] for delta in deltas(chunks)[1:-1]]
    first, second = told[0][0].pop("id"), told[3][0].pop("id")
    assert first != second
    assert told == [
        [{"index": 0, "type": "function", "function": {"name": "f", "arguments": ""}}],
        [{"index": 0, "function": {"arguments": "{"}}],
        [{"index": 0, "function": {"arguments": "}"}}],
        [{"index": 1, "type": "function", "function": {"name": "g", "arguments": ""}}],
        [{"index": 1, "function": {"arguments": '{"a": 1}'}}],
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_broken_call_of_a_whole_answer_is_its_text() -> None:
    message = whole(CHAT, *BROKEN, END)["choices"][0]["message"]
    assert message == {"role": "assistant", "content": 'So: <call>{"a": oops'}
    message = whole(CHAT, *CALLS, *BROKEN, *CALLS[:3], END)["choices"][0]["message"]
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["f", "g", "f"]


def test_a_broken_call_of_a_stream_stays_unfinished_and_its_text_follows() -> None:
    told = deltas(streamed(CHAT, *BROKEN, *CALLS, END))
    assert told[4] == {"content": '<call>{"a": oops'}
    numbers = [delta["tool_calls"][0]["index"] for delta in told if "tool_calls" in delta]
    assert numbers == [0, 0, 1, 1, 1, 2, 2]


def test_an_answer_without_a_word_is_empty() -> None:
    assert whole(CHAT, END)["choices"][0]["message"]["content"] == ""
    assert whole(TEXT, END)["choices"][0]["text"] == ""


def test_a_streamed_chat_answer() -> None:
    chunks = streamed(CHAT, TextDelta("Hel"), TextDelta("lo"), END)
    assert deltas(chunks) == [
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None, None, None, "stop"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_a_streamed_text_answer() -> None:
    chunks = streamed(TEXT, TextDelta("Hello"), END)
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["Hello", ""]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}


def test_the_usage_comes_last_and_only_when_asked_for() -> None:
    chunks = streamed(CHAT, TextDelta("a"), END, usage=True)
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], COUNTED)
    assert not any("usage" in chunk for chunk in streamed(CHAT, TextDelta("a"), END))


@pytest.mark.parametrize(
    "text", ["\n\nevent: x\ndata: {}\n\n", "\r", "\r\n\r\n", "\0", '"}', "\u2028", "data: [DONE]"]
)
def test_no_text_ends_an_event(text: str) -> None:
    assert deltas(streamed(CHAT, TextDelta(text), END))[1] == {"content": text}
    assert whole(CHAT, TextDelta(text), END)["choices"][0]["message"]["content"] == text


def test_half_a_pair_of_surrogates_is_replaced() -> None:
    assert deltas(streamed(CHAT, TextDelta("a\ud800b"), END))[1] == {"content": "a?b"}
    assert whole(TEXT, TextDelta("a\ud800b"), END)["choices"][0]["text"] == "a?b"


# Errors and clients that leave


def test_each_event_is_sent_as_it_is_told() -> None:
    async def main() -> None:
        exchange, gate = Exchange(), asyncio.Event()

        async def events() -> AsyncGenerator[Event, None]:
            yield TextDelta("a")
            await gate.wait()
            yield END

        request = GenerationRequest(prompt="a", stream=True)
        work = respond(request, "m", events(), exchange.receive, exchange.send)
        answering = asyncio.create_task(work)
        await until(lambda: b'"a"' in exchange.body)
        gate.set()
        await answering
        assert exchange.complete

    run(main())


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_before_the_first_event_sends_nothing(stream: bool) -> None:
    async def main() -> None:
        exchange = Exchange()
        request = GenerationRequest(prompt="a", stream=stream)
        events = telling([EngineDiedError("It died.")])
        with pytest.raises(EngineDiedError):
            await respond(request, "m", events, exchange.receive, exchange.send)
        assert exchange.sent == []

    run(main())


def test_an_error_in_a_stream_is_its_last_event_and_no_end() -> None:
    async def main() -> None:
        exchange = Exchange()
        request = GenerationRequest(prompt="a", stream=True)
        events = telling([TextDelta("a"), EngineDiedError("It died.")])
        with pytest.raises(EngineDiedError):
            await respond(request, "m", events, exchange.receive, exchange.send)
        last = exchange.body.split(b"\n\n")[-2]
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "engine.died"
        assert b"[DONE]" not in exchange.body
        assert not exchange.complete

    run(main())


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("words", [0, 1])
def test_an_answer_that_just_stops_is_no_answer(stream: bool, words: int) -> None:
    async def main() -> None:
        exchange = Exchange()
        request = GenerationRequest(prompt="a", stream=stream)
        events = telling([TextDelta("a")] * words)
        with pytest.raises(EngineProtocolError, match="broke off"):
            await respond(request, "m", events, exchange.receive, exchange.send)
        assert b"[DONE]" not in exchange.body
        assert not exchange.complete

    run(main())


def test_an_error_in_a_whole_answer_sends_nothing() -> None:
    async def main() -> None:
        exchange = Exchange()
        events = telling([TextDelta("a"), EngineDiedError("It died.")])
        with pytest.raises(EngineDiedError):
            await respond(TEXT, "m", events, exchange.receive, exchange.send)
        assert exchange.sent == []

    run(main())


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("words", [0, 1])
def test_a_client_that_leaves_closes_the_events(stream: bool, words: int) -> None:
    async def main() -> None:
        exchange, began, closed = Exchange(), asyncio.Event(), asyncio.Event()

        async def events() -> AsyncGenerator[Event, None]:
            try:
                for _ in range(words):
                    yield TextDelta("a")
                began.set()
                await asyncio.Event().wait()
            finally:
                closed.set()

        request = GenerationRequest(prompt="a", stream=stream)
        work = respond(request, "m", events(), exchange.receive, exchange.send)
        answering = asyncio.create_task(work)
        await began.wait()
        assert not closed.is_set()
        exchange.leave()
        await answering
        assert closed.is_set()
        assert not exchange.complete

    run(main())


def likelihood(text: str, logprob: float, *top: str) -> TokenLikelihood:
    others = tuple(Spelling(one, one.encode(), -9.0) for one in top)
    return TokenLikelihood(Spelling(text, text.encode(), logprob), others)


LIKELY: list[Event] = [
    likelihood("é", -0.5, "é", "e"),
    TextDelta("é"),
    likelihood("a", -1.0, "b"),
    likelihood("b", -2.0, "c"),
    TextDelta("ab"),
    END,
]
TOLD = [
    {
        "token": "é",
        "logprob": -0.5,
        "bytes": [195, 169],
        "top_logprobs": [
            {"token": "é", "logprob": -9.0, "bytes": [195, 169]},
            {"token": "e", "logprob": -9.0, "bytes": [101]},
        ],
    },
    {
        "token": "a",
        "logprob": -1.0,
        "bytes": [97],
        "top_logprobs": [{"token": "b", "logprob": -9.0, "bytes": [98]}],
    },
    {
        "token": "b",
        "logprob": -2.0,
        "bytes": [98],
        "top_logprobs": [{"token": "c", "logprob": -9.0, "bytes": [99]}],
    },
]


def test_likelihoods_of_a_chat_stand_beside_its_message() -> None:
    (choice,) = whole(CHAT, *LIKELY)["choices"]
    assert choice["logprobs"] == {"content": TOLD, "refusal": None}
    assert choice["message"]["content"] == "éab"


def test_streamed_likelihoods_come_with_their_text() -> None:
    chunks = [chunk["choices"][0] for chunk in streamed(CHAT, *LIKELY)]
    told = [(c["delta"].get("content"), c.get("logprobs")) for c in chunks[1:3]]
    assert told == [
        ("é", {"content": TOLD[:1], "refusal": None}),
        ("ab", {"content": TOLD[1:], "refusal": None}),
    ]


def test_likelihoods_of_a_text_are_columns_with_places_in_it() -> None:
    (choice,) = whole(TEXT, *LIKELY)["choices"]
    assert choice["logprobs"] == {
        "tokens": ["é", "a", "b"],
        "token_logprobs": [-0.5, -1.0, -2.0],
        "top_logprobs": [{"é": -9.0, "e": -9.0}, {"b": -9.0}, {"c": -9.0}],
        "text_offset": [0, 1, 2],
    }
    offsets = [
        chunk["choices"][0]["logprobs"]["text_offset"] for chunk in streamed(TEXT, *LIKELY)[:2]
    ]
    assert offsets == [[0], [1, 2]]


def choices(*told: tuple[int, Event]) -> list[Any]:
    return [Choice(index, event) for index, event in told]


TWO = choices(
    (1, TextDelta("B")),
    (0, TextDelta("A")),
    (1, Finished("length", Usage(3, 1))),
    (0, Finished("stop", Usage(3, 4))),
)


def test_several_answers_are_choices_and_the_prompt_counts_once() -> None:
    body = whole(replace(CHAT, n=2), *TWO)
    told = [(c["index"], c["message"]["content"], c["finish_reason"]) for c in body["choices"]]
    assert told == [(0, "A", "stop"), (1, "B", "length")]
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (3, 5)


def test_streamed_choices_are_mixed_and_their_usage_comes_last() -> None:
    chunks = streamed(replace(CHAT, n=2), *TWO, usage=True)
    told = [(c["choices"][0]["index"], c["choices"][0]["delta"]) for c in chunks[:-1]]
    role = {"role": "assistant", "content": ""}
    assert told[:2] == [(0, role), (1, role)]
    assert told[2:] == [(1, {"content": "B"}), (0, {"content": "A"}), (1, {}), (0, {})]
    assert chunks[-1]["usage"]["completion_tokens"] == 5


def test_a_choice_that_never_ends_is_no_answer() -> None:
    async def main() -> None:
        exchange = Exchange()
        request = replace(CHAT, n=2)
        with pytest.raises(EngineProtocolError):
            await respond(request, "m", telling(TWO[:3]), exchange.receive, exchange.send)
        assert not exchange.complete

    run(main())
