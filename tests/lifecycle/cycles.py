"""Every engine loaded and unloaded again and again: `python -m tests.lifecycle.cycles COUNT`, which
is `make cycles`. Afterwards the daemon holds what it held before."""

from __future__ import annotations

import sys
import time

import httpx
import psutil

from tests.e2e.daemon import Daemon
from tests.lifecycle import samples, traces
from tests.lifecycle.check import Check, none, report
from tests.lifecycle.samples import Figure, Sample
from tests.lifecycle.site import (
    ENGINES,
    PLAIN_BY_MISTRAL_RS,
    REAL,
    ROOM_FOR_TWO,
    Site,
    built,
    emptied,
    process_of,
)

SHARE = 0.05
WARM_UP = 10
"""Cycles, or half of all where there are fewer than twice as many: what is imported and kept for
reuse is there by then."""

GONE_SECONDS = 30.0


def cycles(count: int) -> list[Check]:
    """For each engine in turn, all by the same daemon."""
    with built(REAL) as site, site.serving(ROOM_FOR_TWO, *PLAIN_BY_MISTRAL_RS) as daemon:
        return [check for model in REAL for check in _of(model, count, site, daemon)]


def _of(model: str, count: int, site: Site, daemon: Daemon) -> list[Check]:
    began, engine = time.monotonic(), ENGINES[model]
    taken: list[Sample] = []
    zombies: list[psutil.Process] = []
    with daemon.client() as api:
        for _ in range(count):
            _cycle(model, api, daemon)
            taken.append(samples.take(process_of(daemon)))
            zombies += traces.zombies(process_of(daemon))
    print(f"{engine}: {count} cycles, {(time.monotonic() - began) / count:.3f} s each")
    return [
        none(f"{engine}: zombies", zombies),
        none(f"{engine}: orphans", site.mark.strangers(process_of(daemon))),
        _back(f"{engine}: resident MiB", taken, samples.resident_mib),
        _back(f"{engine}: descriptors", taken, samples.descriptors),
        _back(f"{engine}: threads", taken, samples.threads),
    ]


def _cycle(model: str, api: httpx.Client, daemon: Daemon) -> None:
    for what in ("load", "unload"):
        answer = api.post(f"/router/models/{model}/{what}")
        assert answer.status_code == 200, answer.text
    assert emptied(daemon, GONE_SECONDS), daemon.output


def _back(what: str, taken: list[Sample], figure: Figure) -> Check:
    """The median of the last cycles is that of as many after the warm-up."""
    warm = taken[min(WARM_UP, len(taken) // 2) :]
    few = max(1, min(WARM_UP, len(warm) // 2))
    before, after = (samples.median(some, figure) for some in (warm[:few], warm[-few:]))
    return Check(
        what,
        f"{before:g} and {after:g} ({100 * (after / before - 1):+.1f} %)",
        f"within {100 * SHARE:g} %",
        abs(after - before) <= max(SHARE * before, 1),
    )


def main(arguments: list[str]) -> int:
    return report(cycles(int(arguments[0])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
