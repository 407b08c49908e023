"""GGUF files grouped into models and what belongs to them: by headers, and by shard names. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from detect.gguf_header import GGUFHeader, GGUFTensor
from detect.types import Problem

SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.A)
MAX_SHARDS = 10_000

DIFFUSION = frozenset(
    {
        "flux", "sd1", "sdxl", "sd3", "aura", "hidream", "cosmos", "ltxv", "hyvid", "wan",
        "lumina2", "qwen_image", "ideogram", "krea2", "minimax_h3",
    }
)  # fmt: skip
DRAFTS = frozenset({"eagle3", "dflash", "gemma4-assistant"})


class GGUFKind(StrEnum):
    """What one GGUF file is. The value completes "it is …"."""

    MODEL = "a model"
    PROJECTOR = "a projector (mmproj), which only works with its model"
    ADAPTER = "a LoRA adapter, which only works with its base model"
    DRAFT = "a draft model, which only works with its base model"
    IMATRIX = "an importance matrix for quantising, not a model"
    VOCABULARY = "a vocabulary without weights, not a model"


KINDS: tuple[tuple[GGUFKind, Callable[[GGUFHeader], bool]], ...] = (
    (GGUFKind.PROJECTOR, lambda h: h.text("general.type") == "mmproj"),
    (GGUFKind.PROJECTOR, lambda h: h.architecture == "clip"),
    (GGUFKind.ADAPTER, lambda h: h.text("general.type") == "adapter"),
    (GGUFKind.ADAPTER, lambda h: h.text("adapter.type") is not None),
    (GGUFKind.IMATRIX, lambda h: h.text("general.type") == "imatrix"),
    (GGUFKind.IMATRIX, lambda h: "imatrix.datasets" in h.metadata),
    (GGUFKind.IMATRIX, lambda h: "imatrix.datasets" in h.array_lengths),
    (GGUFKind.DRAFT, lambda h: h.architecture in DRAFTS),
    # The first of several shards may hold the vocabulary alone.
    (GGUFKind.VOCABULARY, lambda h: not h.tensors and (h.number("split.count") or 1) <= 1),
)

NEEDS_A_MODEL = frozenset({GGUFKind.PROJECTOR, GGUFKind.ADAPTER, GGUFKind.DRAFT})


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """One file, read: a header, or the problem that there is none."""

    path: Path
    header: GGUFHeader | None = None
    problem: Problem | None = None

    @property
    def kind(self) -> GGUFKind:
        header = self.header
        if header is None:
            return GGUFKind.MODEL
        return next((kind for kind, is_one in KINDS if is_one(header)), GGUFKind.MODEL)


@dataclass(frozen=True, slots=True)
class GGUFSet:
    """One model's files in shard order; `missing` are file names."""

    files: tuple[GGUFFile, ...]
    stem: str
    missing: tuple[str, ...] = ()

    @property
    def header(self) -> GGUFHeader | None:
        """The first one: only it is sure to have the metadata."""
        return next((file.header for file in self.files if file.header), None)

    @property
    def tensors(self) -> Iterator[GGUFTensor]:
        return (t for file in self.files if file.header for t in file.header.tensors)

    @property
    def shard_count(self) -> int:
        return len(self.files) + len(self.missing)


def group(files: Iterable[GGUFFile]) -> list[GGUFSet]:
    """The models among these files, each with all of its shards."""
    shards: defaultdict[tuple[Path, str, int], dict[int, GGUFFile]] = defaultdict(dict)
    sets: list[GGUFSet] = []
    for file in files:
        shard = SHARD.fullmatch(file.path.name)
        if shard is None or not 1 < int(shard["count"]) <= MAX_SHARDS:
            sets.append(GGUFSet((file,), stem_of(file.path.name)))
            continue
        key = (file.path.parent, shard["stem"], int(shard["count"]))
        shards[key][int(shard["number"])] = file
    sets += [_shard_set(stem, count, found) for (_, stem, count), found in shards.items()]
    return sorted(sets, key=lambda one: (one.files[0].path.parent, one.stem))


def stem_of(name: str) -> str:
    shard = SHARD.fullmatch(name)
    return shard["stem"] if shard else re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE)


def _shard_set(stem: str, count: int, found: dict[int, GGUFFile]) -> GGUFSet:
    missing = tuple(
        f"{stem}-{number:05}-of-{count:05}.gguf"
        for number in range(1, count + 1)
        if number not in found
    )
    return GGUFSet(tuple(found[number] for number in sorted(found)), stem, missing)


def problems(model: GGUFSet) -> Iterator[Problem]:
    """What is wrong with the files of one model."""
    yield from (file.problem for file in model.files if file.problem)
    if model.missing:
        yield Problem("incomplete.missing_shard", _missing(model))
        return
    for file in model.files:
        if file.header and file.header.needed_bytes > file.header.file_bytes:
            yield _truncated(file, file.header)
    yield from _split_problems(model)


def _split_problems(model: GGUFSet) -> Iterator[Problem]:
    header = model.header
    if header is None or any(file.header is None for file in model.files):
        return
    declared = header.number("split.count") or 1
    if declared != len(model.files) and max(declared, len(model.files)) > 1:
        yield Problem(
            "incomplete.missing_shard",
            f"{model.files[0].path.name} is one of {declared} shards, and its name must end like "
            f"-00001-of-{declared:05}.gguf for the others to be found. Give all of them their "
            "original names again.",
        )
        return
    names = [tensor.name for tensor in model.tensors]
    expected = header.number("split.tensors.count")
    if len(model.files) > 1 and expected is not None and expected != len(names):
        yield Problem(
            "corrupt.index_mismatch",
            f"The shards of {model.stem} have {len(names)} tensors of {expected}: they do not "
            "belong together. Download them again.",
        )
    elif len(set(names)) != len(names):
        yield Problem(
            "corrupt.index_mismatch",
            f"The shards of {model.stem} hold the same tensor twice. Download them again.",
        )


def _missing(model: GGUFSet) -> str:
    shown = ", ".join(model.missing[:3]) + (" …" if len(model.missing) > 3 else "")
    return (
        f"{len(model.missing)} of {model.shard_count} shards are missing: {shown}. "
        "Download the missing files."
    )


def _truncated(file: GGUFFile, header: GGUFHeader) -> Problem:
    lost = header.needed_bytes - header.file_bytes
    return Problem(
        "incomplete.truncated",
        f"{file.path.name} is cut short: {lost:,} of {header.needed_bytes:,} bytes are missing. "
        "Download it again.",
    )


PROJECTOR_TYPES = ("F16", "BF16", "F32", "Q8_0")


def projector_for(model: GGUFSet, candidates: Sequence[GGUFFile], alone: bool) -> GGUFFile | None:
    """The projector that fits the model, by metadata.

    Beside an only model the width of what it projects to is enough; among several models, which
    may be equally wide, the names in the headers must agree as well.
    """
    header = model.header
    if header is None or header.architecture is None:
        return None
    fitting = [file for file in candidates if file.header and _fits(file.header, header)]
    named = [file for file in fitting if file.header and _same_name(file.header, header)]
    return min(named or (fitting if alone else []), key=_projector_rank, default=None)


def _fits(projector: GGUFHeader, model: GGUFHeader) -> bool:
    width = model.number_of_architecture("embedding_length")
    dimensions = (
        projector.number("clip.vision.projection_dim"),
        projector.number("clip.audio.projection_dim"),
    )
    stated = [n for n in dimensions if n]
    return not width or not stated or width in stated


def _same_name(one: GGUFHeader, other: GGUFHeader) -> bool:
    keys = ("general.basename", "general.name", "general.base_model.0.repo_url")
    return any((name := one.text(key)) and name == other.text(key) for key in keys)


def _projector_rank(file: GGUFFile) -> tuple[int, str]:
    """Half precision is what engines compute images in; the rest by name, to be stable."""
    assert file.header is not None
    types = {t.type.name for t in file.header.tensors if len(t.shape) > 1}
    known = [i for i, name in enumerate(PROJECTOR_TYPES) if name in types]
    return min(known, default=len(PROJECTOR_TYPES)), file.path.name
