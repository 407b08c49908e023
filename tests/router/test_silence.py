"""A silent stream of OpenAI's dialect is kept alive, and not a byte of what engines say changes."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path

import httpx
import pytest

from router.api import silence
from router.api.progress import WAITING
from router.api.silence import Silence, meanwhile
from tests.fake_engine import asking
from tests.router.entries import entry
from tests.router.pools import Engines
from tests.router.sites import serving
from tests.router.test_api import read
from tests.slack import run
from tests.waiting import until

A = entry("a")


@pytest.fixture
def fake(tmp_path: Path) -> Engines:
    return Engines(tmp_path)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "QUIET_SECONDS", 0.05)


def heard(said: list[bytes], piece: bytes) -> bool:
    return piece in b"".join(said)


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
def test_comments_come_between_events_while_the_engine_says_nothing(
    fake: Engines, end: str
) -> None:
    chunks = [f"data: {n}{end}".encode() for n in range(3)]
    told = asking(stream=True, chunks=[chunk.decode() for chunk in chunks], gated=True)
    said: list[bytes] = []

    async def main() -> None:
        async with serving(fake, A) as site, site.stream(told) as answer:
            reading = asyncio.create_task(read(answer, said))
            for chunk in chunks[:2]:
                await until(partial(heard, said, chunk + 2 * WAITING))
                await site.release()
            await reading

    run(main())
    assert b"".join(said).replace(WAITING, b"") == b"".join(chunks)


def test_an_event_is_not_cut_by_a_comment(fake: Engines) -> None:
    told = asking(stream=True, chunks=['data: {"a"', ": 1}\n\n"], gated=True)
    said: list[bytes] = []

    async def main() -> None:
        async with serving(fake, A) as site, site.stream(told) as answer:
            reading = asyncio.create_task(read(answer, said))
            await until(partial(heard, said, b'{"a"'))
            await asyncio.sleep(0.3)
            await site.release()
            await reading

    run(main())
    assert b'data: {"a": 1}\n\n' in b"".join(said)


def test_a_client_hears_something_while_its_model_loads(fake: Engines) -> None:
    fake.engine("a").behave(ready_seconds=0.5)

    async def main() -> None:
        async with serving(fake, A) as site:
            text = (await site.chat(asking(stream=True))).content
            assert text.count(WAITING) > 1
            warm = await site.chat(asking(stream=True))
            assert text.replace(WAITING, b"") == warm.content
            assert warm.headers["content-type"].startswith("text/event-stream")

    run(main())


def test_an_answer_that_is_whole_has_its_own_status_however_late(fake: Engines) -> None:
    fake.engine("a").behave(ready_seconds=0.3)

    async def main() -> None:
        async with serving(fake, A) as site:
            answer = await site.chat(asking(status=400, chunks=['{"error": {"message": "no"}}']))
            assert answer.status_code == 400
            assert answer.json()["error"]["message"] == "no"

    run(main())


def test_an_early_error_of_a_stream_has_its_own_status(
    fake: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "QUIET_SECONDS", 10.0)

    async def main() -> None:
        async with serving(fake, A) as site:
            how = asking(stream=True, status=400, chunks=['{"error": {"message": "no"}}'])
            assert (await site.chat(how)).status_code == 400

    run(main())


def test_a_late_error_is_the_last_event(fake: Engines) -> None:
    fake.engine("a").behave(ready_seconds=0.3)

    async def main() -> None:
        async with serving(fake, A) as site:
            how = asking(stream=True, status=400, chunks=['{"error": {"message": "no"}}'])
            answer = await site.chat(how)
            assert answer.status_code == 200
            event = answer.text.rstrip().split("\n\n")[-1].removeprefix("data: ")
            assert json.loads(event)["error"]["message"] == "no"

    run(main())


def test_a_load_that_fails_late_ends_the_stream_with_its_error_and_a_cut(fake: Engines) -> None:
    fake.engine("a").behave(ready_seconds=0.3, exit_at_canary=1)
    said: list[bytes] = []

    async def main() -> None:
        async with serving(fake, A) as site, site.stream(asking(stream=True)) as answer:
            assert answer.status_code == 200
            with pytest.raises(httpx.RemoteProtocolError):
                await read(answer, said)

    run(main())
    whole = b"".join(said)
    assert whole.startswith(WAITING)
    event = whole.rstrip().split(b"\n\n")[-1].removeprefix(b"data: ")
    assert json.loads(event)["error"]["code"] == "engine_start_failed"


def test_who_speaks_is_not_interrupted() -> None:
    async def main() -> None:
        found = Silence()
        ended: list[None] = []

        async def listen() -> None:
            async for _ in found.ends():
                ended.append(None)

        async with meanwhile(listen()):
            for _ in range(20):
                found.broken()
                await asyncio.sleep(0)
            assert not ended
            await until(lambda: len(ended) == 2)

    run(main())
