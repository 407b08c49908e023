"""Everything at once, for a while: `python -m tests.lifecycle.soak SECONDS [SEED]`, `make soak`.

Clients ask every engine and leave when they like, engines are killed, stopped, deaf, broken or
flooding, models change on disk; there is room for two models at most. Afterwards everybody must
have got an answer or a reason, and nothing may be left.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from typing import Any

import httpx

from tests.e2e.daemon import Daemon
from tests.lifecycle import samples, traces
from tests.lifecycle.check import Check, none, report
from tests.lifecycle.faults import ADDED, Faults
from tests.lifecycle.samples import Sample
from tests.lifecycle.site import (
    FAKES,
    PLAIN_BY_MISTRAL_RS,
    REAL,
    ROOM_FOR_TWO,
    Site,
    built,
    emptied_by_hand,
    process_of,
)
from tests.lifecycle.visit import End, Visit, client, question, visit

CLIENTS = 8
SAMPLE_SECONDS = 1.0
TOLD_SECONDS = 30.0
QUIET_SECONDS = 60.0
"""For everything to end once nobody asks any more."""

START_SECONDS = "30"
RETRY_SECONDS = 0.5
LONGEST_STAY_SECONDS = 2.0
FIRST_SECONDS = 120.0
"""Until memory is judged: caches and pools are filled by then."""

SLOPE_MIB_PER_MINUTE = 1.0
REST_SLACK = 2.0
"""Connections of ours that are just being closed."""

TRACE_LINES = 60
COUNT_SLACK = 4.0
"""Connections, pipes and threads that differ between two moments of the same life."""

CUTS = ("close", "reset", "die", "malformed")


def soak(seconds: float, seed: int) -> list[Check]:
    with built(REAL, FAKES) as site:
        flags = (*PLAIN_BY_MISTRAL_RS, "--start-seconds", START_SECONDS)
        with site.serving(ROOM_FOR_TWO, *flags) as daemon:
            checks = asyncio.run(_Soak(site, daemon, seed).run(seconds))
            daemon.process.terminate()
            checks.append(_ended_well(daemon))
        return [*checks, none("processes left after its end", site.mark.bearers())]


def _ended_well(daemon: Daemon) -> Check:
    status = daemon.wait(10)
    before, raised, trace = daemon.output.partition("Traceback")
    if raised:
        said = [*before.splitlines()[-5:], raised, *trace.splitlines()[:TRACE_LINES]]
        print("the daemon said:", *said, sep="\n    ")
    what = "the daemon's exit status, no traceback"
    return Check(what, str(status), "0", status == 0 and not raised)


class _Soak:
    def __init__(self, site: Site, daemon: Daemon, seed: int) -> None:
        self._site = site
        self._daemon = daemon
        self._seed = seed
        self._process = process_of(daemon)
        self._visits: list[Visit] = []
        self._samples: list[Sample] = []

    async def run(self, seconds: float) -> list[Check]:
        async with client(self._daemon.url) as api:
            await self._all_answer(api)
        await self._at_rest()
        before = samples.take(self._process)
        async with client(self._daemon.url) as api:
            faults = Faults(self._site, self._daemon, api, self._seed)
            await self._storm(seconds, api, faults)
            recovered = none("models that do not answer afterwards", await self._all_answer(api))
        checks = [self._named(faults), recovered]
        checks += [await self._at_rest(), *self._nothing_left(before)]
        return [*checks, *self._flatness()] if seconds >= 2 * FIRST_SECONDS else checks

    async def _at_rest(self) -> Check:
        rests = await asyncio.to_thread(emptied_by_hand, self._daemon, QUIET_SECONDS)
        return Check("leases, waits and children at rest", "0" if rests else "some", "0", rests)

    async def _all_answer(self, api: httpx.AsyncClient) -> set[str]:
        """Ask each model, again where it is refused; those that do not answer."""
        for fake in FAKES:
            self._site.fake(fake).behave()
        silent, ends_at = {*REAL, *FAKES}, time.monotonic() + QUIET_SECONDS
        while silent and time.monotonic() < ends_at:
            for model in sorted(silent):
                self._visits.append(await visit(api, question(model, stream=True), None))
                if self._visits[-1].end is End.ANSWERED:
                    silent.remove(model)
            await asyncio.sleep(RETRY_SECONDS if silent else 0)
        return silent

    async def _storm(self, seconds: float, api: httpx.AsyncClient, faults: Faults) -> None:
        ends_at = time.monotonic() + seconds
        clients = [self._client(api, number, ends_at) for number in range(CLIENTS)]
        others = [asyncio.create_task(work) for work in (faults.run(), self._watch())]
        await asyncio.gather(*clients)
        for task in others:
            task.cancel()
        for end in await asyncio.gather(*others, return_exceptions=True):
            if isinstance(end, Exception):
                raise end

    async def _client(self, api: httpx.AsyncClient, number: int, ends_at: float) -> None:
        chance = random.Random(self._seed * 1000 + number)
        while time.monotonic() < ends_at:
            body, stay = _wish(chance)
            self._visits.append(await visit(api, body, stay))
            await asyncio.sleep(chance.choice((0, 0, 0.1)))

    async def _watch(self) -> None:
        told_at = began = time.monotonic()
        while True:
            self._samples.append(samples.take(self._process))
            if time.monotonic() - told_at >= TOLD_SECONDS:
                told_at = time.monotonic()
                print(
                    f"{told_at - began:5.0f} s, {len(self._visits):6} visits: {self._samples[-1]}",
                    flush=True,
                )
            await asyncio.sleep(SAMPLE_SECONDS)

    # Checks

    def _named(self, faults: Faults) -> Check:
        ends = Counter(visit.end for visit in self._visits)
        refusals = Counter(v.detail for v in self._visits if v.end in (End.REFUSED, End.CUT))
        for title, counted in (("visits", ends), ("refusals", refusals), ("faults", faults.done)):
            print(f"{title}: " + ", ".join(f"{n} {what}" for what, n in counted.most_common()))
        unexplained = [visit for visit in self._visits if visit.end is End.UNEXPLAINED]
        return none("ended without a name", [*unexplained, *faults.complaints])

    def _nothing_left(self, before: Sample) -> list[Check]:
        after = samples.take(self._process)
        print(f"at rest before: {before}\nat rest after:  {after}")
        return [
            none("zombies", traces.zombies(self._process)),
            none("orphans", self._site.mark.strangers(self._process)),
            samples.no_more("descriptors at rest", before, after, samples.descriptors, REST_SLACK),
            samples.no_more("threads at rest", before, after, samples.threads, COUNT_SLACK),
        ]

    def _flatness(self) -> list[Check]:
        """Of a long run, under load: in a short one what runs by chance says nothing."""
        return [
            samples.flat("descriptors", self._samples, samples.descriptors, COUNT_SLACK),
            samples.flat("threads", self._samples, samples.threads, COUNT_SLACK),
            self._slope(),
        ]

    def _slope(self) -> Check:
        begins_at = self._samples[0].at_seconds + FIRST_SECONDS
        later = [sample for sample in self._samples if sample.at_seconds >= begins_at]
        slope = samples.slope_per_minute(later, samples.resident_mib)
        return Check(
            f"resident memory after {FIRST_SECONDS:g} s",
            f"{slope:+.3f} MiB a minute",
            f"at most {SLOPE_MIB_PER_MINUTE:+g}",
            slope <= SLOPE_MIB_PER_MINUTE,
        )


def _wish(chance: random.Random) -> tuple[dict[str, Any], float | None]:
    """What to ask, and for how long to wait for it; None for as long as it takes."""
    model = chance.choice((*REAL, *FAKES, *FAKES, ADDED))
    body = question(model, stream=chance.random() < 0.6)
    stay = chance.choice((None, None, None, 0.05, 0.3, LONGEST_STAY_SECONDS))
    leaves_after = None if stay is None else chance.uniform(0, stay)
    if model in FAKES:
        body["fake"] = _manner(chance, leaves_after is not None)
    return body, leaves_after


def _manner(chance: random.Random, leaves: bool) -> dict[str, Any]:
    """How the fake engine answers: well, for the most part; for ever only to those who leave."""
    if leaves and chance.random() < 0.3:
        return chance.choice(({"silent": True}, {"end": "hang"}))
    if chance.random() < 0.6:
        return {}
    if chance.random() < 0.2:
        return {"raw": "this is not HTTP\r\n\r\n"}
    return {"end": chance.choice(CUTS)}


def main(arguments: list[str]) -> int:
    seconds = float(arguments[0])
    seed = int(arguments[1]) if len(arguments) > 1 else random.randrange(10**6)
    print(f"{seconds:g} seconds with seed {seed}", flush=True)
    return report(soak(seconds, seed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
