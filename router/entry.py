"""One served name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backends.base import Verdict
from backends.verdicts import Reason
from detect.fingerprint import Fingerprint
from detect.types import ModelInfo
from router.model_settings import NOTHING_SAID, ModelSettings
from router.preference import Choice


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """A served name: the model, every engine's verdict, and the choice made."""

    id: str
    info: ModelInfo
    verdicts: tuple[Verdict, ...]
    choice: Choice
    aliases: tuple[str, ...] = ()
    fingerprint: Fingerprint = ()
    settings: ModelSettings = NOTHING_SAID
    adapter: Path | None = None
    """The folder of an adapter, of which `info` is the base."""
    draft: Path | None = None
    """The folder of a model that guesses tokens for this one."""

    @property
    def servable(self) -> bool:
        return self.choice.engine is not None

    @property
    def settling(self) -> bool:
        return any(problem.code == Reason.SETTLING for problem in self.info.problems)

    def runs_like(self, other: ModelEntry) -> bool:
        """Whether an instance of one would be an instance of the other: same files and engine."""
        return (
            self.fingerprint == other.fingerprint
            and self.info.path == other.info.path
            and self.choice.engine == other.choice.engine
        )
