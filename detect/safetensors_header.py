"""Read a safetensors header: bounded, checked, never a weight.

The format: an unsigned 64-bit little-endian length N, N bytes of JSON, then the data. Every
tensor names its dtype, shape and `[begin, end)` in the data, which they cover without gaps.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

from msgspec import Struct

from detect import strict_json, tensor_table
from detect.errors import HeaderError
from detect.magic import MAX_SAFETENSORS_HEADER_BYTES, SNIFFED_BYTES, refuse_impostor
from detect.regular_file import RegularFile
from detect.tensor import Column, Tensor, by_name, columns, columns_of

MAX_HEADER_BYTES = 32 << 20
"""Some 200,000 tensors in one file. The format allows three times as much, no model needs it, and
parsed it would fill the memory of the daemon."""

MAX_DIMENSION = 2**32
MAX_RANK = 8

DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


class SafetensorsHeader(Struct, frozen=True):
    """Tensors and the free `__metadata__`; `data_bytes` is the sum of the tensors."""

    columns: tuple[Column, ...]
    metadata: Mapping[str, str]
    data_bytes: int

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return by_name(self.columns)


def read_header(path: Path) -> SafetensorsHeader:
    """The header of one file.

    Raises:
        HeaderError: with a reason code: a Git-LFS pointer, empty, truncated or corrupt.
        OSError: the file cannot be read.
    """
    with RegularFile(path) as file:
        start = file.read(0, min(file.size, SNIFFED_BYTES))
        length = _length(path, start, file.size)
        content = _content(path, file, start, 8 + length)
    available = file.size - 8 - length
    return _well_formed(content, available) or _parse(path, content, available)


def _content(path: Path, file: RegularFile, start: bytes, end: int) -> bytes:
    """What follows the length, of which `start` has the beginning."""
    pieces, position = [start[8:end]], len(start)
    while position < end:
        more = file.read(position, min(end - position, 1 << 20))
        if not more:
            raise _truncated(path, "it ends inside its header")
        pieces.append(more)
        position += len(more)
    return b"".join(pieces)


def _length(path: Path, start: bytes, size: int) -> int:
    """The header's length, believed only when it fits into the file."""
    refuse_impostor(path, start)
    if size < 8:
        raise _truncated(path, f"it has only {size} bytes")
    (length,) = struct.unpack_from("<Q", start)
    if length > MAX_SAFETENSORS_HEADER_BYTES or start[8:9] not in (b"{", b""):
        raise _corrupt(path, "it does not begin like a safetensors file")
    if length > MAX_HEADER_BYTES:
        raise HeaderError(
            "corrupt.bounds",
            f"{path.name} has a header of {length:,} bytes, more than any model needs.",
        )
    if 8 + length > size:
        raise _truncated(path, f"its header alone needs {8 + length} bytes of {size}")
    return int(length)


def _well_formed(raw: bytes, available: int) -> SafetensorsHeader | None:
    """None when anything is unusual: `_parse` then looks at it closely, and says what is wrong."""
    table = tensor_table.decode(raw)
    if table is None or not table.rows:
        return None
    rows = table.rows.values()
    spans = [row.data_offsets for row in rows]
    if not _cover(spans, available) and not _cover(sorted(spans), available):
        return None
    found = columns(table.rows, rows, [end - begin for begin, end in spans])
    if not all(map(_fits, {column.tensor for column in found})):
        return None
    return SafetensorsHeader(found, table.metadata, available)


def _cover(spans: Iterable[tuple[int, int]], available: int) -> bool:
    """Each begins where the one before it ends, and the last one ends with the file."""
    offsets = list(chain.from_iterable(spans))
    between = offsets[1:-1]
    return (offsets[0], offsets[-1]) == (0, available) and between[::2] == between[1::2]


def _fits(tensor: Tensor) -> bool:
    """Its shape is possible, and as large as its bytes."""
    bits = DTYPE_BITS.get(tensor.dtype)
    if bits is None or len(tensor.shape) > MAX_RANK or not _possible(tensor.shape):
        return False
    return tensor.elements * bits == 8 * tensor.nbytes


def _possible(shape: Sequence[int]) -> bool:
    return not shape or (min(shape) >= 0 and max(shape) <= MAX_DIMENSION)


def _parse(path: Path, raw: bytes, available: int) -> SafetensorsHeader:
    try:
        value = strict_json.parse(raw, unique_keys=True)
    except ValueError:
        raise _corrupt(path, "its header is not JSON with unique names in UTF-8") from None
    if not isinstance(value, dict):
        raise _corrupt(path, "its header is not a JSON object")
    metadata = value.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _corrupt(path, "its __metadata__ is not text by name")
    tensors, spans = _tensors(path, value)
    _check_cover(path, spans, available)
    return SafetensorsHeader(columns_of(tensors), metadata, available)


Span = tuple[int, int, str]
"""Begin and end in the data, and whose they are."""
ORIGIN: Span = (0, 0, "")


FIELDS = itemgetter("dtype", "shape", "data_offsets")


def _tensors(path: Path, entries: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[Span]]:
    """Every tensor, checked. Those of one dtype and shape, which are most, are one object."""
    rows = _rows(path, entries)
    kinds = [(dtype, *shape) for dtype, shape, _ in rows]
    alike: dict[tuple[Any, ...], Tensor] = {}
    for kind, name in zip(kinds, entries, strict=True):
        if kind not in alike:
            alike[kind] = _tensor(path, name, entries[name])
    tensors = dict(zip(entries, map(alike.__getitem__, kinds), strict=True))
    spans = [(begin, end, name) for name, (_, _, (begin, end)) in zip(entries, rows, strict=True)]
    sizes = [end - begin for begin, end, _ in spans]
    if sizes != [tensor.nbytes for tensor in tensors.values()] or min(spans, default=ORIGIN)[0] < 0:
        for name, entry in entries.items():
            _tensor(path, name, entry)  # One of them raises, and says what is wrong with it.
    return tensors, spans


def _rows(path: Path, entries: Mapping[str, Any]) -> list[tuple[Any, Any, Any]]:
    """The fields of all entries: texts for dtypes, integers in shapes and offsets.

    Only then are equal shapes the same: `True` equals 1, and 2.0 equals 2.
    """
    try:
        rows = list(map(FIELDS, entries.values()))
        dtypes, shapes, offsets = zip(*rows, strict=True) if rows else ((), (), ())
        numbers = {
            *map(type, chain.from_iterable(shapes)),
            *map(type, chain.from_iterable(offsets)),
        }
        if {*map(type, dtypes)} <= {str} and numbers <= {int} and {*map(len, offsets)} <= {2}:
            return rows
    except (TypeError, KeyError):
        pass
    for name, entry in entries.items():
        _tensor(path, name, entry)  # One of them raises, and says what is wrong with it.
    raise _corrupt(path, "its entries are of unexpected types")


def _tensor(path: Path, name: str, entry: Any) -> Tensor:
    try:
        dtype, shape = entry["dtype"], tuple(entry["shape"])
        begin, end = entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise _corrupt(path, f"its entry for {name[:100]!r} is incomplete") from None
    integers = len(shape) <= MAX_RANK and all(
        type(n) is int and 0 <= n <= MAX_DIMENSION for n in shape
    )
    if not integers or type(begin) is not int or type(end) is not int or not 0 <= begin <= end:
        raise _corrupt(path, f"{name[:100]!r} has an impossible shape or place")
    bits = DTYPE_BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise _corrupt(path, f"{name[:100]!r} has the unknown dtype {str(dtype)[:20]!r}")
    if math.prod(shape) * bits != (end - begin) * 8:
        raise _corrupt(path, f"{name[:100]!r} has a shape that does not fit its bytes")
    return Tensor(dtype, shape, end - begin)


def _check_cover(path: Path, spans: list[Span], available: int) -> None:
    """Tensors follow each other without gap or overlap, up to the file's last byte."""
    spans.sort()
    position = 0
    for begin, end, name in spans:
        if begin != position:
            what = "overlaps another tensor" if begin < position else "leaves a gap before it"
            raise _corrupt(path, f"{name[:100]!r} {what}")
        position = end
    if position > available:
        missing = position - available
        raise _truncated(path, f"{missing:,} of {position:,} bytes of tensor data are missing")
    if position < available:
        raise _corrupt(path, f"{available - position:,} bytes follow after its last tensor")


def _truncated(path: Path, what: str) -> HeaderError:
    return HeaderError(
        "incomplete.truncated", f"{path.name} is cut short: {what}. Download it again."
    )


def _corrupt(path: Path, what: str) -> HeaderError:
    return HeaderError("corrupt.header", f"{path.name} is corrupt: {what}. Download it again.")
