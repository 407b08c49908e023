from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from backends.base import Message, Patience
from backends.pulse import Pulse, computed_seconds
from tests.slack import run
from tests.waiting import until

STALL = Patience(stall_seconds=0.2)


async def nowhere(message: Message) -> None:
    pass


def chunk(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


def busy() -> Callable[[], float]:
    """Another second of processor time whenever it is asked for."""
    counter = itertools.count()
    return lambda: float(next(counter))


def idle() -> float:
    return 1.0


def test_one_that_has_requests_and_neither_speaks_nor_computes_is_lost() -> None:
    async def main() -> None:
        pulse = Pulse()
        with pulse.request(nowhere):
            assert await pulse.lost(STALL, idle) >= 0.2

    run(main())


@pytest.mark.parametrize("what", ["asked nothing", "computes", "speaks"])
def test_one_that_shows_any_sign_of_life_is_not(what: str) -> None:
    async def main() -> None:
        pulse = Pulse()
        watch = asyncio.create_task(pulse.lost(STALL, busy() if what == "computes" else idle))
        if what == "asked nothing":
            await asyncio.sleep(0.6)
        with pulse.request(nowhere) as send:
            for _ in range(60 if what != "asked nothing" else 1):
                if what == "speaks":
                    await send(chunk(b"data: 1"))
                await asyncio.sleep(0.01)
        assert not watch.done()
        watch.cancel()

    run(main())


def test_one_that_computes_for_ever_and_says_nothing_is_lost_in_the_end() -> None:
    async def main() -> None:
        pulse = Pulse()
        with pulse.request(nowhere):
            assert await pulse.lost(Patience(first_seconds=0.3), busy()) >= 0.3

    run(main())


def test_heartbeats_are_no_sign_of_life() -> None:
    async def main() -> None:
        pulse = Pulse()
        with pulse.request(nowhere) as send:
            watch = asyncio.create_task(pulse.lost(STALL, idle))
            while not watch.done():
                await send(chunk(b": still here"))
                await asyncio.sleep(0.01)

    run(main())


def test_the_silence_begins_with_the_first_request() -> None:
    now = [0.0]
    pulse = Pulse(lambda: now[0])
    now[0] = 100.0
    assert pulse.silent_seconds == 0
    with pulse.request(nowhere), pulse.request(nowhere):
        now[0] = 107.0
        assert pulse.silent_seconds == 7
    assert pulse.silent_seconds == 0


def test_the_time_that_a_family_computes_is_counted() -> None:
    spin = "import os; print(os.getpid(), flush=True)\nwhile True: pass"
    argv = ["sh", "-c", '"$0" -c "$1" & wait', sys.executable, spin]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        spinning = int(shell.stdout.readline())
        try:
            run(until(lambda: computed_seconds(shell.pid) > 0.2))
        finally:
            os.kill(spinning, 9)
    assert computed_seconds(shell.pid) == 0
    assert computed_seconds(os.getpid()) > 0
