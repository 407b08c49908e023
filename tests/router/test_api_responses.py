"""OpenAI's Responses behind the real HTTP server, in front of a fake engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.api import silence
from router.api.fluency import RESPONSES
from router.api.sse import EventReader
from tests.fake_engine.engine import SENTENCE
from tests.router.entries import entry, no
from tests.router.pools import Engines
from tests.router.sites import Site, serving
from tests.slack import run
from tests.waiting import until

A = entry("a")


@pytest.fixture
def fake(tmp_path: Path) -> Engines:
    return Engines(tmp_path)


def asking(model: str = "a", *, stream: bool = False, **how: Any) -> dict[str, Any]:
    """A request whose text tells the fake engine how to answer."""
    text = json.dumps({"fake": how}) if how else "Who are you?"
    return {"model": model, "input": text, "stream": stream}


async def say(site: Site, body: Any) -> httpx.Response:
    return await site.client.post(RESPONSES, json=body)


async def streamed(site: Site, body: Any) -> tuple[list[dict[str, Any]], bool]:
    """The events of a stream, and whether it was cut."""
    reader, events, cut = EventReader(), [], False
    async with site.client.stream("POST", RESPONSES, json=body) as answer:
        assert answer.status_code == 200, await answer.aread()
        try:
            async for piece in answer.aiter_raw():
                events += [json.loads(event.data) for event in reader.add(piece)]
        except httpx.RemoteProtocolError:
            cut = True
    return events, cut


def error(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()["error"]
    assert found["code"] == code
    return found


def chunked(*chunks: Any, done: bool = True) -> list[str]:
    events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return [*events, *(["data: [DONE]\n\n"] if done else [])]


def delta(reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": reason}]}


def received(fake: Engines) -> list[Any]:
    return [json.loads(one["body"])["messages"] for one in fake.engine("a").records("request")]


def test_a_response_is_kept_and_gone_on_with_and_deleted(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            first = (await say(site, {**asking(), "instructions": "S"})).json()
            assert first["output"][0]["content"][0]["text"] == SENTENCE
            path = f"{RESPONSES}/{first['id']}"
            assert (await site.client.get(path)).json() == first
            going_on = {**asking(), "input": "And?", "previous_response_id": first["id"]}
            events, cut = await streamed(site, {**going_on, "stream": True, "store": False})
            assert (events[-1]["type"], cut) == ("response.completed", False)
            error(await site.client.get(f"{RESPONSES}/{events[-1]['response']['id']}"),
                  404, "response_not_found")  # fmt: skip
            deleted = await site.client.delete(path)
            assert deleted.json() == {"id": first["id"], "object": "response", "deleted": True}
            for answer in (await site.client.get(path), await site.client.delete(path)):
                error(answer, 404, "response_not_found")
            lost = error(await say(site, going_on), 400, "previous_response_not_found")
            assert lost["param"] == "previous_response_id"

    run(main())
    question = {"role": "user", "content": "Who are you?"}
    assert received(fake) == [
        [{"role": "system", "content": "S"}, question],
        [question, {"role": "assistant", "content": SENTENCE}, {"role": "user", "content": "And?"}],
    ]


def test_a_failure_in_a_stream_is_an_event_and_a_cut(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            chunks = chunked(delta(content="a"), done=False)
            events, cut = await streamed(site, asking(stream=True, chunks=chunks))
            assert events[-1]["type"] == "response.failed"
            assert events[-1]["response"]["error"]["code"] == "engine_failed"
            assert cut
            identity = events[0]["response"]["id"]
            error(await site.client.get(f"{RESPONSES}/{identity}"), 404, "response_not_found")

    run(main())


def test_a_model_that_cannot_be_loaded_fails_the_response_that_has_begun(
    fake: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "QUIET_SECONDS", 0.05)
    fake.engine("a").behave(start_seconds=0.3, exit_at_start=1)

    async def main() -> None:
        async with serving(fake, A) as site:
            events, cut = await streamed(site, asking(stream=True))
            assert [event["type"] for event in events] == [
                "response.created", "response.in_progress", "response.failed",
            ]  # fmt: skip
            assert cut

    run(main())


def test_a_client_that_leaves_ends_the_answer(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            body = asking(stream=True, chunks=chunked(delta(content="a")), end="hang")
            async with site.client.stream("POST", RESPONSES, json=body) as answer:
                await anext(answer.aiter_raw())
            await until(lambda: site.leases == {"a": 0})
            await until(lambda: bool(fake.engine("a").records("cancelled")))

    run(main())


def test_errors_have_openais_shape(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A, entry("bad", no("fake"))) as site:
            error(await say(site, asking("b", stream=True)), 404, "model_not_found")
            error(await say(site, asking("bad")), 422, "model_not_servable")
            wrong = error(await say(site, {**asking(), "input": [{}]}), 400, "invalid_request")
            assert wrong["param"] == "input.0.role"
            error(await site.client.get(RESPONSES), 405, "method_not_allowed")

    run(main())
