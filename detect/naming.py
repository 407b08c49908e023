"""The ids of models, from where they lie. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, count
from typing import Any

from msgspec import Struct, structs

from detect import quant_label
from detect.types import ModelInfo, WeightFormat

DEFAULT_LABELS = ("Q4_K_M", "Q8_0")
"""What the name of a folder with several quantisations means, as in llama.cpp."""

Identity = frozenset[tuple[int, int]]


class Found(Struct, frozen=True, kw_only=True):
    """A model before it has an id.

    `stem` is the file's own name, of use where one folder holds several models; `identity` are
    the devices and inodes of its files, equal for one model reached in two ways.
    """

    info: ModelInfo
    stem: str = ""
    identity: Identity = frozenset()
    root: str = ""

    def with_info(self, **changes: Any) -> Found:
        """The same with other fields of `info`."""
        return structs.replace(self, info=structs.replace(self.info, **changes))


def in_place(name: str, found: Sequence[Found]) -> list[Found]:
    """The models of one folder, named after the folder and told apart by quantisation or file."""
    if not name:
        return [_with_id(one, one.stem or one.info.folder.name) for one in found]
    if len(found) == 1:
        return [_with_id(found[0], name)]
    ggufs = [one for one in found if one.info.format is WeightFormat.GGUF and one.stem]
    labels = Counter(_label(one) for one in ggufs)
    prefixes = {quant_label.without_label(one.stem).casefold() for one in ggufs}
    variants = len(prefixes) == 1 and max(labels.values(), default=0) == 1
    named = [_with_id(one, _id_in(name, one, ggufs, variants)) for one in found]
    return _with_default(name, named) if variants and len(ggufs) == len(found) else named


def _id_in(name: str, one: Found, ggufs: Sequence[Found], variants: bool) -> str:
    if not any(one is gguf for gguf in ggufs):
        return f"{name}/{one.stem}" if one.stem else name
    return f"{name}:{_label(one)}" if variants else f"{name}/{one.stem}"


def _label(one: Found) -> str:
    quantization = one.info.quantization
    mode = quantization.mode if quantization else None
    return quant_label.of_name(one.stem) or mode or one.stem


def _with_default(name: str, named: list[Found]) -> list[Found]:
    """The folder's own name goes to its most usual quantisation that is not broken."""
    ranked = sorted(named, key=_default_rank)
    return [
        one.with_info(aliases=(*one.info.aliases, name)) if one is ranked[0] else one
        for one in named
    ]


def _default_rank(one: Found) -> tuple[bool, int, str]:
    label = _label(one)
    usual = DEFAULT_LABELS.index(label) if label in DEFAULT_LABELS else len(DEFAULT_LABELS)
    return one.info.broken, usual, one.info.id


def _with_id(one: Found, name: str) -> Found:
    return one if one.info.id == name else one.with_info(id=name)


def across_places(found: Sequence[Found]) -> tuple[ModelInfo, ...]:
    """All models, each once and under an id of its own, with shorter names as aliases."""
    return _with_short_names(_distinct(_merged(found)))


def _merged(found: Sequence[Found]) -> list[Found]:
    """One model reached twice keeps the first id; the others become aliases."""
    kept: dict[Identity, Found] = {}
    alone: list[Found] = []
    for one in found:
        first = kept.get(one.identity) if one.identity else None
        if first is None:
            kept[one.identity or frozenset({(-1, len(alone))})] = one
            alone.append(one)
        else:
            names = dict.fromkeys([*first.info.aliases, one.info.id, *one.info.aliases])
            names.pop(first.info.id, None)
            kept[one.identity] = first.with_info(aliases=tuple(names))
    return [kept[one.identity] if one.identity else one for one in alone]


def _distinct(found: Sequence[Found]) -> list[Found]:
    """Of one id, the first that may be of use keeps it; the others say which models folder they
    are from."""
    taken: set[str] = set()
    named: dict[int, Found] = {}
    for place in sorted(range(len(found)), key=lambda place: _useless(found[place].info)):
        one = found[place]
        free = next(name for name in _ids(one) if name not in taken)
        taken.add(free)
        named[place] = _with_id(one, free)
    return [named[place] for place in range(len(found))]


def _ids(one: Found) -> Iterator[str]:
    yield one.info.id
    yield f"{one.info.id}@{one.root}"
    yield from (f"{one.info.id}@{one.root}-{number}" for number in count(2))


def _useless(info: ModelInfo) -> bool:
    """Whatever engine is asked, by what the files are."""
    return info.broken or any(p.code.startswith("unsupported.") for p in info.problems)


def _with_short_names(found: Sequence[Found]) -> tuple[ModelInfo, ...]:
    """`name` for `org/name`, and a GGUF file's own name, unless it would mean two models."""
    taken = {name for one in found for name in (one.info.id, *one.info.aliases)}
    short = [_short_names(one) - taken for one in found]
    counts = Counter(chain.from_iterable(short))
    return tuple(
        _with_aliases(one.info, sorted(name for name in names if counts[name] == 1))
        for one, names in zip(found, short, strict=True)
    )


def _with_aliases(info: ModelInfo, names: Sequence[str]) -> ModelInfo:
    return structs.replace(info, aliases=(*info.aliases, *names)) if names else info


def _short_names(one: Found) -> set[str]:
    own = {one.stem} if one.stem and one.info.format is WeightFormat.GGUF else set()
    return own | {name.rpartition("/")[2] for name in (one.info.id, *one.info.aliases)}
