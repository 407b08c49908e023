"""Read the headers at one place and say which models are there. The only I/O on weights."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from detect import (
    classify,
    classify_gguf,
    foreign,
    gguf_header,
    gguf_set,
    magic,
    quant_label,
    safetensors_folder,
    unfinished,
    weight_set,
)
from detect.errors import HeaderError
from detect.gguf_set import GGUFFile, GGUFKind, GGUFSet
from detect.hf_config import Configs, Json, read_configs
from detect.layouts import Place
from detect.listing import Entry, Listing, listed_name
from detect.magic import Kind
from detect.naming import Found, Identity
from detect.safetensors_folder import unreadable
from detect.types import ModelInfo, Problem, Role, SafetensorsDetails, Skipped
from detect.weight_set import WeightSet

SNIFFED_SUFFIXES = frozenset(
    {
        ".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".npz", ".st", ".uqff", ".dat",
        ".imatrix", ".tflite",
    }
)  # fmt: skip
BLOB = "sha256-"

NEVER_GGUF = frozenset({Kind.SESSION, Kind.GGML, Kind.WHISPER, Kind.PICKLE})
"""Kinds that are named as what they are, whatever the file's name says."""


def examine(place: Place) -> tuple[list[Found], list[Skipped]]:
    """The models at a place, without ids, and what is there without being a model."""
    return _Examination(place).run()


class _Examination:
    """One place, looked at once."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._main = place.main
        self._skipped: list[Skipped] = []
        self._kinds: list[dict[str, Kind]] = []

    def run(self) -> tuple[list[Found], list[Skipped]]:
        for listing in self._place.listings:
            self._skipped += unfinished.partials(listing)
            self._kinds.append(dict(self._sniffed(listing)))
        found = [*self._in_main_folder(), *self._ggufs()]
        return [self._settled(one) for one in found], self._skipped

    def _sniffed(self, listing: Listing) -> Iterator[tuple[str, Kind]]:
        for name, entry in listing.files.items():
            suffix = os.path.splitext(name)[1].lower()
            if suffix not in SNIFFED_SUFFIXES and not name.startswith(BLOB):
                continue
            try:
                yield name, magic.sniff_file(entry.path)
            except OSError as error:
                what = f"It cannot be read: {error.strerror or error}."
                self._skipped.append(Skipped(entry.path, "unreadable", what))

    # Safetensors, and everything that is no GGUF

    def _in_main_folder(self) -> Iterator[Found]:
        """A folder is one model, or holds loose files that are one each."""
        if self._place.exact:
            return
        configs = read_configs(self._main)
        kinds = self._kinds[0]
        one_model = bool(self._place.name) or configs.has_config
        pipeline = "model_index.json" in self._main.files or one_model
        if pipeline and (info := foreign.find(self._main, kinds, configs, [foreign.PIPELINE])):
            yield self._found(info)
            return
        sets = self._weight_sets(configs)
        if not sets and not any(self._gguf_names()):
            yield from self._without_weights(configs, kinds, one_model)
            return
        for stem, chosen in sets:
            yield from self._safetensors(configs, chosen, stem)
        if not configs.has_config:
            self._skipped += foreign.strays(self._main, kinds)

    def _without_weights(
        self, configs: Configs, kinds: Mapping[str, Kind], one_model: bool
    ) -> Iterator[Found]:
        if configs.adapter:
            self._explain_adapter(configs.adapter)
        elif not one_model:
            self._skipped += foreign.strays(self._main, kinds)
        elif info := foreign.find(self._main, kinds, configs):
            yield self._found(info)
        else:
            self._explain_no_weights(configs)

    def _weight_sets(self, configs: Configs) -> list[tuple[str, WeightSet]]:
        """With a config all weights are one model; without, every set is one of its own."""
        names = [n for n in self._main.files if self._is_safetensors(n)]
        names += [n for n in self._main.dangling if n.endswith(".safetensors")]
        if uqff := sorted(n for n in self._main.files if n.endswith(".uqff")):
            residual = [n for n in names if n == "residual.safetensors"]
            return [("", WeightSet((*uqff, *residual)))]
        if configs.has_config or configs.weight_map is not None:
            chosen = weight_set.choose(names, configs.weight_map)
            return [("", chosen)] if chosen else []
        sets = weight_set.group(names)
        return [(one.stem if len(sets) > 1 or not self._place.name else "", one) for one in sets]

    def _is_safetensors(self, name: str) -> bool:
        return name.endswith(".safetensors") and self._kinds[0].get(name) is not Kind.GGUF

    def _safetensors(self, configs: Configs, chosen: WeightSet, stem: str) -> Iterator[Found]:
        facts = safetensors_folder.read(self._main, chosen, configs)
        info = classify.classify(facts)
        if companion := _companion_kind(info):
            what = f"It is {companion}, which only works with its base model."
            self._skip("missing.base_model", what)
            return
        yield self._found(info, stem)

    def _explain_adapter(self, adapter: Json) -> None:
        base = adapter.get("base_model_name_or_path") or adapter.get("model")
        of = f" for {base[:200]}" if isinstance(base, str) else ""
        what = f"It is an adapter{of}, which only works with its base model."
        self._skip("missing.base_model", what)

    def _explain_no_weights(self, configs: Configs) -> None:
        if configs.architectures or configs.model_type:
            what = "It has a config.json and no weights; the download did not finish."
            self._skip("incomplete.partial", what)

    def _skip(self, code: str, reason: str) -> None:
        self._skipped.append(Skipped(self._main.folder, code, reason))

    # GGUF

    def _gguf_names(self) -> Iterator[tuple[Listing, str]]:
        for listing, kinds in zip(self._place.listings, self._kinds, strict=True):
            for name in sorted({*listing.files, *listing.dangling}):
                if self._is_gguf(listing, name, kinds.get(name)):
                    yield listing, name

    def _is_gguf(self, listing: Listing, name: str, kind: Kind | None) -> bool:
        """By content, or by a name under which nothing else is to be expected."""
        by_name = self._place.exact or name.lower().endswith(".gguf")
        if name in listing.dangling:
            return by_name
        if kind is None or kind in NEVER_GGUF:
            return False
        return by_name or kind is Kind.GGUF

    def _ggufs(self) -> Iterator[Found]:
        files = [_read_gguf(listing, name) for listing, name in self._gguf_names()]
        models = gguf_set.group(f for f in files if f.kind is GGUFKind.MODEL)
        others = [f for f in files if f.kind is not GGUFKind.MODEL]
        alone = len({quant_label.without_label(m.stem).casefold() for m in models}) <= 1
        paired: set[Path] = set()
        for model in models:
            projectors = [f for f in others if f.kind is GGUFKind.PROJECTOR]
            projector = gguf_set.projector_for(model, projectors, alone)
            if projector is not None:
                paired.update(f.path for f in projectors)
            yield self._gguf_found(model, projector)
        self._skipped += [_companion(f) for f in others if f.path not in paired]

    def _gguf_found(self, model: GGUFSet, projector: GGUFFile | None) -> Found:
        info = classify_gguf.classify(model, projector.path if projector else None)
        return self._found(info, model.stem)

    # Both

    def _found(self, info: ModelInfo, stem: str = "") -> Found:
        return Found(info=info, stem=stem)

    def _settled(self, one: Found) -> Found:
        entries = _entries(self._place, one.info.files)
        problem = unfinished.problem_of(one.info, entries, self._place.listings)
        if problem is None:
            return one
        others = tuple(p for p in one.info.problems if not p.code.startswith("incomplete."))
        return one.with_info(problems=(problem, *others))


def identity_of(place: Place, info: ModelInfo, stem: str) -> Identity:
    """The devices and inodes of the model's files."""
    entries = _entries(place, info.files)
    if not stem and (config := place.main.files.get("config.json")):
        entries.append(config)
    return frozenset([entry.identity for entry in entries])


def _entries(place: Place, paths: Sequence[Path]) -> list[Entry]:
    """Of the files at these paths, in the order of the paths."""
    return [
        entry
        for path in paths
        for listing in place.listings
        if (entry := listing.files.get(listed_name(path.name))) and entry.path == path
    ]


def _companion_kind(info: ModelInfo) -> str:
    """What belongs to a model without being one; empty for a model."""
    census = info.details.census if isinstance(info.details, SafetensorsDetails) else {}
    if {"peft-lora", "mlx-lora"} & set(census):
        return "a LoRA adapter"
    return "a draft model" if info.role is Role.COMPANION else ""


def _read_gguf(listing: Listing, name: str) -> GGUFFile:
    entry = listing.files.get(name)
    if entry is None:
        problem = Problem(
            "incomplete.partial",
            f"{name} is a link to a file that is not there: the download did not finish.",
        )
        return GGUFFile(listing.folder / name, None, problem)
    try:
        return GGUFFile(entry.path, gguf_header.read_header(entry.path))
    except HeaderError as error:
        return GGUFFile(entry.path, None, Problem(error.code, error.message))
    except OSError as error:
        return GGUFFile(entry.path, None, unreadable(entry.path, error))


def _companion(file: GGUFFile) -> Skipped:
    needs = file.kind in gguf_set.NEEDS_A_MODEL
    code = "missing.base_model" if needs else "unsupported.role"
    return Skipped(file.path, code, f"It is {file.kind.value}.")
