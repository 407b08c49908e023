"""Frozen facts as JSON, and back with every type checked.

What comes back may have been written by anybody: a value of a wrong type, or a path that is not
among those expected, makes the whole record invalid.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeGuard, TypeVar, cast, get_args, get_origin, get_type_hints

from msgspec import Struct

Fact = TypeVar("Fact")

Paths = Mapping[str, Path]
"""The paths that a record may name."""

Unpack = Callable[[Any, Paths], Any]


def pack(value: Any) -> Any:
    """What `json` can write: a struct is a list of its name and its fields."""
    if isinstance(value, Struct):
        fields = (getattr(value, name) for name in value.__struct_fields__)
        return [type(value).__name__, *map(pack, fields)]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | frozenset):
        return [pack(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def unpack(kind: type[Fact], value: Any, paths: Paths) -> Fact:
    """The struct that was packed.

    Raises:
        ValueError: it is not one of that kind, or names another path.
    """
    try:
        fact = _unpacker(cast(Hashable, kind))(value, paths)
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a {kind.__name__}") from error
    assert isinstance(fact, kind)
    return fact


@cache
def _unpacker(hint: Any) -> Unpack:
    if hint in SCALARS:
        return _scalar(SCALARS[hint])
    if _is_struct(hint):
        return _struct(hint)
    if get_origin(hint) in CONTAINERS:
        return CONTAINERS[get_origin(hint)](*get_args(hint))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return lambda value, paths: hint(value)
    return SPECIAL[hint]


def _scalar(types: frozenset[type]) -> Unpack:
    def unpack_scalar(value: Any, paths: Paths) -> Any:
        if type(value) not in types:
            raise ValueError("a value of another type")
        return value

    return unpack_scalar


def _is_struct(hint: Any) -> TypeGuard[type[Struct]]:
    return isinstance(hint, type) and issubclass(hint, Struct)


def _struct(kind: type[Struct]) -> Unpack:
    hints = get_type_hints(kind)
    names = kind.__struct_fields__
    unpackers = [_unpacker(hints[name]) for name in names]

    def unpack_struct(value: Any, paths: Paths) -> Any:
        if type(value) is not list or len(value) != len(names) + 1 or value[0] != kind.__name__:
            raise ValueError(f"not a {kind.__name__}")
        values = [part(item, paths) for part, item in zip(unpackers, value[1:], strict=True)]
        return kind(**dict(zip(names, values, strict=True)))

    return unpack_struct


def _union(*hints: type) -> Unpack:
    """One of several structs, which say who they are; or one other thing, or nothing."""
    some = [hint for hint in hints if hint is not NoneType]
    kinds = {hint.__name__: _unpacker(hint) for hint in some if _is_struct(hint)}
    others = [_unpacker(hint) for hint in some if not _is_struct(hint)]

    def unpack_union(value: Any, paths: Paths) -> Any:
        if value is None:
            return None
        part = others[0] if others else kinds[value[0]]
        return part(value, paths)

    return unpack_union


def _tuple(*hints: Any) -> Unpack:
    if hints[-1] is Ellipsis:
        items = _items(hints[0])
        return lambda value, paths: tuple(items(value, paths))
    unpackers = [_unpacker(hint) for hint in hints]

    def unpack_tuple(value: Any, paths: Paths) -> Any:
        pairs = zip(unpackers, _list(value), strict=True)
        return tuple(part(item, paths) for part, item in pairs)

    return unpack_tuple


def _frozenset(hint: Any) -> Unpack:
    items = _items(hint)
    return lambda value, paths: frozenset(items(value, paths))


def _items(hint: Any) -> Unpack:
    part = _unpacker(hint)
    return lambda value, paths: [part(item, paths) for item in _list(value)]


def _mapping(key: Any, hint: Any) -> Unpack:
    """Keys are text; in JSON they cannot be anything else."""
    part = _unpacker(hint)

    def unpack_mapping(value: Any, paths: Paths) -> Any:
        if type(value) is not dict:
            raise ValueError("not a mapping")
        return value if hint is Any else {name: part(item, paths) for name, item in value.items()}

    return unpack_mapping


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise ValueError("not a list")
    return value


SCALARS: Mapping[Any, frozenset[type]] = {
    str: frozenset({str}),
    int: frozenset({int}),
    bool: frozenset({bool}),
    float: frozenset({int, float}),
}
SPECIAL: Mapping[Any, Unpack] = {
    Any: lambda value, paths: value,
    Path: lambda value, paths: paths[value],
}
CONTAINERS: Mapping[Any, Callable[..., Unpack]] = {
    UnionType: _union,
    tuple: _tuple,
    frozenset: _frozenset,
    Mapping: _mapping,
}
