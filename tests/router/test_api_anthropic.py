"""The Anthropic dialect behind the real HTTP server, in front of a fake engine."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from backends.wire.request import COUNT_PATH
from detect.types import Role
from router.api import fluency, silence
from router.api.fluency import COUNT_TOKENS, MESSAGES, Fluency
from router.api.sse import EventReader
from router.model_settings import ModelSettings
from router.settings import Settings
from tests.fake_engine.engine import SENTENCE
from tests.router.entries import absent, entry
from tests.router.pools import Engines
from tests.router.sites import Site, serving
from tests.slack import run
from tests.waiting import until

A = entry("a")
PICTURE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
}


@pytest.fixture
def fake(tmp_path: Path) -> Engines:
    return Engines(tmp_path)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "QUIET_SECONDS", 0.05)


def asking(model: str = "a", *, stream: bool = False, **how: Any) -> dict[str, Any]:
    """A request whose text tells the fake engine how to answer."""
    text = json.dumps({"fake": how}) if how else "Who are you?"
    messages = [{"role": "user", "content": text}]
    return {"model": model, "max_tokens": 9, "messages": messages, "stream": stream}


async def say(site: Site, body: Any, path: str = MESSAGES, **options: Any) -> httpx.Response:
    return await site.client.post(path, json=body, **options)


async def streamed(site: Site, body: Any) -> tuple[list[dict[str, Any]], bool]:
    """The events of a stream, and whether it was cut."""
    reader, events, cut = EventReader(), [], False
    async with site.client.stream("POST", MESSAGES, json=body) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        try:
            async for piece in answer.aiter_raw():
                events += [(event.name, json.loads(event.data)) for event in reader.add(piece)]
        except httpx.RemoteProtocolError:
            cut = True
    assert all(name == value["type"] for name, value in events)
    return [value for _, value in events], cut


def error(answer: httpx.Response, status: int, kind: str) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body.keys() == {"type", "error"}
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    assert body["error"].keys() == {"type", "message"}
    return str(body["error"]["message"])


def received(fake: Engines) -> dict[str, Any]:
    (record,) = fake.engine("a").records("request")
    return {**record, "body": json.loads(record["body"])}


def chunked(*chunks: Any, done: bool = True) -> list[str]:
    events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return [*events, *(["data: [DONE]\n\n"] if done else [])]


def delta(reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": reason}]}


# Answers


def test_a_message_is_answered_by_a_chat_completion(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "x", "x-api-key": "k"}
            answer = await say(site, asking(), headers=headers, params={"beta": "true"})
            assert answer.status_code == 200, answer.text
            value = answer.json()
            assert value["content"] == [{"type": "text", "text": SENTENCE}]
            assert (value["type"], value["model"]) == ("message", "a")
            assert site.leases == {"a": 0}

    run(main())
    asked = received(fake)
    assert (asked["method"], asked["path"]) == ("POST", "/v1/chat/completions")
    assert not [name for name, _ in asked["headers"] if name.startswith(("anthropic", "x-"))]
    assert asked["body"] == {
        "model": "a", "max_tokens": 9, "messages": asking()["messages"],
    }  # fmt: skip


def test_a_stream_is_translated_piece_by_piece(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            chunks = chunked(delta(content="a"), delta("stop", content="b"))
            body = asking(stream=True, chunks=chunks, gated=True)
            reader, text = EventReader(), []
            async with site.client.stream("POST", MESSAGES, json=body) as answer:
                async for piece in answer.aiter_raw():
                    for event in reader.add(piece):
                        value = json.loads(event.data)
                        if value["type"] == "content_block_delta":
                            text.append(value["delta"]["text"])
                            await site.release()
            assert text == ["a", "b"]

    run(main())


@pytest.mark.parametrize("size", [1, 7, 64])
def test_an_engines_stream_may_be_cut_anywhere(fake: Engines, size: int) -> None:
    whole = "".join(chunked(delta(content="né🥜"), delta("stop"))).encode()
    whole = whole.replace(rb"n\u00e9\ud83e\udd5c", "né🥜".encode())
    pieces = [whole[i : i + size].decode("latin-1") for i in range(0, len(whole), size)]

    async def main() -> None:
        async with serving(fake, A) as site:
            events, cut = await streamed(site, asking(stream=True, chunks=pieces))
            texts = [e["delta"]["text"] for e in events if e["type"] == "content_block_delta"]
            assert (texts, events[-1]["type"], cut) == (["né🥜"], "message_stop", False)

    run(main())


def test_what_the_user_has_set_for_a_model_is_asked_for_here_too(fake: Engines) -> None:
    settings = ModelSettings(id="a", temperature=0.3, min_p=0.1)

    async def main() -> None:
        async with serving(fake, replace(A, settings=settings)) as site:
            assert (await say(site, {**asking(), "temperature": 0})).status_code == 200

    run(main())
    asked = received(fake)["body"]
    assert (asked["temperature"], asked["min_p"]) == (0, 0.1)


def test_large_prompts_and_many_tools_pass_whole(fake: Engines) -> None:
    """Coding agents send hundreds of kilobytes with every request."""
    schema = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(200)}}
    tools = [
        {"name": f"t{i}", "description": "d" * 5000, "input_schema": schema} for i in range(60)
    ]
    words = "é🥜 word " * 120_000

    async def main() -> None:
        async with serving(fake, A) as site:
            body = {**asking(), "system": words, "tools": tools}
            assert (await say(site, body)).status_code == 200

    run(main())
    asked = received(fake)["body"]
    assert asked["messages"][0]["content"] == words
    assert [tool["function"]["name"] for tool in asked["tools"]] == [f"t{i}" for i in range(60)]
    assert asked["tools"][59]["function"]["parameters"] == schema


def test_the_length_of_a_prompt_is_asked_of_the_engine(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            body = asking(chunks=['{"object": "response.input_tokens", "input_tokens": 21}'])
            del body["max_tokens"]
            answer = await say(site, body, COUNT_TOKENS)
            assert (answer.status_code, answer.json()) == (200, {"input_tokens": 21})

    run(main())
    assert received(fake)["path"] == COUNT_PATH


def test_an_engine_that_cannot_count_is_a_501(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            answer = await say(site, asking(status=404, chunks=["{}"]), COUNT_TOKENS)
            assert "cannot do this" in error(answer, 501, "api_error")

    run(main())


# Other ways than translation


def test_bytes_go_through_where_the_engine_speaks_the_dialect(
    fake: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fluency, "FLUENCY", {(MESSAGES, "fake"): Fluency.NATIVE})

    async def main() -> None:
        async with serving(fake, A) as site:
            for stream in (False, True):
                answer = await say(site, asking(stream=stream, chunks=["what", "ever"]))
                assert (answer.status_code, answer.text) == (200, "whatever")

    run(main())
    first, second = fake.engine("a").records("request")
    assert first["path"] == second["path"] == MESSAGES
    assert json.loads(first["body"])["max_tokens"] == 9


def test_a_stream_that_has_begun_with_a_ping_is_translated_to_its_end(
    fake: Engines, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    monkeypatch.setattr(fluency, "FLUENCY", {(MESSAGES, "fake"): Fluency.NATIVE})
    fake.engine("a").behave(start_seconds=0.3)

    async def main() -> None:
        async with serving(fake, A) as site:
            chunks = chunked(delta("stop", content="a"))
            events, cut = await streamed(site, asking(stream=True, chunks=chunks))
            assert [event["type"] for event in events].count("message_start") == 1
            assert (events[-1]["type"], cut) == ("message_stop", False)

    run(main())


def test_what_an_engine_does_not_do_is_a_501_that_names_it(
    fake: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fluency, "FLUENCY", {(MESSAGES, "fake"): Fluency.NONE})

    async def main() -> None:
        async with serving(fake, A) as site:
            answer = await say(site, asking(stream=True))
            assert "fake, which runs a," in error(answer, 501, "api_error")

    run(main())


# Keep-alive


def test_pings_keep_a_stream_alive_while_the_model_loads_and_reads(
    fake: Engines, impatient: None
) -> None:
    fake.engine("a").behave(start_seconds=0.3)

    async def main() -> None:
        async with serving(fake, A) as site:
            chunks = chunked(delta("stop", content="a"))
            events, cut = await streamed(site, asking(stream=True, chunks=chunks))
            kinds = [event["type"] for event in events]
            assert kinds[:2] == ["message_start", "ping"]
            assert kinds.count("message_start") == 1
            assert kinds[-1] == "message_stop"
            assert not cut

    run(main())


def test_a_failure_after_a_ping_is_an_event_and_a_cut(fake: Engines, impatient: None) -> None:
    fake.engine("a").behave(start_seconds=0.3, exit_at_start=1)

    async def main() -> None:
        async with serving(fake, A) as site:
            events, cut = await streamed(site, asking(stream=True))
            assert events[-1]["error"]["type"] == "api_error"
            assert "could not be loaded" in events[-1]["error"]["message"]
            assert cut

    run(main())


# Errors


def test_an_unknown_model_is_not_found_and_near_ones_are_named(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, entry("parrot"), entry("bad", absent("fake"))) as site:
            told = error(await say(site, asking("parot")), 404, "not_found_error")
            assert "Did you mean 'parrot'?" in told
            error(await say(site, asking("bad")), 503, "overloaded_error")

    run(main())


@pytest.mark.parametrize("path", [MESSAGES, COUNT_TOKENS])
def test_a_wrong_request_reaches_no_engine(fake: Engines, path: str) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            answer = await say(site, {**asking(), "messages": []}, path)
            told = error(answer, 400, "invalid_request_error")
            assert told == "messages: must have at least one message."
            deep = {**asking(), "tools": [{"name": "a", "input_schema": {}}]}
            text = json.dumps(deep).replace('"input_schema": {}', f'"input_schema": {"[" * 99999}')
            headers = {"content-type": "application/json"}
            answer = await site.client.post(path, content=text, headers=headers)
            assert "nested too deeply" in error(answer, 400, "invalid_request_error")
            answer = await site.client.post(
                path, content="{}", headers={"content-type": "text/xml"}
            )
            assert "Content-Type" in error(answer, 400, "invalid_request_error")
            assert fake.engine("a").pids() == []

    run(main())


def test_depth_that_is_read_can_be_written_or_is_refused(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            for depth in range(700, 1000, 7):
                body = asking()
                text = json.dumps(body)[:-1]
                schema = '{"a":' * depth + "1" + "}" * depth
                text += f', "tools": [{{"name": "a", "input_schema": {schema}}}]}}'
                headers = {"content-type": "application/json"}
                answer = await site.client.post(MESSAGES, content=text, headers=headers)
                assert answer.status_code in (200, 400), answer.text

    run(main())


@pytest.mark.parametrize("field", ["temperature", "tools", "messages"])
def test_numbers_without_a_word_in_json_are_refused(fake: Engines, field: str) -> None:
    call = {"type": "tool_use", "id": "c", "name": "n", "input": {"x": "BIG"}}
    values: dict[str, Any] = {
        "temperature": "BIG",
        "tools": [{"name": "a", "input_schema": {"x": "BIG"}}],
        "messages": [{"role": "assistant", "content": [call]}, *asking()["messages"]],
    }

    async def main() -> None:
        async with serving(fake, A) as site:
            text = json.dumps({**asking(), field: values[field]}).replace('"BIG"', "1e999")
            headers = {"content-type": "application/json"}
            answer = await site.client.post(MESSAGES, content=text, headers=headers)
            error(answer, 400, "invalid_request_error")
            assert fake.engine("a").pids() == []

    run(main())


def test_pictures_need_a_model_that_sees(fake: Engines) -> None:
    seeing = entry("eye", role=Role.VISION)
    messages = [{"role": "user", "content": [PICTURE]}]

    async def main() -> None:
        async with serving(fake, A, seeing) as site:
            blind = await say(site, {**asking(), "messages": messages})
            told = error(blind, 400, "invalid_request_error")
            assert told.startswith("messages.0.content.0: a reads text only")
            assert fake.engine("a").pids() == []
            sees = await say(site, {**asking("eye"), "messages": messages})
            assert sees.status_code == 200

    run(main())


def test_errors_of_the_gate_and_of_paths_have_the_same_shape(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A, settings=Settings(api_key="secret")) as site:
            error(await say(site, asking()), 401, "authentication_error")
            for headers in ({"x-api-key": "secret"}, {"authorization": "Bearer secret"}):
                assert (await say(site, asking(), headers=headers)).status_code == 200
            key = {"x-api-key": "secret"}
            error(await site.client.get(MESSAGES, headers=key), 405, "invalid_request_error")
            answer = await site.client.get(f"{MESSAGES}/batches", headers=key)
            error(answer, 404, "not_found_error")
            answer = await say(site, asking(), headers={**key, "origin": "https://evil.example"})
            error(answer, 403, "permission_error")
        async with serving(fake, A, settings=Settings(max_body=10)) as site:
            error(await say(site, asking()), 413, "request_too_large")

    run(main())


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_engine_refuses_is_told_in_its_words(fake: Engines, stream: bool) -> None:
    refused = json.dumps({"error": {"message": "Too long.", "type": "x", "code": 400}})

    async def main() -> None:
        async with serving(fake, A) as site:
            answer = await say(site, asking(stream=stream, status=400, chunks=[refused]))
            assert error(answer, 400, "invalid_request_error") == "Too long."
            answer = await say(site, asking(stream=stream, status=500, chunks=["oops"]))
            assert error(answer, 500, "api_error") == "The engine failed."

    run(main())


@pytest.mark.parametrize("answer", ["[]", "{", "[" * 100_000])
def test_an_answer_that_is_none_is_a_502(fake: Engines, answer: str) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            error(await say(site, asking(chunks=[answer])), 502, "api_error")

    run(main())


BROKEN: list[list[str]] = [
    chunked(delta(content="a"), done=False),
    chunked(delta(content="a")),
    [*chunked(delta(content="a"), done=False), "data: {\n\n", *chunked(delta("stop"))],
    chunked(delta(content="a"), {"error": {"message": "Full.", "code": 500}}),
]


@pytest.mark.parametrize("chunks", BROKEN, ids=["no end", "no reason", "no JSON", "an error"])
def test_a_stream_that_breaks_off_ends_with_an_error_event_and_a_cut(
    fake: Engines, chunks: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            events, cut = await streamed(site, asking(stream=True, chunks=chunks))
            assert [event["type"] for event in events] == [
                "message_start", "content_block_start", "content_block_delta", "error"
            ]  # fmt: skip
            assert cut
            assert site.leases == {"a": 0}

    run(main())
    assert "Traceback" not in caplog.text


def test_an_engine_whose_stream_makes_no_sense_is_stopped(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            body = asking(stream=True, chunks=["data: {\n\n", "data: {}\n\n"], gated=True)
            answer = await say(site, body)
            error(answer, 502, "api_error")
            await until(lambda: fake.engine("a").records("cancelled"))
            assert site.leases == {"a": 0}

    run(main())


def test_an_engine_that_dies_in_a_stream_is_told_once(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            chunks = chunked(delta(content="a"), done=False)
            events, cut = await streamed(site, asking(stream=True, chunks=chunks, end="die"))
            assert [event["type"] for event in events].count("error") == 1
            assert "ended while it answered" in events[-1]["error"]["message"]
            assert cut

    run(main())


# Clients that leave


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_the_engines_work(
    fake: Engines, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            how = asking(stream=stream, silent=True)
            task = asyncio.create_task(say(site, how))
            await until(lambda: fake.engine("a").records("request"))
            task.cancel()
            await until(lambda: site.leases == {"a": 0})
            await until(lambda: fake.engine("a").records("cancelled"))
            assert not site.pool.tally.errors

    run(main())
    assert "broke off" not in caplog.text
