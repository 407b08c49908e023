"""Prometheus' text format, version 0.0.4: families of samples as lines. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, object]
Sample = tuple[Labels, float]


@dataclass(frozen=True, slots=True)
class Family:
    """Samples of one name; `help` is one line."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    samples: Sequence[Sample]


def exposition(families: Iterable[Family]) -> str:
    """Families without samples are left out: nothing is known of them."""
    return "".join(f"{line}\n" for family in families for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    if not family.samples:
        return
    yield f"# HELP {family.name} {family.help}"
    yield f"# TYPE {family.name} {family.kind}"
    for labels, value in family.samples:
        yield f"{family.name}{_labels(labels)} {value}"


def _labels(labels: Labels) -> str:
    pairs = (f'{name}="{_escaped(str(value))}"' for name, value in labels.items())
    return f"{{{','.join(pairs)}}}" if labels else ""


def _escaped(text: str) -> str:
    """Names of models may have anything in them but what would end the line."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
