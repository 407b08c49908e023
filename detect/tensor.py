"""Tensors as headers describe them, and those of them that are alike. Pure.

They are structs, because a model is made of dozens, and a frozen dataclass takes several times as
long to make.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct


class Tensor(Struct, frozen=True, gc=False):
    dtype: str
    shape: tuple[int, ...]
    nbytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


class Column(Struct, frozen=True, gc=False):
    """Equal tensors whose names differ in nothing but numbers.

    A network has hundreds of tensors and some twenty of these, and what is asked about tensors
    has one answer for all of a column.
    """

    names: Sequence[str]
    tensor: Tensor

    @property
    def nbytes(self) -> int:
        return len(self.names) * self.tensor.nbytes


class Described(Protocol):
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


ZEROED = bytes.maketrans(b"123456789", b"000000000")
ZEROS = b"00"

Latest = tuple[str, tuple[int, ...], int | None, list[str]]
NONE_YET: Latest = ("", (), None, [])


def columns(
    names: Collection[str], described: Iterable[Described], sizes: Iterable[int]
) -> tuple[Column, ...]:
    """In the order of their first names. `sizes` are in bytes."""
    found: dict[tuple[bytes, str, tuple[int, ...], int], list[str]] = {}
    latest: dict[bytes, Latest] = {}
    for zeroed, name, one, size in zip(_zeroed(names), names, described, sizes, strict=True):
        # Most are as the one before them, and comparing is faster than hashing.
        dtype, shape, nbytes, alike = latest.get(zeroed, NONE_YET)
        if size != nbytes or one.shape != shape or one.dtype != dtype:
            alike = found.setdefault((_shortened(zeroed), one.dtype, one.shape, size), [])
            latest[zeroed] = (one.dtype, one.shape, size, alike)
        alike.append(name)
    return tuple(
        Column(alike, Tensor(dtype, shape, nbytes))
        for (_, dtype, shape, nbytes), alike in found.items()
    )


def columns_of(tensors: Mapping[str, Tensor]) -> tuple[Column, ...]:
    return columns(tensors, tensors.values(), [tensor.nbytes for tensor in tensors.values()])


def by_name(columns: Iterable[Column]) -> dict[str, Tensor]:
    return {name: column.tensor for column in columns for name in column.names}


def _zeroed(names: Collection[str]) -> list[bytes]:
    """All names with zeros for digits; at once, unless a name has what goes between them."""
    zeroed = "\0".join(names).encode().translate(ZEROED).split(b"\0")
    if len(zeroed) == len(names):
        return zeroed
    return [name.encode().translate(ZEROED) for name in names]


def numberless(name: str) -> bytes:
    """With a zero for each number, however long."""
    return _shortened(name.encode().translate(ZEROED))


def _shortened(zeroed: bytes) -> bytes:
    while ZEROS in zeroed:
        zeroed = zeroed.replace(ZEROS, b"0")
    return zeroed
