from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from backends.base import Footprint, InstanceOptions
from detect.types import ModelInfo, Role
from router.settings import Settings
from tests.fake_engine import asking
from tests.processes import none_alive
from tests.router.entries import absent, entry, no
from tests.router.pools import Engines
from tests.router.sites import serving
from tests.slack import run, soon
from tests.waiting import until

A = entry("a")
MODELS = (A, entry("org/B", aliases=("short",), context_length=4096))
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


@pytest.fixture
def fake(tmp_path: Path) -> Engines:
    return Engines(tmp_path)


def error(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error object of an answer that is one in OpenAI's shape, and nothing more."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text
    body = answer.json()
    assert list(body) == ["error"]
    found: dict[str, Any] = body["error"]
    assert {"message", "type", "param", "code"} <= found.keys()
    assert found["code"] == code
    assert found["type"].endswith("_error")
    assert isinstance(found["message"], str)
    assert found["message"]
    return found


# Models


def test_the_list_of_models_has_the_servable_ones(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, *MODELS, entry("bad", no("fake"))) as site:
            answer = await site.client.get("/v1/models")
            assert answer.status_code == 200
            listed = answer.json()
            assert listed["object"] == "list"
            assert [model["id"] for model in listed["data"]] == ["a", "org/B"]
            second = listed["data"][1]
            assert isinstance(second.pop("created"), int)
            assert second == {
                "id": "org/B", "object": "model", "owned_by": "local", "engine": "fake",
                "format": "gguf", "quantization": None, "context_length": 4096,
                "architecture": None, "parameters": None, "size_bytes": 10,
                "role": "generative", "aliases": ["short"],
            }  # fmt: skip

    run(main())


def test_a_default_model_answers_for_models_that_are_not_there(fake: Engines) -> None:
    async def main() -> None:
        settings = Settings(default_model="short")
        async with serving(fake, *MODELS, settings=settings) as site:
            assert (await site.chat(asking("gpt-4o"))).status_code == 200
            assert set(site.leases) == {"org/B"}
            assert (await site.chat(asking("a"))).status_code == 200
            assert set(site.leases) == {"org/B", "a"}
            error(await site.client.get("/v1/models/gpt-4o"), 404, "model_not_found")
            error(await site.client.get("/router/models/gpt-4o"), 404, "model_not_found")

    run(main())


def test_one_model_is_shown_by_any_of_its_names(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, *MODELS) as site:
            for name in ("org/B", "org%2FB", "short", "b"):
                answer = await site.client.get(f"/v1/models/{name}")
                assert answer.json()["id"] == "org/B"
            error(await site.client.get("/v1/models/none"), 404, "model_not_found")

    run(main())


def test_what_cannot_be_served_is_shown_with_the_reasons_elsewhere(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A, entry("bad", no("fake"))) as site:
            models = (await site.client.get("/router/models")).json()["models"]
            assert [(m["id"], m["engine"]) for m in models] == [("a", "fake"), ("bad", None)]
            bad = (await site.client.get("/router/models/bad")).json()
            assert bad["verdicts"][0]["code"] == "unsupported.arch"
            error(await site.client.get("/v1/models/bad"), 422, "model_not_servable")

    run(main())


# Answers


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_request_and_answer_pass_byte_for_byte(fake: Engines, path: str) -> None:
    chunks = ['{"odd" :\t1,', "\xff\xfe not UTF-8 ", "\r\n\r\n}"]
    how = {"chunks": chunks, "status": 418, "headers": [["x-own", "kept"]], "length": True}
    body = (
        '{ "messages":[{"role":"user"}], "prompt" : "\\u00e9 é",\n'
        f'"model":"A","unknown":1e3,"fake":{json.dumps(how)} }}'
    ).encode()

    async def main() -> None:
        async with serving(fake, A) as site:
            answer = await site.client.post(
                path + "?x=%20y", content=body, headers={"content-type": "application/json"}
            )
            assert answer.status_code == 418
            assert answer.headers["x-own"] == "kept"
            assert answer.content == "".join(chunks).encode("latin-1")

    run(main())
    (request,) = fake.engine("a").records("request")
    assert request["body"].encode("latin-1") == body
    assert (request["method"], request["path"]) == ("POST", path + "?x=%20y")


def test_a_stream_passes_byte_for_byte_and_piece_by_piece(fake: Engines) -> None:
    pieces = ['data: {"x":"\xc3', '\xa9"}\n', "\n: a comment\n\ndata: [DONE]\n\n"]

    async def main() -> None:
        async with serving(fake, A) as site:
            how = asking(stream=True, chunks=pieces, gated=True)
            async with site.stream(how) as answer:
                assert answer.headers["content-type"] == "text/event-stream"
                came = answer.aiter_raw()
                for index, piece in enumerate(pieces):
                    assert await anext(came) == piece.encode("latin-1")
                    assert len(fake.engine("a").records("sent")) <= index + 1
                    await site.release()
                assert [rest async for rest in came] == []
            await until(lambda: site.leases == {"a": 0})

    run(main())


def test_the_whole_answer_of_a_default_request_is_the_engines(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            answer = await site.chat(asking())
            assert answer.status_code == 200
            assert answer.json()["choices"][0]["finish_reason"] == "stop"
            await until(lambda: site.leases == {"a": 0})

    run(main())


def test_a_body_that_declares_no_type_is_taken_as_json(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            content = json.dumps(asking()).encode()
            assert (await site.client.post(CHAT, content=content)).status_code == 200
            charset = {"content-type": "Application/JSON; charset=utf-8"}
            answer = await site.client.post(CHAT, content=content, headers=charset)
            assert answer.status_code == 200

    run(main())


# Requests that are refused before anything is loaded


def chat(**fields: Any) -> bytes:
    messages = [{"role": "user", "content": "Who are you?"}]
    return json.dumps({"model": "a", "messages": messages, **fields}).encode()


BAD_BODIES: list[tuple[bytes, str | None, str]] = [
    (b"", None, "not JSON"),
    (b"{", None, "at line 1, column 2"),
    (b"[]", None, "must be a JSON object"),
    (b'"a"', None, "must be a JSON object"),
    (b"null", None, "must be a JSON object"),
    (b"\xff\xfe", None, "not UTF-8"),
    (chat().decode().encode("utf-16"), None, "not UTF-8"),
    (b"\xef\xbb\xbf" + chat(), None, "not JSON"),
    (b'{"model": NaN}', None, "NaN is not a JSON value"),
    (b"[" * 100_000, None, "nested too deeply"),
    (b'{"model": "a", "model": "b"}', "model", "stands twice"),
    (b'{"messages": [{}]}', "model", "`model` is missing"),
    (chat(model=7), "model", "non-empty string"),
    (chat(model=""), "model", "non-empty string"),
    (chat(model=None), "model", "non-empty string"),
    (chat(stream="yes"), "stream", "true or false"),
    (chat(stream=1), "stream", "true or false"),
    (b'{"model": "a"}', "messages", "`messages` is missing"),
    (chat(messages=[]), "messages", "must not be empty"),
    (chat(messages="hello"), "messages", "a list of objects"),
    (chat(messages=["hello"]), "messages", "a list of objects"),
    (chat(messages=None), "messages", "a list of objects"),
]


def test_a_body_that_is_not_what_the_endpoint_takes_is_refused_and_named(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            for body, param, words in BAD_BODIES:
                answer = await site.client.post(
                    CHAT, content=body, headers={"content-type": "application/json"}
                )
                told = error(answer, 400, "invalid_request")
                assert (told["param"], told["type"]) == (param, "invalid_request_error"), body
                assert words in told["message"], body
            prompts: tuple[Any, ...] = (None, 7, {})
            for prompt in prompts:
                told = error(
                    await site.chat({"model": "a", "prompt": prompt}, TEXT), 400, "invalid_request"
                )
                assert told["param"] == "prompt"
            assert site.leases == {}

    run(main())


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "\xe9", ""])
def test_a_body_that_is_declared_as_something_else_is_refused(fake: Engines, kind: str) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            headers = {"content-type": kind.encode("latin-1")}
            answer = await site.client.post(CHAT, content=chat(), headers=headers)  # type: ignore[arg-type]
            assert "application/json" in error(answer, 400, "invalid_request")["message"]
            assert site.leases == {}

    run(main())


def test_a_body_that_is_too_large_is_refused_declared_or_not(fake: Engines) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b" " * 1024

    async def main() -> None:
        async with serving(fake, A, settings=Settings(max_body=1024)) as site:
            for content in (b" " * 1025, endless()):
                answer = await site.client.post(CHAT, content=content)
                told = error(answer, 413, "body_too_large")
                assert "larger than 1024 bytes; --max-body" in told["message"]
            assert (await site.client.post(CHAT, content=chat())).status_code == 200

    run(main())


@pytest.mark.parametrize(
    ("role", "words"),
    [
        (Role.EMBEDDING, "m is an embedding model and writes no text: the endpoint for it is "
         "/v1/embeddings."),
        (Role.RERANKER, "m is a reranker and writes no text: the endpoint for it is /v1/rerank."),
    ],
)  # fmt: skip
def test_a_model_that_writes_no_text_is_refused_before_it_is_loaded(
    fake: Engines, role: Role, words: str
) -> None:
    async def main() -> None:
        others = (entry("m", role=role), entry("bad", no("fake"), role=role))
        async with serving(fake, A, *others) as site:
            for body, path in (
                (asking("m"), CHAT),
                (asking("m", stream=True), CHAT),
                ({"model": "m", "prompt": "a"}, TEXT),
            ):
                told = error(await site.chat(body, path), 400, "invalid_request")
                assert told["message"].startswith(words)
                assert told["param"] == "model"
            error(await site.chat(asking("bad")), 400, "invalid_request")
            assert site.leases == {}
            assert (await site.chat(asking("a"))).status_code == 200

    run(main())


@pytest.mark.parametrize("role", [Role.GENERATIVE, Role.VISION, Role.UNKNOWN])
def test_a_model_that_may_write_text_is_asked(fake: Engines, role: Role) -> None:
    async def main() -> None:
        async with serving(fake, entry("m", role=role)) as site:
            assert (await site.chat(asking("m"))).status_code == 200

    run(main())


def test_unknown_and_unservable_models_are_refused_with_the_reason(fake: Engines) -> None:
    async def main() -> None:
        models = (A, entry("bad", no("fake", "knows no quux")), entry("gone", absent("fake")))
        async with serving(fake, *models) as site:
            told = error(await site.chat(asking("b")), 404, "model_not_found")
            assert told["param"] == "model"
            half = await site.client.post(CHAT, content=chat(model="\ud800"))
            error(half, 400, "invalid_request")
            told = error(await site.chat(asking("bad")), 422, "model_not_servable")
            assert "fake: knows no quux." in told["message"]
            assert told["verdicts"][0]["engine"] == "fake"
            error(await site.chat(asking("gone")), 503, "engine_not_installed")
            assert site.leases == {}

    run(main())


def test_a_model_that_never_fits_is_refused(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A, budget_bytes=9) as site:
            error(await site.chat(asking()), 422, "memory.too_big")

    run(main())


# Paths and methods


def test_an_unknown_path_is_answered_with_those_there_are(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            for path in ("/v1", "/v1/chat/completions/", "/v2/models", "/%00%ff/x"):
                told = error(await site.client.get(path), 404, "unknown_path")
                assert "/v1/chat/completions" in told["message"]
            assert len((await site.client.get("/" + "x" * 5000)).text) < 600

    run(main())


def test_a_wrong_method_is_answered_with_those_that_are_right(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            answer = await site.client.get(CHAT)
            told = error(answer, 405, "method_not_allowed")
            assert told["message"] == f"{CHAT} does not take GET."
            assert answer.headers["allow"] == "POST"
            answer = await site.client.post("/v1/models")
            error(answer, 405, "method_not_allowed")
            assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}

    run(main())


# Who may ask


def test_with_a_key_set_only_those_who_know_it_get_in(fake: Engines) -> None:
    wrong: list[dict[str, str]] = [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic right"},
        {"authorization": "right"},
        {"x-api-key": "righ"},
        {"x-api-key": ""},
    ]
    right = [
        {"authorization": "Bearer right"},
        {"authorization": "bearer right"},
        {"x-api-key": "right"},
    ]

    async def main() -> None:
        async with serving(fake, A, settings=Settings(api_key="right")) as site:
            for headers in wrong:
                for path in ("/v1/models", "/router/status", "/nowhere"):
                    answer = await site.client.get(path, headers=headers)
                    told = error(answer, 401, "invalid_api_key")
                    assert told["type"] == "authentication_error"
                    assert "right" not in answer.text
                error(await site.client.post(CHAT, headers=headers), 401, "invalid_api_key")
                assert (await site.client.get("/livez", headers=headers)).status_code == 200
            for headers in right:
                answer = await site.client.get("/v1/models", headers=headers)
                assert answer.status_code == 200
            answer = await site.client.post(CHAT, json=asking(), headers=right[0])
            assert answer.status_code == 200

    run(main())
    (request,) = fake.engine("a").records("request")
    assert "right" not in json.dumps(request["headers"])


REBOUND = [
    "example.com",
    "localhost.example.com",
    "127.0.0.1.example.com",
    "127.example.com:80",
    "0.0.0.0",
    "",
    "[",
    "]",
    "[zz]",
    "a[b]",
]


def test_a_name_that_is_not_this_machines_is_refused(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A, settings=Settings(allow_host=("Box.lan",))) as site:
            for host in REBOUND:
                for path in ("/v1/models", "/livez", "/nowhere"):
                    answer = await site.client.get(path, headers={"host": host})
                    told = error(answer, 403, "forbidden")
                    assert "--allow-host" in told["message"]
            for host in ("localhost", "LOCALHOST:1", "127.0.0.1:8642", "[::1]:8642", "box.LAN:1"):
                answer = await site.client.get("/v1/models", headers={"host": host})
                assert answer.status_code == 200, host

    run(main())


def test_a_page_from_elsewhere_is_refused(fake: Engines) -> None:
    allowed = "https://chat.example.com"
    foreign = [
        "https://evil.example.com",
        "https://chat.example.com.evil.com",
        "http://127.0.0.1.evil.com",
        "null",
        "http://[zz]",
    ]

    async def main() -> None:
        async with serving(fake, A, settings=Settings(allow_origin=(allowed,))) as site:
            for origin in foreign:
                answer = await site.client.post(
                    CHAT, content=chat(), headers={"origin": origin, "content-type": "text/plain"}
                )
                assert "--allow-origin" in error(answer, 403, "forbidden")["message"]
                assert "access-control-allow-origin" not in answer.headers
            for origin in (allowed, "http://localhost:3000", "http://[::1]:3000"):
                answer = await site.client.get("/v1/models", headers={"origin": origin})
                assert answer.status_code == 200, origin
            assert site.leases == {}

    run(main())


def test_an_allowed_page_may_ask_with_a_key_and_read_answers_and_errors(fake: Engines) -> None:
    page = "https://chat.example.com"
    settings = Settings(allow_origin=(page,), api_key="right")
    preflight = {
        "origin": page,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }

    async def main() -> None:
        async with serving(fake, A, settings=settings) as site:
            may = await site.client.options(CHAT, headers=preflight)
            assert may.status_code == 200
            assert may.headers["access-control-allow-origin"] == page
            stranger = {**preflight, "origin": "https://evil.example.com"}
            refused = await site.client.options(CHAT, headers=stranger)
            assert "access-control-allow-origin" not in refused.headers
            key = {"origin": page, "authorization": "Bearer right"}
            good = await site.client.post(CHAT, json=asking(), headers=key)
            unknown = await site.client.post(CHAT, json=asking("x"), headers=key)
            locked = await site.client.get("/v1/models", headers={"origin": page})
            statuses = [answer.status_code for answer in (good, unknown, locked)]
            assert statuses == [200, 404, 401]
            for answer in (good, unknown, locked):
                assert answer.headers["access-control-allow-origin"] == page

    run(main())


def test_on_an_open_address_the_key_decides_and_strange_hosts_do_no_harm(fake: Engines) -> None:
    async def main() -> None:
        settings = Settings(host="0.0.0.0", api_key="right")
        async with serving(fake, A, settings=settings) as site:
            for host in REBOUND:
                headers = {"host": host, "x-api-key": "right"}
                assert (await site.client.get("/v1/models", headers=headers)).status_code == 200
                error(await site.client.get("/nowhere", headers=headers), 404, "unknown_path")
                error(await site.client.get(CHAT, headers=headers), 405, "method_not_allowed")

    run(main())


# Health


def test_it_is_alive_and_ready_until_it_is_asked_to_end(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            assert (await site.client.get("/livez")).json() == {"status": "alive"}
            assert (await site.client.get("/readyz")).json() == {"status": "ready"}
            site.pool.close()
            assert (await site.client.get("/livez")).status_code == 200
            for answer in (await site.client.get("/readyz"), await site.chat(asking())):
                error(answer, 503, "shutting_down")
                assert int(answer.headers["retry-after"]) > 0

    run(main())


def test_the_status_shows_what_runs_and_what_waits(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, *MODELS, budget_bytes=10) as site:
            async with site.stream(asking(stream=True, gated=True)) as answer:
                waits = asyncio.create_task(site.chat(asking("org/B")))
                await until(lambda: site.pool.scheduler.queue)
                status = (await site.client.get("/router/status")).json()
                (instance,) = status["instances"]
                assert (status["budget_bytes"], status["reserved_bytes"]) == (10, 10)
                shown = {key: instance[key] for key in ("model", "engine", "state", "leases")}
                assert shown == {"model": "a", "engine": "fake", "state": "ready", "leases": 1}
                assert instance["pid"]
                (waiting,) = status["waiting"]
                assert waiting.pop("seconds") >= 0
                assert waiting == {
                    "model": "org/B",
                    "for": "memory that other models hold",
                    "needed_bytes": 10,
                }
                assert status["failing"] == []
                await site.release(100)
                await answer.aread()
            assert (await waits).status_code == 200

    run(main())


# Engines that fail


async def read(answer: httpx.Response, said: list[bytes]) -> None:
    """Keeps what came before a cut."""
    async for piece in answer.aiter_raw():
        said.append(piece)


@pytest.mark.parametrize(
    "how",
    [
        {"raw": ""},
        {"raw": "this is not HTTP\r\n\r\n"},
        {"status": 302, "headers": [["location", "http://example.com"]]},
    ],
    ids=["no answer", "not HTTP", "a redirect"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_fails_before_the_first_byte_is_a_502(
    fake: Engines, how: dict[str, Any], stream: bool
) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            error(await site.chat(asking(stream=stream, **how)), 502, "engine_failed")
            assert site.leases == {"a": 0}

    run(main())


def test_an_engine_that_does_not_start_is_a_502_with_its_last_words_and_no_path(
    fake: Engines,
) -> None:
    fake.engine("a").behave(exit_at_start=1, words=["cannot open /home/me/secret.gguf: no magic"])

    async def main() -> None:
        async with serving(fake, A) as site:
            told = error(await site.chat(asking()), 502, "engine_start_failed")
            assert "a could not be loaded with fake" in told["message"]
            assert told["engine_said"] == ["cannot open …/secret.gguf: no magic"]

    run(main())


def test_an_engine_that_dies_in_a_stream_ends_it_with_an_error_event_and_a_cut(
    fake: Engines, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            said: list[bytes] = []
            how = asking(stream=True, chunks=["data: 1\n\n"], end="die")
            async with site.stream(how) as answer:
                assert answer.status_code == 200
                with pytest.raises(httpx.RemoteProtocolError):
                    await read(answer, said)
            first, event, end = b"".join(said).split(b"\n\n")
            assert (first, end) == (b"data: 1", b"")
            told = json.loads(event.removeprefix(b"data: "))["error"]
            assert told["code"] == "engine.died"
            assert told["type"] == "server_error"
            await until(lambda: site.leases == {})
            assert (await site.chat(asking())).status_code == 200

    run(main())
    assert "(stream cut)" in caplog.text
    assert "Traceback" not in caplog.text


def test_an_engine_that_has_died_unnoticed_costs_nobody_an_answer(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            for _ in range(5):
                assert (await site.chat(asking())).status_code == 200
                engine = fake.engine("a").pids()[-1]
                os.kill(engine, signal.SIGKILL)
                # Nothing of ours runs meanwhile that could notice.
                soon(functools.partial(none_alive, [engine]), 1)
            assert len(fake.engine("a").pids()) == 5

    run(main())


def test_an_engine_that_dies_in_a_plain_answer_cuts_it_and_adds_nothing(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            said: list[bytes] = []
            async with site.stream(asking(chunks=['{"half'], end="die")) as answer:
                with pytest.raises(httpx.RemoteProtocolError):
                    await read(answer, said)
            assert b"".join(said) == b'{"half'

    run(main())


class Astonished(Engines):
    def footprint(self, info: ModelInfo, options: InstanceOptions) -> Footprint:
        raise KeyError("/home/me/secret.py")


def test_what_nobody_foresaw_is_a_500_that_tells_nothing_and_a_log_that_tells_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(Astonished(tmp_path), A) as site:
            with caplog.at_level(logging.ERROR, "router"):
                answer = await site.chat(asking())
            told = error(answer, 500, "internal_error")
            assert told["type"] == "server_error"
            assert "secret" not in answer.text

    run(main())
    assert "KeyError: '/home/me/secret.py'" in caplog.text


# Clients that leave


def test_a_client_that_leaves_a_stream_releases_the_model_and_stops_the_engines_work(
    fake: Engines,
) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            async with site.stream(asking(stream=True, gated=True)) as answer:
                await anext(answer.aiter_raw())
                assert site.leases == {"a": 1}
            await until(lambda: site.leases == {"a": 0})
            await until(lambda: fake.engine("a").records("cancelled"))
            assert fake.engine("a").records("finished") == []

    run(main())


def test_a_client_that_leaves_before_the_first_byte_releases_the_model(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            task = asyncio.create_task(site.chat(asking(silent=True)))
            await until(lambda: fake.engine("a").records("request"))
            assert site.leases == {"a": 1}
            task.cancel()
            await until(lambda: site.leases == {"a": 0})
            await until(lambda: fake.engine("a").records("cancelled"))

    run(main())


def test_a_client_that_leaves_the_queue_makes_room_for_the_next(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, *MODELS, budget_bytes=10) as site:
            async with site.stream(asking(stream=True, gated=True)):
                leaver = asyncio.create_task(site.chat(asking("org/B")))
                await until(lambda: site.pool.scheduler.queue)
                leaver.cancel()
                await until(lambda: not site.pool.scheduler.queue)
                assert (await site.chat(asking())).status_code == 200
            assert fake.engine("org/B").records("listening") == []

    run(main())


def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            url = site.client.base_url
            _, writer = await asyncio.open_connection(url.host, url.port)
            head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n"
            writer.write(head.encode() + b'{"model"')
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            assert (await site.chat(asking())).status_code == 200
            await until(lambda: site.leases == {"a": 0})

    run(main())
    assert len(fake.engine("a").records("request")) == 1


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/x.png", "https://example.com/x.png", "file:///etc/passwd", 7]
)
@pytest.mark.parametrize("shape", [lambda url: {"url": url}, lambda url: url])
def test_nothing_that_a_request_names_is_fetched(
    fake: Engines, url: Any, shape: Callable[[Any], Any]
) -> None:
    part = {"type": "image_url", "image_url": shape(url)}
    body = {"model": "a", "messages": [{"role": "user", "content": [part]}]}

    async def main() -> None:
        async with serving(fake, A) as site:
            refused = await site.client.post(CHAT, json=body)
            assert (
                error(refused, 400, "invalid_request")["param"]
                == "messages[0].content[0].image_url"
            )

    run(main())
    assert not fake.engine("a").records("request")


def test_a_picture_in_the_request_itself_passes_to_a_model_that_sees(fake: Engines) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What?"}, part]}]

    async def main() -> None:
        async with serving(fake, A, entry("eye", role=Role.VISION)) as site:
            blind = await site.chat({"model": "a", "messages": messages})
            told = error(blind, 400, "invalid_request")
            assert told["param"] == "messages[0].content[1]"
            assert "a reads text only" in told["message"]
            assert fake.engine("a").pids() == []
            assert (await site.chat({"model": "eye", "messages": messages})).status_code == 200

    run(main())


def test_a_browser_at_the_root_is_told_what_this_is(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A, entry("bad", no("fake"))) as site:
            page = await site.client.get("/")
            assert page.status_code == 200
            assert page.headers["content-type"].startswith("text/plain")
            assert "  a\n" in page.text
            assert "bad" not in page.text
            assert (await site.client.get("/health")).status_code == 200

    run(main())


def test_a_model_is_loaded_and_unloaded_on_request(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            loaded = await site.client.post("/router/models/a/load")
            assert loaded.json() == {"model": "a", "state": "ready"}
            assert site.leases == {"a": 0}
            assert (await site.client.post("/router/models/a/unload")).status_code == 200
            await until(lambda: site.leases == {})
            assert (await site.client.post("/router/models/a/unload")).status_code == 200
            error(await site.client.post("/router/models/none/load"), 404, "model_not_found")

    run(main())


def test_a_model_that_answers_is_not_unloaded(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            how = asking(stream=True, chunks=["data: 1\n\n", "data: 2\n\n"], gated=True)
            async with site.stream(how):
                refused = await site.client.post("/router/models/a/unload")
                assert "in use" in error(refused, 409, "model_busy")["message"]
                assert site.leases == {"a": 1}

    run(main())


# Other settings


def test_other_settings_hold_for_the_next_request(fake: Engines) -> None:
    page = "http://localhost:3000"
    other = "https://elsewhere.example"

    async def main() -> None:
        async with serving(fake, A, settings=Settings(max_body=4096)) as site:

            async def get(**headers: str) -> httpx.Response:
                return await site.client.get("/v1/models", headers=headers)

            assert (await get()).status_code == 200
            assert (await get(origin=other)).status_code == 403
            assert (await get(host="box")).status_code == 403
            assert (await site.chat(asking())).status_code == 200
            site.configuration.settings = Settings(
                api_key="right", allow_origin=(other,), allow_host=("box",), max_body=10
            )
            error(await get(), 401, "invalid_api_key")
            right = {"authorization": "Bearer right"}
            assert (await get(**right, host="box")).status_code == 200
            told = await get(**right, origin=other)
            assert told.headers["access-control-allow-origin"] == other
            too_large = await site.client.post(CHAT, json=asking(), headers=right)
            error(too_large, 413, "body_too_large")
            site.configuration.settings = Settings()
            told = await get(origin=page)
            assert told.status_code == 200
            assert "access-control-allow-origin" not in told.headers
            assert (await get(origin=other)).status_code == 403

    run(main())
