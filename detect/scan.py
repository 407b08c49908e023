"""Look at folders and say which models are in them. Never raises for what it finds there."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from msgspec import structs

from detect import foreign, layouts, naming
from detect.cache import Cache, NamedModel, Outcome
from detect.errors import NotAModelError
from detect.examine import examine, identity_of
from detect.layouts import Item, ListFolder, Place, TensorLayers
from detect.listing import Listing, list_folder
from detect.naming import Found
from detect.types import ModelInfo, Problem, Role, ScanReport, Skipped, WeightFormat

Progress = Callable[[int], None]

logger = logging.getLogger(__name__)

MAX_NAMED = 5


def scan(
    folders: Sequence[Path], progress: Progress | None = None, cache: Cache | None = None
) -> ScanReport:
    """All models below these folders. `progress` hears how many places were looked at.

    With a `cache`, only places that have changed since are looked at.
    """
    began = time.monotonic()
    lists = cache.lister if cache else list_folder
    items = tuple(_survey(folders, lists))
    report = cache.last_report(items) if cache else None
    if report is None:
        report = _report(items, progress, cache)
    if cache is not None:
        cache.keep_report(items, report)
        cache.save()
    return structs.replace(report, seconds=time.monotonic() - began)


def _report(
    items: Sequence[tuple[Item, str]], progress: Progress | None, cache: Cache | None
) -> ScanReport:
    findings = _Findings(cache)
    for number, (item, root) in enumerate(items, 1):
        findings.add_guarded(item, root)
        if progress is not None:
            progress(number)
    return findings.report()


def inspect_path(path: Path) -> ModelInfo:
    """The one model at a path: its folder, or one of its files.

    Raises:
        NotAModelError: no model is there, or several; the sentence says what is.
    """
    if path.is_dir():
        return _inspect_folder(path)
    if path.is_file():
        return _inspect_file(path)
    what = "is not a regular file" if os.path.lexists(path) else "does not exist"
    raise NotAModelError("unsupported.format", f"{path} {what}.")


class _Findings:
    """What has been found so far, in order."""

    def __init__(self, cache: Cache | None = None) -> None:
        self.found: list[Found] = []
        self.skipped: list[Skipped] = []
        self._cache = cache

    def add(self, item: Item, root: str) -> None:
        if isinstance(item, Skipped):
            self.skipped.append(item)
        elif isinstance(item, TensorLayers):
            self.found.append(Found(info=_tensor_layers(item), root=root))
        else:
            outcome = self._outcome(item)
            self.found += [_found(item, one, root) for one in outcome.found]
            self.skipped += outcome.skipped

    def report(self) -> ScanReport:
        strays = _holders_of_models(self.found)
        found = [one for one in self.found if not strays or one.info.path not in strays]
        skipped = [*self.skipped, *strays.values()]
        return ScanReport(models=naming.across_places(found), skipped=tuple(dict.fromkeys(skipped)))

    def _outcome(self, place: Place) -> Outcome:
        if self._cache is not None and (kept := self._cache.get(place)) is not None:
            return kept
        found, skipped = examine(place)
        named = (NamedModel(one.info, one.stem) for one in _named(place, found))
        outcome = Outcome(tuple(named), tuple(skipped))
        if self._cache is not None:
            self._cache.keep(place, outcome)
        return outcome

    def add_guarded(self, item: Item, root: str) -> None:
        """As `add`, for a scan, which one folder must not end even by an error of ours."""
        try:
            self.add(item, root)
        except Exception as error:
            assert isinstance(item, Place)
            logger.exception("cannot understand %s", item.main.folder)
            what = f"It was not understood ({type(error).__name__}); please report this."
            self.skipped.append(Skipped(item.main.folder, "unreadable", what))


def _holders_of_models(found: Sequence[Found]) -> dict[Path, Skipped]:
    """Folders that were taken for a model of a foreign format, and hold other models: what made
    them look so is a stray file."""
    foreign_ones = [one.info for one in found if one.info.format in foreign.NAMED_ONLY]
    if not foreign_ones:
        return {}
    holders = {parent for one in found for parent in one.info.path.parents}
    return {
        info.path: Skipped(info.files[0], info.problems[0].code, info.problems[0].message)
        for info in foreign_ones
        if info.path in holders and info.files
    }


def _survey(folders: Sequence[Path], lists: ListFolder) -> Iterator[tuple[Item, str]]:
    """Every place with the name of the models folder that it is in."""
    roots = layouts.roots_of(folders)
    for folder in folders:
        root = folder.resolve().name
        if folder.is_dir():
            yield from ((item, root) for item in layouts.survey(folder, roots, lists))
        else:
            yield Skipped(folder, "unreadable", "There is no such folder."), root


def _found(place: Place, one: NamedModel, root: str) -> Found:
    identity = identity_of(place, one.info, one.stem)
    return Found(info=one.info, stem=one.stem, identity=identity, root=root)


def _named(place: Place, found: Sequence[Found]) -> list[Found]:
    if not place.exact:
        return naming.in_place(place.name, found)
    return [
        Found(info=structs.replace(one.info, id=place.name, aliases=place.aliases))
        for one in found[:1]
    ]


def _tensor_layers(item: TensorLayers) -> ModelInfo:
    return ModelInfo(
        id=item.name,
        path=item.folder,
        files=(),
        format=WeightFormat.OLLAMA_TENSORS,
        role=Role.UNKNOWN,
        weights_bytes=item.weights_bytes,
        aliases=item.aliases,
        problems=(
            Problem(
                "unsupported.format",
                "It is stored tensor by tensor for Ollama's own engine. Use it with Ollama. "
                + foreign.CONVERTED,
            ),
        ),
    )


def _inspect_folder(folder: Path) -> ModelInfo:
    findings = _Findings()
    for item in layouts.survey_one(folder, layouts.roots_of([folder])):
        findings.add(item, folder.name)
    report = findings.report()
    if len(report.models) == 1:
        return report.models[0]
    if report.models:
        raise NotAModelError("unsupported.format", _several(folder, report.models))
    if report.skipped:
        first = report.skipped[0]
        where = "" if first.path == folder else f"{first.path}: "
        raise NotAModelError(first.code, f"{folder} holds no model. {where}{first.reason}")
    raise NotAModelError("unsupported.format", _nothing(folder))


def _several(folder: Path, models: Sequence[ModelInfo]) -> str:
    # Several models right in the folder have its path; what tells them apart is their files.
    paths = [m.files[0] if m.path == folder and m.files else m.path for m in models]
    names = [str(path) for path in paths[:MAX_NAMED]]
    more = f" and {len(models) - MAX_NAMED} more" if len(models) > MAX_NAMED else ""
    return f"{folder} holds {len(models)} models; name one of them: {', '.join(names)}{more}."


def _nothing(folder: Path) -> str:
    content = list_folder(folder, layouts.roots_of([folder]))
    names = [*content.files, *(f"{name}/" for name in content.folders)]
    if not names:
        return f"{folder} is empty."
    more = ", …" if len(names) > MAX_NAMED else ""
    shown = ", ".join(repr(name) for name in names[:MAX_NAMED])
    return f"{folder} holds no model, only {shown}{more}."


def _inspect_file(path: Path) -> ModelInfo:
    """The model that the file belongs to, named after the folder, or after the file itself."""
    roots = layouts.roots_of([path.parent, path.resolve().parent])
    content = list_folder(path.parent, roots)
    found, skipped = examine(Place(name="", listings=(content,)))
    for one in found:
        if any(file.samefile(path) for file in (*one.info.files, one.info.path) if file.exists()):
            return naming.across_places(naming.in_place("", [one]))[0]
    if (stray := _foreign_file(path, content)) is not None:
        return stray
    reasons = [item for item in skipped if item.path == path]
    if reasons:
        raise NotAModelError(reasons[0].code, f"{path.name}: {reasons[0].reason}")
    raise NotAModelError("unsupported.format", f"{path} is not a model's weights.")


def _foreign_file(path: Path, content: Listing) -> ModelInfo | None:
    """One that lies loose among others is no model of a folder, but was asked for by name."""
    files = {name: entry for name, entry in content.files.items() if entry.path == path}
    alone = Listing(folder=content.folder, files=files)
    found, _ = examine(Place(name=path.stem, listings=(alone,)))
    if [one.info.format in foreign.NAMED_ONLY for one in found] != [True]:
        return None
    return naming.across_places(naming.in_place(path.stem, found))[0]
