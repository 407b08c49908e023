"""What has happened since the daemon started, in numbers that only grow. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

OTHER = "other"
COUNTED_PATHS = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank", "/v1/models"}
)
"""All others are one: a client may ask for any."""


@dataclass(slots=True)
class Tally:
    """Answers by path and status, errors by code, loads by engine and whether they worked, and
    what they took together, in seconds; unloads by engine, for whatever reason."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    loads: Counter[tuple[str, bool]] = field(default_factory=Counter)
    load_seconds: dict[str, float] = field(default_factory=dict)
    unloads: Counter[str] = field(default_factory=Counter)

    def answered(self, path: str, status: int) -> None:
        self.answers[path if path in COUNTED_PATHS else OTHER, status] += 1

    def loaded(self, engine: str, seconds: float, *, worked: bool) -> None:
        self.loads[engine, worked] += 1
        self.load_seconds[engine] = self.load_seconds.get(engine, 0.0) + seconds
