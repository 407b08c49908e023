from __future__ import annotations

import asyncio

import pytest

from backends.asgi import disconnected, unless_disconnected, whole_body
from tests.backends.messages import Exchange
from tests.slack import run


@pytest.mark.parametrize("parts", [[b""], [b"abc"], [b"a", b"", b"bc"]])
def test_a_body_is_read_to_its_end_and_no_further(parts: list[bytes]) -> None:
    async def main() -> None:
        exchange = Exchange(*parts)
        assert await whole_body(exchange.receive) == b"".join(parts)
        exchange.leave()
        assert (await exchange.receive())["type"] == "http.disconnect"

    run(main())


def test_what_is_left_of_a_body_is_no_disconnect() -> None:
    async def main() -> None:
        exchange = Exchange(b"a", b"b")
        leaving = asyncio.create_task(disconnected(exchange.receive))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not leaving.done()
        exchange.leave()
        await leaving

    run(main())


class Work:
    """Waits until it is allowed to end, and notes what happened to it."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.allowed = asyncio.Event()
        self.cancelled = False
        self.ended = False

    async def __call__(self) -> None:
        self.began.set()
        try:
            await self.allowed.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # to tidy up takes a moment
            self.cancelled = True
            raise
        self.ended = True


def test_work_is_done_while_the_client_is_there() -> None:
    async def main() -> None:
        exchange, work = Exchange(), Work()
        working = asyncio.create_task(unless_disconnected(exchange.receive, work()))
        await work.began.wait()
        work.allowed.set()
        await working
        assert work.ended
        assert len(asyncio.all_tasks()) <= 2  # this one, and the watch that is being cancelled
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    run(main())


def test_work_is_cancelled_and_tidied_up_when_the_client_leaves() -> None:
    async def main() -> None:
        exchange, work = Exchange(), Work()
        working = asyncio.create_task(unless_disconnected(exchange.receive, work()))
        await work.began.wait()
        exchange.leave()
        await working
        assert (work.cancelled, work.ended) == (True, False)

    run(main())


def test_work_is_cancelled_and_tidied_up_when_its_caller_is() -> None:
    async def main() -> None:
        exchange, work = Exchange(), Work()
        working = asyncio.create_task(unless_disconnected(exchange.receive, work()))
        await work.began.wait()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert work.cancelled

    run(main())


def test_an_error_of_the_work_is_raised() -> None:
    async def fail() -> None:
        raise ValueError("a")

    async def main() -> None:
        with pytest.raises(ValueError, match="a"):
            await unless_disconnected(Exchange().receive, fail())

    run(main())
