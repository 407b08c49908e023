"""Served names without engines: for tests of what is decided before anything runs."""

from __future__ import annotations

from typing import Any

from backends.base import Support, Verdict
from backends.verdicts import Reason
from detect.types import ModelInfo
from router.entry import ModelEntry
from router.preference import choose
from tests.fake_engine import model

LINUX, MACOS = "linux", "darwin"


def yes(engine: str) -> Verdict:
    return Verdict(engine=engine, support=Support.YES)


def limited(engine: str) -> Verdict:
    return Verdict(engine=engine, support=Support.LIMITED, reason="it takes no images")


def no(engine: str, reason: str = "knows no such architecture", remedy: str = "") -> Verdict:
    return Verdict(
        engine=engine, support=Support.NO, code="unsupported.arch", reason=reason, remedy=remedy
    )


def absent(engine: str) -> Verdict:
    return Verdict(
        engine=engine,
        support=Support.NO,
        code=Reason.BACKEND_ABSENT,
        reason=f"{engine} is not installed",
        remedy=f"Install {engine}.",
    )


def entry(model_id: str, *verdicts: Verdict, **facts: Any) -> ModelEntry:
    """A served name; the fake engine runs it unless verdicts say otherwise."""
    return judged(model(model_id, **facts), *(verdicts or (yes("fake"),)))


def judged(info: ModelInfo, *verdicts: Verdict) -> ModelEntry:
    return ModelEntry(
        id=info.id,
        info=info,
        verdicts=verdicts,
        choice=choose(info, verdicts),
        aliases=info.aliases,
    )
