"""What a process holds, again and again: memory, descriptors, threads, children."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from tests.lifecycle.check import Check

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Sample:
    at_seconds: float
    resident_bytes: int
    descriptors: int
    threads: int
    children: int

    def __str__(self) -> str:
        return (
            f"{self.resident_bytes / MIB:7.1f} MiB, {self.descriptors} descriptors, "
            f"{self.threads} threads, {self.children} children"
        )


Figure = Callable[[Sample], float]


def resident_mib(sample: Sample) -> float:
    return sample.resident_bytes / MIB


def descriptors(sample: Sample) -> float:
    return sample.descriptors


def threads(sample: Sample) -> float:
    return sample.threads


def take(process: psutil.Process) -> Sample:
    with process.oneshot():
        return Sample(
            time.monotonic(),
            process.memory_info().rss,
            process.num_fds(),
            process.num_threads(),
            len(process.children()),
        )


def median(samples: Sequence[Sample], figure: Figure) -> float:
    return statistics.median(map(figure, samples))


def quarter(samples: Sequence[Sample], number: int) -> Sequence[Sample]:
    """Of the first, second, third or fourth quarter, counted from 1."""
    return samples[len(samples) * (number - 1) // 4 : len(samples) * number // 4]


def flat(what: str, samples: Sequence[Sample], figure: Figure, slack: float) -> Check:
    """The median of the last quarter is that of the second, or `slack` above it at most."""
    second, last = (median(quarter(samples, number), figure) for number in (2, 4))
    return Check(
        f"{what}, second and last quarter",
        f"{second:g} and {last:g}",
        f"at most {slack:g} more",
        last <= second + slack,
    )


def no_more(what: str, before: Sample, after: Sample, figure: Figure, slack: float) -> Check:
    was, now = figure(before), figure(after)
    return Check(what, f"{was:g} and {now:g}", f"at most {slack:g} more", now <= was + slack)


def slope_per_minute(samples: Sequence[Sample], figure: Figure) -> float:
    """Theil-Sen: the median over all pairs, so that peaks do not tilt it."""
    slopes = [
        60 * (figure(after) - figure(before)) / (after.at_seconds - before.at_seconds)
        for index, before in enumerate(samples)
        for after in samples[index + 1 :]
    ]
    return statistics.median(slopes)
