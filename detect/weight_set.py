"""Which files of a folder make up one model: shard sets, by name and by index. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct

MAX_SHARDS = 10_000

SHARD = re.compile(r"(?P<stem>.+?)[-_](?P<number>\d{5,6})-of-(?P<count>\d{5,6})\.safetensors", re.A)
PREFERRED_STEMS = ("model", "pytorch_model", "consolidated")

NOT_THE_MODEL = re.compile(
    r"(adapter|.*adapters|optimizer|training_args|rng_state|scheduler|dtypes|"
    r"diffusion_pytorch|embeddings|mm_projector|vae|t5xxl).*",
    re.I,
)
"""Safetensors that lie beside a model without being it."""


class WeightSet(Struct, frozen=True):
    """One model's files in order; `missing` are known by name; `rivals` are other complete sets.

    `from_index` tells that the index decided.
    """

    files: tuple[str, ...]
    missing: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()
    from_index: bool = False

    @property
    def stem(self) -> str:
        name = (self.files or self.missing)[0]
        shard = SHARD.fullmatch(name)
        return shard["stem"] if shard else name.removesuffix(".safetensors")


def choose(names: Collection[str], weight_map: Mapping[str, str] | None) -> WeightSet | None:
    """The set that engines load as "the model", or None when there is none.

    The index decides, as in every engine but MLX; without one the usual names go first.
    """
    sets = group(names)
    if weight_map is not None:
        wanted = tuple(sorted(dict.fromkeys(weight_map.values())))[:MAX_SHARDS]
        present = tuple(name for name in wanted if name in names)
        if present or not sets:
            missing = tuple(name for name in wanted if name not in names)
            return WeightSet(present, missing, _rivals(sets, wanted), from_index=True)
    if not sets:
        return None
    best = min(sets, key=_rank)
    return WeightSet(best.files, best.missing, _rivals(sets, best.files))


def group(names: Iterable[str]) -> list[WeightSet]:
    """Every set among these names: the shards of one stem together, others each on its own."""
    shards: defaultdict[tuple[str, int, int], dict[int, str]] = defaultdict(dict)
    sets: list[WeightSet] = []
    for name in sorted(names):
        if NOT_THE_MODEL.fullmatch(name):
            continue
        if (shard := SHARD.fullmatch(name)) is None or not 0 < int(shard["count"]) <= MAX_SHARDS:
            sets.append(WeightSet((name,)))
            continue
        key = (shard["stem"], int(shard["count"]), len(shard["count"]))
        shards[key][int(shard["number"])] = name
    for (_, count, digits), found in shards.items():
        sets.append(_shard_set(count, digits, found))
    return sets


def _shard_set(count: int, digits: int, found: Mapping[int, str]) -> WeightSet:
    """Numbered from 1, or by some tools from 0."""
    first = 0 if 0 in found else 1
    example = next(iter(found.values()))
    head = example[: -len(f"{count:0{digits}}-of-{count:0{digits}}.safetensors")]
    missing = tuple(
        f"{head}{number:0{digits}}-of-{count:0{digits}}.safetensors"
        for number in range(first, first + count)
        if number not in found
    )
    return WeightSet(tuple(found[number] for number in sorted(found)), missing)


def _rank(candidate: WeightSet) -> tuple[bool, int, int, str]:
    """Complete ones first, then by the usual stems, then the set with most files."""
    stem = candidate.stem
    known = PREFERRED_STEMS.index(stem) if stem in PREFERRED_STEMS else len(PREFERRED_STEMS)
    return bool(candidate.missing), known, -len(candidate.files), stem


def _rivals(sets: Iterable[WeightSet], chosen: Collection[str]) -> tuple[str, ...]:
    """Other files that MLX would load along with the model: it takes all `model*.safetensors`."""
    others = (name for one in sets for name in one.files if name not in chosen)
    return tuple(name for name in others if name.startswith("model"))
