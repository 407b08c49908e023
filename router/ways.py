"""How each model is run: the engine, its options and the memory it takes.

An engine whose verdict is yes may still refuse a model when it loads it. Then the next one that
can is tried, and if that one works, it is remembered who refused and why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from backends.base import Backend, Footprint, Instance, InstanceOptions
from backends.headers import context_length
from router.entry import ModelEntry
from router.errors import ModelTooBigError
from router.experience import Experience
from router.fit import less_context, too_big
from router.preference import Choice, choose


@dataclass(slots=True)
class _Attempt:
    """What has been tried since the model last worked: engines that refused it, with the reason,
    and whether it had all the memory there is."""

    refusals: dict[str, str] = field(default_factory=dict)
    alone: bool = False


class Ways:
    """`learned` is called when a model turned out to need another engine than was thought."""

    def __init__(
        self,
        backends: Mapping[str, Backend],
        options: InstanceOptions,
        experience: Experience | None = None,
    ) -> None:
        self.backends = backends
        self.options = options
        self.experience = experience or Experience()
        self.learned: Callable[[], None] = lambda: None
        self._attempts: dict[str, _Attempt] = {}
        self._versions: dict[str, str] = {}

    def way(self, entry: ModelEntry) -> ModelEntry:
        """`entry` as it is run: as chosen, unless that engine has refused it and another one may
        not."""
        refusals = self._refusals(entry)
        able = [v for v in entry.verdicts if v.ok and v.engine not in refusals]
        if entry.choice.engine not in refusals or not able:
            return entry
        why = f"{entry.choice.engine} refused it: {refusals[entry.choice.engine]}"
        return replace(entry, choice=Choice(choose(entry.info, able).engine, why))

    def create(self, way: ModelEntry) -> Instance:
        return self._backend(way).create(way.id, way.info, self.options_for(way))

    # What it takes

    def options_for(self, entry: ModelEntry) -> InstanceOptions:
        own, general = entry.settings, self.options
        return replace(
            general,
            context_length=own.context_length or general.context_length,
            isolation=own.isolation or general.isolation,
            kv_bits=own.kv_bits or general.kv_bits,
            adapter=entry.adapter,
            draft=entry.draft,
        )

    def footprint(self, way: ModelEntry) -> Footprint:
        return self._backend(way).footprint(way.info, self.options_for(way))

    def needed_bytes(self, way: ModelEntry) -> int:
        """As measured when it was loaded like this before, else as estimated."""
        options = self.options_for(way)
        known = self.experience.needed_bytes(way.fingerprint, *self._engine(way), options)
        return self.footprint(way).total_bytes if known is None else known

    def too_big(self, way: ModelEntry, budget_bytes: int) -> ModelTooBigError | None:
        """Why it does not fit into the memory of all models together; None if it does."""
        needed = self.needed_bytes(way)
        if needed <= budget_bytes:
            return None
        context = context_length(way.info, self.options_for(way))
        advice = less_context(budget_bytes, self.footprint(way), context)
        return too_big(way.id, needed, budget_bytes, advice)

    def took(self, way: ModelEntry, needed_bytes: int) -> None:
        """So much was measured. Nothing is written: `experience.save` does."""
        options, files = self.options_for(way), way.fingerprint
        self.experience.took(files, *self._engine(way), options, needed_bytes)

    # What was tried

    def another(self, entry: ModelEntry, way: ModelEntry, reason: str) -> ModelEntry | None:
        """The next way to run `entry`, after the engine of `way` has refused it; None when there
        is none left."""
        attempt = self._attempts.setdefault(entry.id, _Attempt())
        attempt.refusals[way.choice.engine or ""] = reason
        other = self.way(entry)
        return None if other.choice.engine in attempt.refusals else other

    def alone(self, entry: ModelEntry) -> bool:
        """Whether it may be tried with all the memory there is: once."""
        attempt = self._attempts.setdefault(entry.id, _Attempt())
        before, attempt.alone = attempt.alone, True
        return not before

    def failed(self, entry: ModelEntry) -> None:
        """Nothing has worked, and so nothing was learned about any of the engines."""
        self._attempts.pop(entry.id, None)

    def worked(self, way: ModelEntry) -> None:
        """What other engines have said is true of them, and not of the model."""
        attempt = self._attempts.pop(way.id, None)
        if attempt is None or not attempt.refusals:
            return
        for engine, reason in attempt.refusals.items():
            self.experience.refused(way.fingerprint, engine, self._version(engine), reason)
        self.experience.save()
        self.learned()

    def _refusals(self, entry: ModelEntry) -> dict[str, str]:
        attempt = self._attempts.get(entry.id)
        tried = attempt.refusals if attempt is not None else {}
        able = [verdict.engine for verdict in entry.verdicts if verdict.ok]
        known = {
            engine: self.experience.refusal(entry.fingerprint, engine, self._version(engine))
            for engine in able
            if engine in self.backends
        }
        return {engine: reason for engine, reason in known.items() if reason} | tried

    # Engines

    def _backend(self, way: ModelEntry) -> Backend:
        assert way.choice.engine is not None
        return self.backends[way.choice.engine]

    def _engine(self, way: ModelEntry) -> tuple[str, str]:
        engine = way.choice.engine or ""
        return engine, self._version(engine)

    def _version(self, engine: str) -> str:
        if engine not in self._versions:
            self._versions[engine] = self.backends[engine].installation().version or ""
        return self._versions[engine]
