"""The proxy behind the real server, before a fake engine that is a real process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from backends.base import ENDLESS, Patience, Receive, Scope, Send
from backends.child import Child
from backends.errors import (
    EngineDiedError,
    EngineError,
    EngineGoneError,
    EngineProtocolError,
    EngineSilentError,
)
from backends.proxy import Endpoint, Proxy, TcpEndpoint, UnixEndpoint
from tests.fake_engine import FakeEngine, asking, release
from tests.fake_engine.engine import SENTENCE
from tests.serving import client, serving
from tests.slack import run, within
from tests.waiting import until

CHAT = "/v1/chat/completions"
EVERY_BYTE = bytes(range(256)).decode("latin-1")


class Way:
    """The way from a client through the proxy to one engine, and what happened on it."""

    def __init__(self, engine: FakeEngine, endpoint: Endpoint, proxy: Proxy) -> None:
        self.engine = engine
        self.endpoint = endpoint
        self.proxy = proxy
        self.errors: list[EngineError] = []
        self.port = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.proxy(scope, receive, send)
        except EngineError as error:
            self.errors.append(error)
            raise

    async def ask(self, *, stream: bool = False, **how: Any) -> httpx.Response:
        async with client(self.port) as asker:
            return await asker.post(CHAT, json=asking(stream=stream, **how))

    @contextlib.asynccontextmanager
    async def stream(self, **how: Any) -> AsyncIterator[AsyncIterator[bytes]]:
        """The pieces of an answer as they arrive."""
        async with (
            client(self.port) as asker,
            asker.stream("POST", CHAT, json=asking(stream=True, **how)) as answer,
        ):
            yield aiter(answer.aiter_raw())

    async def cut(self, *, stream: bool = True, **how: Any) -> bytes:
        """What arrives of an answer that does not end as it should."""
        pieces: list[bytes] = []
        async with (
            client(self.port) as asker,
            asker.stream("POST", CHAT, json=asking(stream=stream, **how)) as answer,
        ):
            with pytest.raises(httpx.RemoteProtocolError):
                await collect(answer, pieces)
        return b"".join(pieces)

    def request(self) -> dict[str, Any]:
        (record,) = self.engine.records("request")
        return record


async def collect(answer: httpx.Response, pieces: list[bytes]) -> None:
    async for piece in answer.aiter_raw():
        pieces.append(piece)


Scenario = Callable[[Way], Awaitable[None]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def through_proxy(scenario: Scenario, *, unix: bool = True, patience: Patience = ENDLESS) -> None:
    async def main(folder: Path) -> None:
        engine = FakeEngine(folder)
        endpoint = UnixEndpoint(folder / "s") if unix else TcpEndpoint(free_port())
        child = await Child.spawn(engine.command_at(endpoint))
        await until(lambda: engine.records("listening"))
        proxy = Proxy(endpoint, engine="fake", model="a", patience=patience)
        way = Way(engine, endpoint, proxy)
        try:
            async with serving(way) as way.port:
                await scenario(way)
        finally:
            await proxy.aclose()
            await child.stop(0)

    with tempfile.TemporaryDirectory() as folder:
        run(main(Path(folder)))


# Bytes


@pytest.mark.parametrize("unix", [True, False])
def test_an_answer_passes(unix: bool) -> None:
    async def scenario(way: Way) -> None:
        answer = await way.ask()
        assert answer.status_code == 200
        assert answer.json()["choices"][0]["message"]["content"] == SENTENCE

    through_proxy(scenario, unix=unix)


def test_a_requests_bytes_pass_unchanged() -> None:
    body = '{ "x":1e3,\r\n\t"é": "\\u00e9 \\ud83e\\udd9c", "x":2,"stream" :false}   '.encode()

    async def scenario(way: Way) -> None:
        async with client(way.port) as asker:
            await asker.post("/v1/a%2Fb/..%2f?q=%20&r=/x", content=body)
        request = way.request()
        assert request["body"].encode("latin-1") == body
        assert (request["method"], request["path"]) == ("POST", "/v1/a%2Fb/..%2f?q=%20&r=/x")

    through_proxy(scenario)


@pytest.mark.parametrize("length", [True, False])
def test_an_answers_bytes_pass_unchanged(length: bool) -> None:
    async def scenario(way: Way) -> None:
        chunks = [EVERY_BYTE, "\r\n0\r\n\r\n", EVERY_BYTE * 2000]
        answer = await way.ask(chunks=chunks, length=length, headers=[["x-kind", "odd"]])
        assert answer.content == "".join(chunks).encode("latin-1")
        assert answer.headers["x-kind"] == "odd"

    through_proxy(scenario)


def test_a_large_request_passes_whole() -> None:
    async def scenario(way: Way) -> None:
        padded = {**asking(), "padding": "x" * 5_000_000}
        async with client(way.port) as asker:
            assert (await asker.post(CHAT, json=padded)).status_code == 200
        assert json.loads(way.request()["body"]) == padded

    through_proxy(scenario)


def test_what_an_engine_compressed_stays_compressed() -> None:
    async def scenario(way: Way) -> None:
        async with way.stream(chunks=["\x1f\x8b"], headers=[["content-encoding", "gzip"]]) as got:
            assert await anext(got) == b"\x1f\x8b"

    through_proxy(scenario)


@pytest.mark.parametrize("unix", [True, False])
def test_each_piece_arrives_before_the_next_is_sent(unix: bool) -> None:
    pieces = ["data: caf", "\xc3", "\xa9\n", "\n", "data: [DONE]\n\n"]

    async def scenario(way: Way) -> None:
        async with way.stream(chunks=pieces, gated=True) as got:
            for index, piece in enumerate(pieces):
                if index:
                    await release(way.endpoint)
                assert await anext(got) == piece.encode("latin-1")
                assert len(way.engine.records("sent")) <= index + 1

    through_proxy(scenario, unix=unix)


def test_the_status_is_the_engines() -> None:
    async def scenario(way: Way) -> None:
        for status in (201, 400, 404, 429, 500, 503):
            answer = await way.ask(status=status, chunks=['{"error": {}}'])
            assert (answer.status_code, answer.content) == (status, b'{"error": {}}')

    through_proxy(scenario)


# Headers


def test_the_engine_learns_nothing_that_is_between_the_client_and_us() -> None:
    secrets = {
        "Authorization": "Bearer canary", "X-Api-Key": "canary", "Cookie": "canary",
        "Origin": "http://canary", "Referer": "http://canary/", "Forwarded": "for=canary",
        "X-Forwarded-For": "canary", "X-Forwarded-Host": "canary", "X-Router-Debug": "canary",
        "Host": "canary", "Connection": "keep-alive, x-hop", "X-Hop": "canary", "TE": "canary",
        "Keep-Alive": "canary", "Proxy-Authorization": "canary",
    }  # fmt: skip

    async def scenario(way: Way) -> None:
        async with client(way.port) as asker:
            await asker.post(CHAT, json=asking(), headers={**secrets, "X-Kept": "a"})
        headers = dict(way.request()["headers"])
        assert not [name for name, value in headers.items() if "canary" in value]
        assert headers["x-kept"] == "a"
        assert headers["host"] == "localhost"

    through_proxy(scenario)


def test_a_chunked_request_reaches_the_engine_with_its_length() -> None:
    body = json.dumps(asking()).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for byte in body:
            yield bytes([byte])

    async def scenario(way: Way) -> None:
        async with client(way.port) as asker:
            assert (await asker.post(CHAT, content=pieces())).status_code == 200
        names = [name.lower() for name, _ in way.request()["headers"]]
        assert names.count("content-length") == 1
        assert "transfer-encoding" not in names

    through_proxy(scenario)


def test_the_client_learns_nothing_that_is_between_the_engine_and_us() -> None:
    headers = [
        ["Access-Control-Allow-Origin", "*"], ["Access-Control-Allow-Headers", "*"],
        ["Server", "engine"], ["Set-Cookie", "a=b"], ["Connection", "x-hop"], ["X-Hop", "a"],
        ["Keep-Alive", "timeout=1"], ["X-Kept", "a"], ["X-Kept", "b"],
    ]  # fmt: skip

    async def scenario(way: Way) -> None:
        answer = await way.ask(headers=headers)
        assert answer.headers.get_list("x-kept") == ["a", "b"]
        kept = {name.lower() for name, _ in headers} & set(answer.headers)
        assert kept <= {"x-kept", "server"}
        assert answer.headers.get("server") != "engine"

    through_proxy(scenario)


# Clients that leave


async def cancelled(way: Way) -> None:
    async with asyncio.timeout(within(1)):
        await until(lambda: way.engine.records("cancelled"))


def test_a_client_that_leaves_a_stream_ends_it() -> None:
    async def scenario(way: Way) -> None:
        async with way.stream(chunks=["data: 1\n\n", "data: 2\n\n"], gated=True) as got:
            await anext(got)
            assert not way.engine.records("cancelled")
        await cancelled(way)

    through_proxy(scenario)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_before_the_first_byte_ends_the_request(stream: bool) -> None:
    async def scenario(way: Way) -> None:
        asked = asyncio.create_task(way.ask(stream=stream, silent=True))
        await until(lambda: way.engine.records("request"))
        assert not way.engine.records("cancelled")
        asked.cancel()
        await cancelled(way)
        assert not way.errors

    through_proxy(scenario)


def test_a_request_that_is_cancelled_from_above_ends_the_engines() -> None:
    async def scenario(way: Way) -> None:
        async def receive() -> dict[str, Any]:
            return messages.pop() if messages else await asyncio.Event().wait() and {}

        async def send(message: Any) -> None:
            raise AssertionError(message)

        messages = [{"type": "http.request", "body": json.dumps(asking(silent=True)).encode()}]
        scope = {"method": "POST", "raw_path": b"/", "query_string": b"", "headers": []}
        asked = asyncio.create_task(way(scope, receive, send))
        await until(lambda: way.engine.records("request"))
        asked.cancel()
        await cancelled(way)
        with pytest.raises(asyncio.CancelledError):
            await asked

    through_proxy(scenario)


# Engines that fail


@pytest.mark.parametrize("raw", ["", "HTTP/1.1 200 OK\r\ncontent-ty"])
def test_a_connection_without_an_answer_is_a_dead_engine(raw: str) -> None:
    async def scenario(way: Way) -> None:
        assert (await way.ask(raw=raw)).status_code == 500
        (error,) = way.errors
        assert type(error) is EngineDiedError
        assert (error.engine, error.model) == ("fake", "a")

    through_proxy(scenario)


def test_an_engine_that_dies_before_the_first_byte() -> None:
    async def scenario(way: Way) -> None:
        asked = asyncio.create_task(way.ask(silent=True))
        await until(lambda: way.engine.records("request"))
        os.kill(way.engine.pids()[0], signal.SIGKILL)
        assert (await asked).status_code == 500
        assert [type(error) for error in way.errors] == [EngineDiedError]

    through_proxy(scenario)


@pytest.mark.parametrize("unix", [True, False])
def test_nobody_at_the_endpoint_is_a_dead_engine(unix: bool) -> None:
    async def scenario(way: Way) -> None:
        os.kill(way.engine.pids()[0], signal.SIGKILL)
        await asyncio.sleep(0.05)
        assert (await way.ask()).status_code == 500
        assert [type(error) for error in way.errors] == [EngineGoneError]

    through_proxy(scenario, unix=unix)


@pytest.mark.parametrize(
    "raw",
    [
        "SSH-2.0-OpenSSH_9.9\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbroken header\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: " + "y" * 1_000_000 + "\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    ],
)
def test_an_answer_that_is_not_http_is_refused(raw: str) -> None:
    async def scenario(way: Way) -> None:
        assert (await way.ask(raw=raw)).status_code == 500
        assert [type(error) for error in way.errors] == [EngineProtocolError]

    through_proxy(scenario)


def test_a_redirect_is_neither_followed_nor_passed_on() -> None:
    redirects = [301, 302, 304, 307, 308]

    async def scenario(way: Way) -> None:
        for status in redirects:
            answer = await way.ask(status=status, headers=[["location", "http://localhost/"]])
            assert answer.status_code == 500
            assert "location" not in answer.headers
        assert [type(error) for error in way.errors] == [EngineProtocolError] * len(redirects)
        assert len(way.engine.records("request")) == len(redirects)

    through_proxy(scenario)


@pytest.mark.parametrize("end", ["close", "reset", "die", "malformed"])
def test_a_stream_that_is_cut_ends_with_an_error_event_and_a_cut(end: str) -> None:
    async def scenario(way: Way) -> None:
        got = await way.cut(chunks=["data: 1\n\n"], end=end)
        first, last, nothing = got.split(b"\n\n")
        assert (first, nothing) == (b"data: 1", b"")
        error = json.loads(last.removeprefix(b"data: "))["error"]
        assert (error["code"], error["type"]) == ("engine.died", "server_error")
        assert [type(error) for error in way.errors] == [EngineDiedError]

    through_proxy(scenario)


@pytest.mark.parametrize("pieces", [["data: {"], ["data: 1\n", "data: 2"], ["data: 1\n"]])
def test_an_event_that_is_cut_does_not_swallow_the_error_event(pieces: list[str]) -> None:
    async def scenario(way: Way) -> None:
        got = await way.cut(chunks=pieces, end="close")
        assert got.startswith("".join(pieces).encode() + b"\n\ndata: {")
        assert json.loads(got.rpartition(b"data: ")[2])["error"]

    through_proxy(scenario)


@pytest.mark.parametrize("pieces", [["data: 1\n\n"], ["data: 1\n", "\n"], ["data: 1", "\n", "\n"]])
def test_after_a_whole_event_nothing_stands_before_the_error_event(pieces: list[str]) -> None:
    async def scenario(way: Way) -> None:
        got = await way.cut(chunks=pieces, end="close")
        assert got.startswith(b'data: 1\n\ndata: {"error"')

    through_proxy(scenario)


@pytest.mark.parametrize("length", [True, False])
def test_json_that_is_cut_gets_nothing_appended(length: bool) -> None:
    async def scenario(way: Way) -> None:
        how: dict[str, Any] = {"chunks": ['{"a":'], "end": "close"}
        if length:
            how["raw"] = 'HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"a":'
        assert await way.cut(stream=False, **how) == b'{"a":'
        assert [type(error) for error in way.errors] == [EngineDiedError]

    through_proxy(scenario)


def test_an_engine_that_begins_no_answer_in_time_is_given_up() -> None:
    async def scenario(way: Way) -> None:
        assert (await way.ask(silent=True)).status_code == 500
        assert [type(error) for error in way.errors] == [EngineSilentError]
        assert "said nothing for 0.2 s" in str(way.errors[0])
        await cancelled(way)

    through_proxy(scenario, patience=Patience(first_seconds=0.2))


def test_a_stream_that_falls_silent_is_cut_in_time() -> None:
    async def scenario(way: Way) -> None:
        got = await way.cut(chunks=["data: 1\n\n"], end="hang")
        assert got.startswith(b'data: 1\n\ndata: {"error"')
        assert b"engine.silent" in got
        await cancelled(way)

    through_proxy(scenario, patience=Patience(next_seconds=0.2))


def test_the_limit_of_silence_starts_anew_with_each_piece() -> None:
    async def scenario(way: Way) -> None:
        async with way.stream(chunks=["a", "b", "c", "d"], gated=True) as got:
            assert await anext(got) == b"a"
            for expected in (b"b", b"c", b"d"):
                await asyncio.sleep(0.5)
                await release(way.endpoint)
                assert await anext(got) == expected
        assert not way.errors

    through_proxy(scenario, patience=Patience(first_seconds=60, next_seconds=1.2))


def test_one_stream_does_not_wait_for_another() -> None:
    async def scenario(way: Way) -> None:
        async with way.stream(chunks=["a", "b"], gated=True) as got:
            await anext(got)
            answers = await asyncio.gather(*(way.ask() for _ in range(20)))
            assert {answer.status_code for answer in answers} == {200}

    through_proxy(scenario)


# The rest


def test_a_question_of_our_own_is_answered_with_status_and_body() -> None:
    async def scenario(way: Way) -> None:
        assert await way.proxy.fetch("GET", "/health") == (200, b"{}")
        status, body = await way.proxy.fetch("POST", CHAT, b"{}")
        assert (status, json.loads(body)["object"]) == (200, "chat.completion")

    through_proxy(scenario)


def test_closing_removes_the_socket() -> None:
    async def scenario(way: Way) -> None:
        assert isinstance(way.endpoint, UnixEndpoint)
        assert way.endpoint.socket.exists()
        await way.proxy.aclose()
        assert not way.endpoint.socket.exists()
        await way.proxy.aclose()

    through_proxy(scenario)


def test_a_proxy_variable_does_not_capture_the_way_to_an_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def scenario(way: Way) -> None:
        assert (await way.ask()).status_code == 200

    through_proxy(scenario, unix=False)
