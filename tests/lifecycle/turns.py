"""A, B, A, B with room for one: `python -m tests.lifecycle.turns ROUNDS [SEED]`, `make turns`.

Four clients ask for two models by turns and leave when they like. Nobody is stuck, nobody is
forgotten, and nobody who came later for the other model is answered first.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence

import httpx

from tests.e2e.daemon import Daemon
from tests.lifecycle import traces
from tests.lifecycle.check import Check, none, report
from tests.lifecycle.site import ROOM_FOR_ONE, Site, built, emptied_by_hand, process_of
from tests.lifecycle.visit import End, Visit, client, question, visit

MODELS = {"a": "gguf-q8_0", "b": "gguf-q4_0"}
CLIENTS = 4
PROGRESS_SECONDS = 10.0
LONGEST_STAY_SECONDS = 1.0
QUIET_SECONDS = 30.0
SAME_TIME_SECONDS = 0.05
"""Who asks within this time of one another may be seen by the daemon in any order."""


def turns(rounds: int, seed: int) -> list[Check]:
    with built(MODELS) as site, site.serving(ROOM_FOR_ONE) as daemon:
        visits, longest_pause = asyncio.run(_all(daemon.url, rounds, seed))
        at_rest = emptied_by_hand(daemon, QUIET_SECONDS)
        return [*_fair(visits, longest_pause), *_rest(site, daemon, at_rest)]


async def _all(url: str, rounds: int, seed: int) -> tuple[list[Visit], float]:
    """All visits, and the longest time in which none ended."""
    visits: list[Visit] = []
    ends = [time.monotonic()]

    async def one(api: httpx.AsyncClient, number: int) -> None:
        chance = random.Random(seed * 1000 + number)
        for turn in range(rounds):
            body = question("ab"[(number + turn) % 2], stream=chance.random() < 0.5)
            leaves = chance.uniform(0, LONGEST_STAY_SECONDS) if chance.random() < 0.4 else None
            visits.append(await visit(api, body, leaves))
            ends.append(time.monotonic())

    async with client(url) as api:
        await asyncio.gather(*(one(api, number) for number in range(CLIENTS)))
    return visits, max(after - before for before, after in itertools.pairwise(ends))


def _fair(visits: Sequence[Visit], longest_pause: float) -> list[Check]:
    ends = Counter(visit.end for visit in visits)
    print("visits: " + ", ".join(f"{n} {what}" for what, n in ends.most_common()))
    waits = [v.first_at - v.asked_at for v in visits if v.first_at is not None]
    print(f"first byte: median {statistics.median(waits):.2f} s, at most {max(waits):.2f} s")
    neither = [visit for visit in visits if visit.end not in (End.ANSWERED, End.LEFT)]
    return [
        none("neither answered nor left", neither),
        none("overtaken by the other model's", _overtaken(visits)),
        Check(
            "longest time in which nobody ended",
            f"{longest_pause:.2f} s",
            f"less than {PROGRESS_SECONDS:g} s",
            longest_pause < PROGRESS_SECONDS,
        ),
    ]


def _overtaken(visits: Sequence[Visit]) -> list[str]:
    answered = [(v, v.first_at) for v in visits if v.first_at is not None]
    return [
        f"{early} by {late.asked_at - early.asked_at:.2f} s"
        for early, early_at in answered
        for late, late_at in answered
        if early.model != late.model
        and early.asked_at + SAME_TIME_SECONDS < late.asked_at
        and late_at < early_at
    ]


def _rest(site: Site, daemon: Daemon, at_rest: bool) -> list[Check]:
    return [
        Check("leases, waits and children at rest", "0" if at_rest else "some", "0", at_rest),
        none("zombies", traces.zombies(process_of(daemon))),
        none("orphans", site.mark.strangers(process_of(daemon))),
    ]


def main(arguments: list[str]) -> int:
    rounds = int(arguments[0])
    seed = int(arguments[1]) if len(arguments) > 1 else random.randrange(10**6)
    print(f"{rounds} rounds with seed {seed}", flush=True)
    return report(turns(rounds, seed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
