"""The served names: which model a request means, and which engine runs it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from backends.base import Backend, Support, Verdict
from backends.verdicts import Reason
from detect.fingerprint import Fingerprint, fingerprint
from detect.types import ModelInfo, ScanReport, Skipped
from router import explain
from router.entry import ModelEntry
from router.errors import (
    EngineUnavailableError,
    UnknownModelError,
    UnservableModelError,
)
from router.experience import Experience
from router.model_settings import NOTHING_SAID, ModelSettings
from router.preference import NO_WISHES, Wishes, choose
from router.relatives import with_relatives

LATEST = ":latest"
"""The tag that Ollama's clients add to names without one."""


class Registry:
    """All models found, by every name a client may use.

    Names match exactly, then without regard to case, then by a unique suffix after `/`
    (`qwen3-8b` for `lmstudio/qwen3-8b`); an ambiguous one is refused with the candidates. A tag
    `:latest` that is part of no name is left out.
    """

    def __init__(self, entries: Sequence[ModelEntry], skipped: Sequence[Skipped] = ()) -> None:
        self.entries = tuple(entries)
        self.skipped = tuple(skipped)
        self._by_name: dict[str, ModelEntry] = {}
        for entry in self.entries:
            for name in entry.aliases:
                self._by_name.setdefault(name, entry)
        self._by_name.update({entry.id: entry for entry in self.entries})

    def __iter__(self) -> Iterator[ModelEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def servable(self) -> tuple[ModelEntry, ...]:
        return tuple(entry for entry in self.entries if entry.servable)

    def by_id(self, model_id: str) -> ModelEntry | None:
        entry = self._by_name.get(model_id)
        return entry if entry is not None and entry.id == model_id else None

    def find(self, name: str) -> ModelEntry:
        """The entry that `name` means, servable or not.

        Raises:
            UnknownModelError: no model of that name, or several.
        """
        found = self._known(name)
        if found is None:
            raise self._unknown(name)
        return found

    def find_or(self, default: str | None, name: str) -> ModelEntry:
        """As `find`; the model `default` where there is none of that name.

        Raises:
            UnknownModelError: neither is there, or `name` means several.
        """
        found = self._known(name)
        if found is None and default is not None:
            found = self._known(default)
        return found or self.find(name)

    def _known(self, name: str) -> ModelEntry | None:
        """None if there is none; raises UnknownModelError if there are several."""
        return self._found(name) or self._found(name.removesuffix(LATEST))

    def _found(self, name: str) -> ModelEntry | None:
        if (exact := self._by_name.get(name)) is not None:
            return exact
        for matches in (self._folded(name), self._suffixed(name)):
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise _ambiguous(name, matches)
        return None

    def resolve(self, name: str) -> ModelEntry:
        """The entry that will answer requests for `name`.

        Raises:
            UnknownModelError: no model of that name, or several.
            UnservableModelError: it is known, and no engine can run it; says why for each.
        """
        entry = self.find(name)
        if entry.servable:
            return entry
        kind = UnservableModelError
        if any(verdict.code == Reason.BACKEND_ABSENT for verdict in entry.verdicts):
            kind = EngineUnavailableError
        raise kind(explain.sentence(entry.info, entry.verdicts), entry.verdicts)

    def _folded(self, name: str) -> list[ModelEntry]:
        folded = name.casefold()
        return _distinct(e for n, e in self._by_name.items() if n.casefold() == folded)

    def _suffixed(self, name: str) -> list[ModelEntry]:
        tail = "/" + name.casefold()
        return _distinct(e for n, e in self._by_name.items() if n.casefold().endswith(tail))

    def _unknown(self, name: str) -> UnknownModelError:
        shown = name if len(name) <= 200 else name[:200] + "…"
        if not self.entries:
            hint = "No models were found; start the router with --models-dir."
        elif near := self.near(name, self.servable):
            hint = f"Did you mean {_listed(near)}?"
        else:
            known = [entry.id for entry in self.servable[:5]]
            hint = f"Known models are {_listed(known)}" if known else "No model is servable"
            hint += "; `router list` shows all." if len(self.entries) > 5 else "."
        return UnknownModelError(f"There is no model {shown!r}. {hint}", param="model")

    def near(self, name: str, among: Iterable[ModelEntry]) -> list[str]:
        """Up to three ids that are written like `name`, the likeliest first."""
        by_folded = {entry.id.casefold(): entry.id for entry in among}
        folded = name[:200].casefold()
        near = difflib.get_close_matches(folded, by_folded, n=3, cutoff=0.5)
        inside = [key for key in by_folded if folded in key or key in folded]
        return [by_folded[key] for key in dict.fromkeys(near + inside)][:3]


def build(
    report: ScanReport,
    backends: Sequence[Backend],
    wishes: Wishes = NO_WISHES,
    models: Sequence[ModelSettings] = (),
    experience: Experience | None = None,
) -> Registry:
    """Ask every backend about every model; `models` is what the user says of some, `experience`
    what running them has taught."""
    for backend in backends:
        backend.prepare(report.models)
    jury = Jury(backends, experience or Experience())
    said = {model.id: model for model in models}
    entries = [_entry(info, jury, wishes, _said_of(info, said)) for info in report.models]
    entries = with_relatives(entries, report.skipped, models)
    adapters = {entry.adapter for entry in entries}
    return Registry(entries, [one for one in report.skipped if one.path not in adapters])


class Jury:
    """Every engine's verdict, and what became of it when the model was really loaded."""

    def __init__(self, backends: Sequence[Backend], experience: Experience) -> None:
        self._experience = experience
        self._backends = [(b, b.installation().version or "") for b in backends]

    def verdicts(self, info: ModelInfo, files: Fingerprint) -> tuple[Verdict, ...]:
        return tuple(self._verdict(b, version, info, files) for b, version in self._backends)

    def _verdict(
        self, backend: Backend, version: str, info: ModelInfo, files: Fingerprint
    ) -> Verdict:
        verdict = backend.verdict(info)
        said = self._experience.refusal(files, backend.name, version) if verdict.ok else ""
        if not said:
            return verdict
        return Verdict(
            engine=backend.name,
            support=Support.NO,
            code=Reason.REFUSED_AT_LOAD,
            reason=f"{version} failed when it was loaded: {said}",
            remedy=f"Another version of {backend.name} may do better.",
        )


def _said_of(info: ModelInfo, said: Mapping[str, ModelSettings]) -> ModelSettings:
    names = (name for name in (info.id, *info.aliases) if name in said)
    return next((said[name] for name in names), NOTHING_SAID)


def _entry(info: ModelInfo, jury: Jury, wishes: Wishes, settings: ModelSettings) -> ModelEntry:
    files = fingerprint(info)
    verdicts = jury.verdicts(info, files)
    return ModelEntry(
        id=info.id,
        info=info,
        verdicts=verdicts,
        choice=choose(info, verdicts, wishes),
        aliases=(*info.aliases, *settings.aliases),
        settings=settings,
        fingerprint=files,
    )


def _distinct(entries: Iterator[ModelEntry]) -> list[ModelEntry]:
    return list({entry.id: entry for entry in entries}.values())


def _ambiguous(name: str, matches: Sequence[ModelEntry]) -> UnknownModelError:
    candidates = _listed(entry.id for entry in matches[:5])
    return UnknownModelError(f"{name!r} may mean {candidates}; say which.", param="model")


def _listed(names: Iterator[str] | Sequence[str]) -> str:
    quoted = [repr(name) for name in names]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " or " + quoted[-1]
