"""Ollama's dialect behind the real HTTP server, in front of a fake engine."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from detect.types import Architecture, Quantization, Role
from router.api.fluency import OLLAMA_CHAT, OLLAMA_GENERATE
from router.settings import Settings
from tests.fake_engine.engine import SENTENCE
from tests.router.entries import entry, no
from tests.router.pools import Engines
from tests.router.sites import Site, serving
from tests.slack import run
from tests.waiting import until

A = entry("a")
GIVEN = {"done": False, "message": {"role": "assistant", "content": "b"}}


@pytest.fixture
def fake(tmp_path: Path) -> Engines:
    return Engines(tmp_path)


def asking(model: str = "a", *, stream: bool = False, **how: Any) -> dict[str, Any]:
    """A request whose text tells the fake engine how to answer."""
    text = json.dumps({"fake": how}) if how else "Who are you?"
    return {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}


async def say(site: Site, body: Any, path: str = OLLAMA_CHAT) -> httpx.Response:
    return await site.client.post(path, json=body)


async def streamed(site: Site, body: Any) -> tuple[list[dict[str, Any]], bool]:
    """The lines of a stream, and whether it was cut."""
    text, cut = b"", False
    async with site.client.stream("POST", OLLAMA_CHAT, json=body) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"] == "application/x-ndjson"
        try:
            async for piece in answer.aiter_raw():
                text += piece
        except httpx.RemoteProtocolError:
            cut = True
    return [json.loads(line) for line in text.splitlines()], cut


def error(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body.keys() == {"error"}
    return str(body["error"])


def chunked(*chunks: Any, done: bool = True) -> list[str]:
    events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return [*events, *(["data: [DONE]\n\n"] if done else [])]


def delta(reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": reason}]}


def test_a_chat_is_answered_by_a_chat_completion(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            answer = await say(site, {**asking("a:latest"), "options": {"num_predict": 9}})
            assert answer.status_code == 200, answer.text
            value = answer.json()
            assert value["message"] == {"role": "assistant", "content": SENTENCE}
            assert (value["model"], value["done"], value["done_reason"]) == (
                "a:latest", True, "stop",
            )  # fmt: skip
            assert 0 < value["load_duration"] < value["total_duration"]
            assert (value["prompt_eval_count"], value["eval_count"]) == (1, 12)

    run(main())
    (asked,) = fake.engine("a").records("request")
    assert asked["path"] == "/v1/chat/completions"
    assert json.loads(asked["body"])["max_tokens"] == 9


def test_a_raw_prompt_is_answered_by_a_completion(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            body = {"model": "a", "prompt": "Polly wants", "raw": True, "stream": False}
            answer = await say(site, body, OLLAMA_GENERATE)
            assert answer.status_code == 200, answer.text

    run(main())
    (asked,) = fake.engine("a").records("request")
    assert asked["path"] == "/v1/completions"
    assert json.loads(asked["body"]) == {"model": "a", "prompt": "Polly wants"}


def test_a_stream_is_told_line_by_line_as_it_comes(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            body = asking(
                chunks=chunked(delta(content="a"), delta("stop", content="b")), gated=True
            )
            del body["stream"]
            texts = []
            async with site.client.stream("POST", OLLAMA_CHAT, json=body) as answer:
                async for line in answer.aiter_lines():
                    value = json.loads(line)
                    if not value["done"]:
                        texts.append(value["message"]["content"])
                        await site.release()
                assert value["done_reason"] == "stop"
            assert texts == ["a", "b"]

    run(main())


@pytest.mark.parametrize("size", [1, 7, 64])
def test_an_engines_stream_may_be_cut_anywhere(fake: Engines, size: int) -> None:
    whole = "".join(chunked(delta(content="né🥜"), delta("stop"))).encode()
    whole = whole.replace(rb"n\u00e9\ud83e\udd5c", "né🥜".encode())
    pieces = [whole[i : i + size].decode("latin-1") for i in range(0, len(whole), size)]

    async def main() -> None:
        async with serving(fake, A) as site:
            (first, last), cut = await streamed(site, asking(stream=True, chunks=pieces))
            assert first["message"]["content"] == "né🥜"
            assert (last["done"], cut) == (True, False)

    run(main())


def test_a_failure_in_a_stream_is_a_line_and_a_cut(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            broken = [
                asking(stream=True, chunks=chunked(delta(content="a"), done=False)),
                asking(
                    stream=True, chunks=chunked(delta(content="a"), {"error": {"message": "x"}})
                ),
            ]
            for body in broken:
                (first, last), cut = await streamed(site, body)
                assert first["message"]["content"] == "a"
                assert last.keys() == {"error"}
                assert cut

    run(main())


def test_a_client_that_leaves_ends_the_answer(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            body = asking(stream=True, chunks=chunked(delta(content="a")), end="hang")
            async with site.client.stream("POST", OLLAMA_CHAT, json=body) as answer:
                await anext(answer.aiter_raw())
            await until(lambda: site.leases == {"a": 0})
            await until(lambda: bool(fake.engine("a").records("cancelled")))

    run(main())


@pytest.mark.parametrize("path", [OLLAMA_CHAT, OLLAMA_GENERATE])
def test_an_empty_prompt_loads_and_keep_alive_of_zero_unloads(fake: Engines, path: str) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            gone = await say(site, {"model": "a", "keep_alive": 0}, path)
            assert (gone.status_code, gone.json()["done_reason"]) == (200, "unload")
            assert site.leases == {}
            there = await say(site, {"model": "a", "stream": True}, path)
            assert (there.status_code, there.json()["done_reason"]) == (200, "load")
            assert set(site.leases) == {"a"}
            assert (await say(site, {"model": "a", "keep_alive": "0s"}, path)).status_code == 200
            await until(lambda: site.leases == {})
            error(await say(site, {"model": "b", "keep_alive": 0}, path), 404)
            error(await say(site, {"model": "b"}, path), 404)
        assert fake.engine("a").records("request") == []

    run(main())


def test_errors_have_ollamas_shape_and_statuses(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A, entry("bad", no("fake"))) as site:
            assert "no model 'b'" in error(await say(site, asking("b", stream=True)), 404)
            assert "messages.0.role" in error(
                await say(site, {"model": "a", "messages": [{}]}), 400
            )
            error(await say(site, asking("bad")), 422)
            error(await say(site, asking(status=400, chunks=['{"error": {"message": "x"}}'])), 400)
            error(await site.client.post(OLLAMA_CHAT, content=b"{"), 400)
            error(await site.client.get(OLLAMA_CHAT), 405)
            error(await site.client.post("/api/pull", json={"model": "a"}), 404)
            error(await site.client.post("/api/show", json={"model": "b"}), 404)
        async with serving(fake, A, settings=Settings(api_key="k")) as site:
            error(await site.client.get("/api/tags"), 401)

    run(main())


def test_pictures_for_a_blind_model_are_refused_before_it_is_loaded(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            body = {"model": "a", "prompt": "What is it?", "images": ["iVBORw0KGgo="]}
            assert "images.0" in error(await say(site, body, OLLAMA_GENERATE), 400)
            assert site.leases == {}

    run(main())


# What there is


def test_models_are_listed_as_ollama_lists_its_own(fake: Engines) -> None:
    model = entry(
        "org/b", parameters=7_600_000_000, weights_bytes=99, context_length=4096,
        architecture=Architecture(gguf="qwen3"),
        quantization=Quantization(method="gguf", mode="Q4_K_M"),
        chat_template=True, tools=True, thinking=True, role=Role.VISION,
    )  # fmt: skip
    model = replace(model, fingerprint=(("x", 99, 1_700_000_000_500_000_000, 1),))

    async def main() -> None:
        async with serving(fake, model, entry("bad", no("fake"))) as site:
            (listed,) = (await site.client.get("/api/tags")).json()["models"]
            assert len(listed.pop("digest")) == 64
            details = {
                "parent_model": "", "format": "gguf", "family": "qwen3", "families": ["qwen3"],
                "parameter_size": "7.6B", "quantization_level": "Q4_K_M",
            }  # fmt: skip
            assert listed == {
                "name": "org/b", "model": "org/b", "size": 99, "details": details,
                "modified_at": "2023-11-14T22:13:20Z",
            }  # fmt: skip
            for body in ({"model": "b:latest"}, {"name": "org/b"}):
                shown = (await site.client.post("/api/show", json=body)).json()
                assert shown["details"] == details
                assert shown["capabilities"] == ["completion", "tools", "thinking", "vision"]
                assert shown["model_info"] == {
                    "general.architecture": "qwen3", "general.parameter_count": 7_600_000_000,
                    "qwen3.context_length": 4096,
                }  # fmt: skip
            assert "version" in (await site.client.get("/api/version")).json()
            assert (await site.client.head("/")).status_code == 200

    run(main())


def test_what_runs_is_told_with_the_time_of_its_end(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A, entry("c")) as site:
            assert (await site.client.get("/api/ps")).json() == {"models": []}
            assert (await say(site, {**asking("a"), "keep_alive": 60})).status_code == 200
            assert (await say(site, {**asking("c"), "keep_alive": -1})).status_code == 200
            await until(lambda: site.leases == {"a": 0, "c": 0})
            first, second = (await site.client.get("/api/ps")).json()["models"]
            assert (first["name"], second["name"]) == ("a", "c")
            left = datetime.fromisoformat(first["expires_at"]) - datetime.now().astimezone()
            assert 0 < left.total_seconds() <= 60
            assert second["expires_at"].startswith("9999-")
            assert first["size"] > 0

    run(main())


def test_what_is_loading_does_not_run_yet(fake: Engines) -> None:
    fake.engine("a").behave(start_seconds=0.5)

    async def main() -> None:
        async with serving(fake, A) as site:
            task = asyncio.create_task(say(site, asking()))
            await until(lambda: "a" in site.leases)
            assert (await site.client.get("/api/ps")).json() == {"models": []}
            answer = await task
            assert answer.json()["load_duration"] >= 0.4e9

    run(main())
