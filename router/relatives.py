"""Models that are more than one folder: adapters with their base, and models with a draft.

An adapter of mlx-lm is a model of its own, for which the base is loaded once more. It is served if
the settings say what it belongs to, or if it lies in a models folder and its `adapter_config.json`
names a model that is there, by path or by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from msgspec import structs

from backends.base import Support, Verdict
from backends.verdicts import Reason
from detect.fingerprint import Fingerprint
from detect.types import Skipped
from router.entry import ModelEntry
from router.model_settings import NOTHING_SAID, ModelSettings
from router.preference import MLX, Choice

WEIGHTS, CONFIG = "adapters.safetensors", "adapter_config.json"
MAX_CONFIG_BYTES = 2**20


def with_relatives(
    entries: Sequence[ModelEntry], skipped: Sequence[Skipped], models: Sequence[ModelSettings]
) -> list[ModelEntry]:
    """`entries` with their drafts, and behind them the adapters that belong to them."""
    known = {name: entry for entry in entries for name in (*entry.aliases, entry.id)}
    drafted = [_with_draft(entry, known) for entry in entries]
    return [*drafted, *_adapters(known, skipped, models)]


def _with_draft(entry: ModelEntry, known: Mapping[str, ModelEntry]) -> ModelEntry:
    draft = known.get(entry.settings.draft or "")
    if draft is None:
        return entry
    files = entry.fingerprint + draft.fingerprint
    return replace(entry, draft=draft.info.folder, fingerprint=files)


def _adapters(
    known: Mapping[str, ModelEntry], skipped: Iterable[Skipped], models: Sequence[ModelSettings]
) -> Iterator[ModelEntry]:
    said = {model.id: model for model in models}
    served = set()
    for model in models:
        if model.base is not None and model.base in known and model.adapter is not None:
            served.add(model.adapter)
            yield _adapted(known[model.base], model.adapter, model)
    for one in skipped:
        base = _named_base(one, known)
        if base is not None and one.path not in served and one.path.name not in known:
            yield _adapted(
                base, one.path, said.get(one.path.name, replace(NOTHING_SAID, id=one.path.name))
            )


def _adapted(base: ModelEntry, folder: Path, settings: ModelSettings) -> ModelEntry:
    verdicts = tuple(_of_adapter(verdict) for verdict in base.verdicts)
    able = any(verdict.ok for verdict in verdicts)
    return replace(
        base,
        id=settings.id,
        info=structs.replace(base.info, id=settings.id, aliases=()),
        aliases=settings.aliases,
        verdicts=verdicts,
        choice=Choice(MLX if able else None, f"an adapter of {base.id}"),
        fingerprint=base.fingerprint + _files(folder),
        settings=settings,
        adapter=folder,
    )


def _of_adapter(verdict: Verdict) -> Verdict:
    if verdict.engine == MLX or not verdict.ok:
        return verdict
    return Verdict(
        engine=verdict.engine,
        support=Support.NO,
        code=Reason.UNSUPPORTED_FORMAT,
        reason="does not take adapters of mlx-lm",
        remedy="Fuse it into its base with `mlx_lm.fuse`.",
    )


def _named_base(skipped: Skipped, known: Mapping[str, ModelEntry]) -> ModelEntry | None:
    """The model that an adapter was trained on, as far as its own folder tells."""
    if skipped.code != Reason.MISSING_BASE_MODEL or not (skipped.path / WEIGHTS).is_file():
        return None
    try:
        with (skipped.path / CONFIG).open("rb") as file:
            claim = json.loads(file.read(MAX_CONFIG_BYTES))["model"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None
    if not isinstance(claim, str) or not claim:
        return None
    for entry in known.values():
        if str(entry.info.folder) == claim or entry.id.casefold() == claim.casefold():
            return entry
    return None


def _files(folder: Path) -> Fingerprint:
    found = []
    for name in (WEIGHTS, CONFIG):
        try:
            status = (folder / name).stat()
        except OSError:
            continue
        found.append((str(folder / name), status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(found)
