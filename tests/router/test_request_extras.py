"""What the router itself understands of a request: how long to keep the model, how it loads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.api import progress
from router.model_settings import ModelSettings
from router.option import Progress
from router.scheduler import Stay
from router.settings import Settings
from tests.fake_engine import asking
from tests.router.entries import entry
from tests.router.pools import Engines
from tests.router.sites import Site, serving
from tests.slack import run
from tests.waiting import until

A = entry("a")
COMMENTS = {"x-router-progress": "comments"}


@pytest.fixture
def fake(tmp_path: Path) -> Engines:
    return Engines(tmp_path)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(progress, "EACH_SECONDS", 0.1)


def received(fake: Engines) -> list[dict[str, Any]]:
    return [json.loads(record["body"]) for record in fake.engine("a").records("request")]


async def streamed(site: Site, headers: dict[str, str], **how: Any) -> str:
    body = asking(stream=True, **how)
    path = "/v1/chat/completions"
    text = ""
    async with site.client.stream("POST", path, json=body, headers=headers) as answer:
        assert answer.status_code == 200
        try:
            async for piece in answer.aiter_text():
                text += piece
        except httpx.RemoteProtocolError:
            text += "<cut>"
    return text


# How long a model stays


@pytest.mark.parametrize(
    ("said", "stay"),
    [
        ({"keep_alive": "5m"}, Stay(300.0)),
        ({"ttl": 60}, Stay(60.0)),
        ({"keep_alive": -1}, Stay(None)),
        ({}, Stay(None)),
    ],
)
def test_a_request_says_how_long_its_model_stays_and_the_engine_does_not_hear_of_it(
    fake: Engines, said: dict[str, Any], stay: Stay
) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            asked = asking()
            assert (await site.chat({**asked, **said})).status_code == 200
            assert site.pool.scheduler.slots["a"].stay == stay
        assert received(fake) == [asked]

    run(main())


def test_a_model_that_is_not_to_be_kept_leaves_after_its_answer(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            assert (await site.chat({**asking(), "keep_alive": 0})).status_code == 200
            await until(lambda: site.pool.status() == [])

    run(main())


def test_a_time_that_is_none_is_refused_before_anything_is_loaded(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            answer = await site.chat({**asking(), "keep_alive": "for long"})
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == "keep_alive"
            assert site.pool.status() == []

    run(main())


# Sampling that the user has set


def test_what_a_request_does_not_say_is_as_the_user_has_set_it(fake: Engines) -> None:
    said = ModelSettings(id="a", temperature=0.2, max_tokens=50)

    async def main() -> None:
        async with serving(fake, replace(A, settings=said)) as site:
            await site.chat(asking())
            await site.chat({**asking(), "temperature": 1, "max_completion_tokens": 5})
        first, second = received(fake)
        assert (first["temperature"], first["max_tokens"]) == (0.2, 50)
        assert second["temperature"] == 1
        assert "max_tokens" not in second

    run(main())


# How it loads


@pytest.mark.usefixtures("soon")
def test_who_asks_is_told_in_comments_how_the_model_loads(fake: Engines) -> None:
    fake.engine("a").behave(ready_seconds=0.5)

    async def main() -> None:
        async with serving(fake, A) as site:
            text = await streamed(site, COMMENTS)
            assert text.startswith(": a is loading, 0 s so far.\n\n")
            assert text.endswith("data: [DONE]\n\n")
            assert text.count(": a is loading") > 1
            warm = await streamed(site, COMMENTS)
            assert "loading" not in warm

    run(main())


@pytest.mark.usefixtures("soon")
def test_people_are_told_as_reasoning_and_programs_are_not(fake: Engines) -> None:
    fake.engine("a").behave(ready_seconds=0.5)
    settings = Settings(load_progress=Progress.REASONING)

    async def main() -> None:
        async with serving(fake, A, settings=settings) as site:
            text = await streamed(site, {})
            first = json.loads(text.partition("\n\n")[0].removeprefix("data: "))
            assert "a is loading" in first["choices"][0]["delta"]["reasoning_content"]
            await until(lambda: site.leases == {"a": 0})
            site.pool.unload(A)
            await until(lambda: site.pool.status() == [])
            body = {**asking(stream=True), "tools": []}
            assert "is loading" not in (await site.chat(body)).text
            assert (await site.chat(asking())).headers["content-type"] == "application/json"

    run(main())


@pytest.mark.usefixtures("soon")
def test_a_load_that_fails_after_something_was_told_ends_the_stream_with_an_error(
    fake: Engines,
) -> None:
    fake.engine("a").behave(ready_seconds=0.5, exit_at_canary=1)

    async def main() -> None:
        async with serving(fake, A) as site:
            text = await streamed(site, COMMENTS)
            assert text.startswith(": a is loading")
            *_, last, end = text.split("\n\n")
            assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_start_failed"
            assert end == "<cut>"
            assert "[DONE]" not in text

    run(main())


@pytest.mark.usefixtures("soon")
def test_an_engines_own_error_becomes_an_event_once_something_was_told(fake: Engines) -> None:
    fake.engine("a").behave(ready_seconds=0.5)

    async def main() -> None:
        async with serving(fake, A) as site:
            text = await streamed(
                site, COMMENTS, status=400, chunks=['{"error":\n', '{"code": 7}}']
            )
            event = text.rstrip().split("\n\n")[-1]
            told = json.loads(event.removeprefix("data: "))["error"]
            assert (told["code"], told["type"]) == ("invalid_request", "invalid_request_error")

    run(main())


def test_another_word_for_progress_is_refused(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            answer = await site.client.post(
                "/v1/chat/completions", json=asking(), headers={"x-router-progress": "loudly"}
            )
            assert answer.status_code == 400
            assert "off, comments, reasoning" in answer.json()["error"]["message"]

    run(main())
