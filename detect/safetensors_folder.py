"""Read the safetensors headers of one model, and say what is wrong with the files together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path

from msgspec import Struct

from detect.errors import HeaderError
from detect.facts import SafetensorsFacts
from detect.hf_config import INDEX, Configs
from detect.listing import Listing
from detect.safetensors_header import SafetensorsHeader, read_header
from detect.tensor import Column, Tensor, by_name, columns_of
from detect.types import Problem
from detect.weight_set import WeightSet


def read(listing: Listing, chosen: WeightSet, configs: Configs) -> SafetensorsFacts:
    """Every header of a set, merged."""
    present = [listing.files[name] for name in chosen.files if name in listing.files]
    missing = [*chosen.missing, *(n for n in chosen.files if n not in listing.files)]
    headers: list[SafetensorsHeader] = []
    problems: list[Problem] = []
    for entry in present:
        try:
            headers.append(read_header(entry.path))
        except HeaderError as error:
            problems.append(Problem(error.code, error.message))
        except OSError as error:
            problems.append(unreadable(entry.path, error))
    merged = _merged(headers)
    if missing:
        problems.insert(0, _missing_shards(missing, len(present) + len(missing)))
    elif not problems:
        problems += _set_problems(chosen, configs, merged)
    return SafetensorsFacts(
        path=listing.folder,
        files=tuple(entry.path for entry in present),
        columns=merged.columns,
        metadata={key: value for header in headers for key, value in header.metadata.items()},
        configs=configs,
        beside=frozenset([*listing.files, *listing.folders]) - set(chosen.files),
        problems=(*problems, *configs.problems),
    )


class _Merged(Struct, frozen=True):
    """All tensors of a set; `twice` are names that two files have, of which the last counts."""

    columns: tuple[Column, ...]
    twice: Collection[str] = ()


def _merged(headers: Sequence[SafetensorsHeader]) -> _Merged:
    if len(headers) == 1:
        return _Merged(headers[0].columns)
    tensors: dict[str, Tensor] = {}
    twice: list[str] = []
    for own in (header.tensors for header in headers):
        twice += tensors.keys() & own.keys()
        tensors.update(own)
    together = tuple(chain.from_iterable(header.columns for header in headers))
    return _Merged(columns_of(tensors) if twice else together, twice)


def _missing_shards(missing: Sequence[str], total: int) -> Problem:
    shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
    return Problem(
        "incomplete.missing_shard",
        f"{len(missing)} of {total} weight files are missing: {shown}. Download them again.",
    )


def _set_problems(chosen: WeightSet, configs: Configs, merged: _Merged) -> Iterator[Problem]:
    """What is wrong with complete files that do not go together."""
    if merged.twice:
        yield Problem(
            "corrupt.index_mismatch",
            f"Two weight files both hold {min(merged.twice)[:100]!r}. Download them again.",
        )
    names = by_name(merged.columns) if configs.weight_map else {}
    lost = [name for name in configs.weight_map or () if name not in names]
    if lost and chosen.from_index:
        yield Problem(
            "corrupt.index_mismatch",
            f"{INDEX} lists {len(lost)} tensors that no file has, such as {min(lost)[:100]!r}. "
            "Download the model again.",
        )
    if chosen.rivals:
        yield Problem(
            "conflict.layout",
            f"Beside the model lie weights that MLX would load along with it "
            f"({', '.join(chosen.rivals[:3])}). Remove the set that is not needed.",
        )


def unreadable(path: Path, error: OSError) -> Problem:
    return Problem(
        "incomplete.partial",
        f"{path.name} cannot be read: {error.strerror or error}.",
    )
