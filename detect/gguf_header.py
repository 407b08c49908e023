"""Read a GGUF header: bounded, checked, never a weight and never a token.

The format: magic, version, counts of tensors and of metadata entries, the typed metadata, one
record per tensor (name, shape, type, offset), padding, then the data. The vocabulary is part of
the metadata and makes up almost all of it, so its arrays are stepped over: only lengths are kept.
Nothing is ever allocated because the file declares a length.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from detect.errors import HeaderError
from detect.magic import refuse_impostor
from detect.regular_file import RegularFile

MAX_ENTRIES = 100_000
MAX_TENSORS = 100_000
MAX_STRING_BYTES = 10 << 20
MAX_STRINGS_SKIPPED = 2_000_000
"""Over all arrays: the largest vocabularies with their merges have 800,000."""
MAX_KEPT_BYTES = 16 << 20
MAX_KEPT_ARRAY = 1024
MAX_ARRAY_TEXTS = 64
MAX_ARRAY_DEPTH = 4
MAX_NAME_BYTES = 63
MAX_DIMENSIONS = 4
MAX_ELEMENTS = 2**48
MIN_ENTRY_BYTES = 13
MIN_TENSOR_BYTES = 24
DEFAULT_ALIGNMENT = 32
FIRST_WINDOW_BYTES = 32 << 10
"""Enough for a header without a vocabulary; with one, the window grows."""
WINDOW_BYTES = 1 << 20
RUN = 64
"""Strings that are stepped over at once, if all are short."""
MAX_SHORT_BYTES = 64
USUAL_BYTES = 6

NEWEST_VERSION = 3
VOCABULARY = "tokenizer.ggml."


@dataclass(frozen=True, slots=True)
class TensorType:
    """`block` weights are stored in `nbytes`; `bits` per weight, scales not counted."""

    name: str
    block: int
    nbytes: int
    bits: float


TENSOR_TYPES: Mapping[int, TensorType] = {
    number: TensorType(name, block, nbytes, bits)
    for number, name, block, nbytes, bits in (
        (0, "F32", 1, 4, 32), (1, "F16", 1, 2, 16), (2, "Q4_0", 32, 18, 4), (3, "Q4_1", 32, 20, 4),
        (6, "Q5_0", 32, 22, 5), (7, "Q5_1", 32, 24, 5), (8, "Q8_0", 32, 34, 8),
        (9, "Q8_1", 32, 40, 8), (10, "Q2_K", 256, 84, 2), (11, "Q3_K", 256, 110, 3),
        (12, "Q4_K", 256, 144, 4), (13, "Q5_K", 256, 176, 5), (14, "Q6_K", 256, 210, 6),
        (15, "Q8_K", 256, 292, 8), (16, "IQ2_XXS", 256, 66, 2), (17, "IQ2_XS", 256, 74, 2),
        (18, "IQ3_XXS", 256, 98, 3), (19, "IQ1_S", 256, 50, 1), (20, "IQ4_NL", 32, 18, 4),
        (21, "IQ3_S", 256, 110, 3), (22, "IQ2_S", 256, 82, 2), (23, "IQ4_XS", 256, 136, 4),
        (24, "I8", 1, 1, 8), (25, "I16", 1, 2, 16), (26, "I32", 1, 4, 32), (27, "I64", 1, 8, 64),
        (28, "F64", 1, 8, 64), (29, "IQ1_M", 256, 56, 1), (30, "BF16", 1, 2, 16),
        (34, "TQ1_0", 256, 54, 1.6), (35, "TQ2_0", 256, 66, 2), (39, "MXFP4", 32, 17, 4),
        (40, "NVFP4", 64, 36, 4), (41, "Q1_0", 128, 18, 1), (42, "Q2_0", 64, 18, 2),
    )
}  # fmt: skip
REMOVED_TYPES = frozenset({4, 5, 31, 32, 33, 36, 37, 38})

U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")
SCALARS: Mapping[int, struct.Struct] = {
    0: struct.Struct("<B"), 1: struct.Struct("<b"), 2: struct.Struct("<H"),
    3: struct.Struct("<h"), 4: U32, 5: struct.Struct("<i"), 6: struct.Struct("<f"),
    7: struct.Struct("<?"), 10: U64, 11: struct.Struct("<q"), 12: struct.Struct("<d"),
}  # fmt: skip
STRING, ARRAY = 8, 9
RECORDS = tuple(struct.Struct(f"<{rank}QIQ") for rank in range(MAX_DIMENSIONS + 1))
"""Of a tensor after its name and rank, by rank: shape, type and offset."""


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    name: str
    shape: tuple[int, ...]
    type: TensorType
    nbytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class GGUFHeader:
    """`metadata` has the scalars, the texts and the short arrays of numbers; every array is in
    `array_lengths`. `needed_bytes` is where the last tensor ends: a smaller file is cut short.
    """

    version: int
    metadata: Mapping[str, Any] = field(default_factory=dict)
    array_lengths: Mapping[str, int] = field(default_factory=dict)
    tensors: tuple[GGUFTensor, ...] = ()
    needed_bytes: int = 0
    file_bytes: int = 0

    @property
    def architecture(self) -> str | None:
        return self.text("general.architecture")

    def text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> int | None:
        """A whole number that is not negative, else None."""
        value = self.metadata.get(key)
        return value if type(value) is int and value >= 0 else None

    def of_architecture(self, key: str) -> Any:
        """The value of `{architecture}.{key}`."""
        return self.metadata.get(f"{self.architecture}.{key}")

    def number_of_architecture(self, key: str) -> int | None:
        return self.number(f"{self.architecture}.{key}")


def read_header(path: Path) -> GGUFHeader:
    """The header of one file.

    Raises:
        HeaderError: with a reason code: incomplete, corrupt, out of bounds or unsupported.
        OSError: the file cannot be read.
    """
    with RegularFile(path) as file:
        return _Parser(path, file).parse()


class _Window:
    """One forward pass over a file through a small buffer.

    Not a memory map: a file that is truncated while it is mapped would kill the process.
    """

    def __init__(self, path: Path, file: RegularFile) -> None:
        self.path = path
        self.size = file.size
        self._file = file
        self._data = b""
        self._start = 0
        self._at = 0
        self._ahead = FIRST_WINDOW_BYTES

    @property
    def position(self) -> int:
        return self._start + self._at

    def take(self, count: int) -> bytes:
        """`count` bytes, which must be a bounded number."""
        if self._at + count > len(self._data):
            self._refill(count)
        begin = self._at
        self._at += count
        return self._data[begin : self._at]

    def number(self, kind: struct.Struct) -> Any:
        return self.numbers(kind)[0]

    def numbers(self, kind: struct.Struct) -> tuple[Any, ...]:
        if self._at + kind.size > len(self._data):
            self._refill(kind.size)
        values = kind.unpack_from(self._data, self._at)
        self._at += kind.size
        return values

    def skip(self, count: int) -> None:
        if count > self.size - self.position:
            raise self.truncated()
        self._at += count

    def skip_strings(self, count: int) -> None:
        while count:
            count = self._walk_strings(count)
            if not count:
                return
            if self._at - len(self._data) > MAX_STRING_BYTES:
                raise _bounds(self.path, "it declares a text of more than 10 MiB")
            self._refill(U64.size)

    def _walk_strings(self, count: int) -> int:
        """Step over strings up to the end of the buffer; returns how many are left.

        The hot loop of the module: vocabularies have hundreds of thousands, most of them short.
        """
        match = _short_strings().match
        while count >= RUN:
            if run := match(self._data, self._at):
                self._at = run.end()
            elif left := self._step_over(RUN):
                return count - RUN + left
            count -= RUN
        return self._step_over(count)

    def _step_over(self, count: int) -> int:
        """The same, one by one."""
        data, at, unpack = self._data, self._at, U64.unpack_from
        done = 0
        try:
            for done in range(count):  # noqa: B007
                at += 8 + unpack(data, at)[0]
        except (struct.error, OverflowError):
            self._at = at
            return count - done
        self._at = at
        return 0

    def _refill(self, wanted: int) -> None:
        """Continue the buffer at the current position, with at least `wanted` bytes."""
        position = self.position
        if wanted > self.size - position:
            raise self.truncated()
        data = self._file.read(position, max(wanted, self._ahead))
        self._ahead = min(2 * self._ahead, WINDOW_BYTES)
        while len(data) < wanted:
            if not (more := self._file.read(position + len(data), wanted - len(data))):
                raise self.truncated()
            data += more
        self._data, self._start, self._at = data, position, 0

    def truncated(self) -> HeaderError:
        return HeaderError(
            "incomplete.truncated",
            f"{self.path.name} is cut short: it ends inside its header. Download it again.",
        )


class _Parser:
    """One file from its first byte to the end of its header."""

    def __init__(self, path: Path, file: RegularFile) -> None:
        self._path = path
        self._window = _Window(path, file)
        self._kept_bytes = 0
        self._strings = 0
        self._lengths: dict[str, int] = {}

    def parse(self) -> GGUFHeader:
        version = self._version()
        tensor_count, entry_count = self._window.number(U64), self._window.number(U64)
        self._check_counts(tensor_count, entry_count)
        metadata = self._metadata(entry_count)
        alignment = self._alignment(metadata)
        tensors, data_bytes = self._tensors(tensor_count, alignment)
        data_start = _padded(self._window.position, alignment)
        return GGUFHeader(
            version=version,
            metadata=metadata,
            array_lengths=self._lengths,
            tensors=tensors,
            needed_bytes=data_start + data_bytes if tensors else self._window.position,
            file_bytes=self._window.size,
        )

    def _version(self) -> int:
        start = self._window.take(min(24, self._window.size))
        refuse_impostor(self._path, start)
        if start[:4] == b"FUGG":
            raise self._big_endian()
        if start[:4] != b"GGUF":
            raise _corrupt(self._path, "it does not begin like a GGUF file")
        if len(start) < 24:
            raise self._window.truncated()
        (version,) = U32.unpack_from(start, 4)
        if version & 0xFFFF == 0 and version:
            raise self._big_endian()
        if version > NEWEST_VERSION:
            raise self._unsupported_version(
                version, "It was made by a newer llama.cpp; look for one in version 3."
            )
        if version < 2:
            raise self._unsupported_version(
                version, "No current engine reads it; download a newer conversion."
            )
        self._window.skip(8 - self._window.position)
        return int(version)

    def _check_counts(self, tensor_count: int, entry_count: int) -> None:
        if tensor_count > MAX_TENSORS or entry_count > MAX_ENTRIES:
            what = f"{tensor_count} tensors and {entry_count} metadata entries"
            raise _bounds(self._path, f"it declares {what}")
        needed = tensor_count * MIN_TENSOR_BYTES + entry_count * MIN_ENTRY_BYTES
        if needed > self._window.size - self._window.position:
            raise self._window.truncated()

    def _metadata(self, count: int) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        seen: set[str] = set()
        for _ in range(count):
            key = self._name(MAX_STRING_BYTES)
            if key in seen:
                raise _corrupt(self._path, f"its metadata has {key[:100]!r} twice")
            seen.add(key)
            value = self._value(self._window.number(U32), key, 0)
            if value is not None:
                metadata[key] = value
        return metadata

    def _value(self, kind: int, key: str, depth: int) -> Any:
        """The value, or None for one that is stepped over."""
        if kind == STRING:
            return self._text()
        if kind == ARRAY:
            return self._array(key, depth)
        if (scalar := SCALARS.get(kind)) is None:
            raise _corrupt(self._path, f"{key[:100]!r} has the unknown type {kind}")
        return self._window.number(scalar)

    def _array(self, key: str, depth: int) -> list[Any] | None:
        if depth >= MAX_ARRAY_DEPTH:
            raise _bounds(self._path, f"{key[:100]!r} nests arrays too deeply")
        kind, count = self._window.number(U32), self._window.number(U64)
        if depth == 0:
            self._lengths[key] = count
        if kind == STRING:
            return self._strings_array(key, count)
        if kind == ARRAY:
            self._nested_array(key, count, depth)
            return None
        if (scalar := SCALARS.get(kind)) is None:
            raise _corrupt(self._path, f"{key[:100]!r} has the unknown type {kind}")
        if count > MAX_KEPT_ARRAY or key.startswith(VOCABULARY):
            self._window.skip(count * scalar.size)
            return None
        return [self._window.number(scalar) for _ in range(count)]

    def _strings_array(self, key: str, count: int) -> list[str] | None:
        self._strings += count
        if self._strings > MAX_STRINGS_SKIPPED:
            raise _bounds(self._path, f"it declares an array of {count} texts")
        if count > MAX_ARRAY_TEXTS or key.startswith(VOCABULARY):
            self._window.skip_strings(count)
            return None
        return [self._text() for _ in range(count)]

    def _nested_array(self, key: str, count: int, depth: int) -> None:
        self._strings += count
        if self._strings > MAX_STRINGS_SKIPPED:
            raise _bounds(self._path, f"{key[:100]!r} declares {count} arrays")
        for _ in range(count):
            self._array(key, depth + 1)

    def _text(self) -> str:
        return self._bytes(MAX_STRING_BYTES).decode("utf-8", errors="replace")

    def _name(self, limit: int) -> str:
        try:
            return self._bytes(limit).decode("utf-8")
        except UnicodeDecodeError:
            raise _corrupt(self._path, "one of its names is not text") from None

    def _bytes(self, limit: int) -> bytes:
        length = self._window.number(U64)
        self._kept_bytes += length
        if length > limit or self._kept_bytes > MAX_KEPT_BYTES:
            raise _bounds(self._path, f"it declares a text of {length} bytes")
        return self._window.take(length)

    def _alignment(self, metadata: Mapping[str, Any]) -> int:
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        power_of_two = type(alignment) is int and alignment > 0 and not alignment & (alignment - 1)
        if not power_of_two or alignment > 1 << 20:
            raise _bounds(self._path, f"its alignment is {str(alignment)[:20]!r}")
        return int(alignment)

    def _tensors(self, count: int, alignment: int) -> tuple[tuple[GGUFTensor, ...], int]:
        """The tensors, and the length of their data, which they cover one after the other."""
        tensors: list[GGUFTensor] = []
        names: set[str] = set()
        expected = end = 0
        for _ in range(count):
            tensor, offset = self._tensor()
            if tensor.name in names:
                raise _corrupt(self._path, f"it has {tensor.name!r} twice")
            if offset != expected:
                raise _bounds(self._path, f"{tensor.name!r} is not where it should be")
            names.add(tensor.name)
            tensors.append(tensor)
            end = offset + tensor.nbytes
            expected = _padded(end, alignment)
        return tuple(tensors), end

    def _tensor(self) -> tuple[GGUFTensor, int]:
        """One tensor, and where it says that its data begins."""
        name = self._name(MAX_NAME_BYTES)
        rank = self._window.number(U32)
        if rank > MAX_DIMENSIONS:
            raise _bounds(self._path, f"{name!r} has {rank} dimensions")
        *sizes, type_number, offset = self._window.numbers(RECORDS[rank])
        shape = tuple(sizes)
        if math.prod(shape) > MAX_ELEMENTS or max(shape, default=0) > MAX_ELEMENTS:
            raise _bounds(self._path, f"{name!r} has the impossible shape {list(shape)}")
        kind = self._type(name, type_number)
        if shape and shape[0] % kind.block:
            raise _corrupt(self._path, f"{name!r} has rows that are no whole {kind.name} blocks")
        nbytes = math.prod(shape) // kind.block * kind.nbytes
        return GGUFTensor(name, shape, kind, nbytes), offset

    def _type(self, name: str, number: int) -> TensorType:
        if (kind := TENSOR_TYPES.get(number)) is not None:
            return kind
        why = (
            "which llama.cpp has removed. Download a newer conversion."
            if number in REMOVED_TYPES
            else "which only a newer llama.cpp knows. Look for another quantisation."
        )
        raise HeaderError(
            "unsupported.gguf_type",
            f"{self._path.name} stores {name!r} in type {number}, {why}",
        )

    def _unsupported_version(self, version: int, advice: str) -> HeaderError:
        what = f"{self._path.name} is GGUF version {version}; engines read 2 and 3. {advice}"
        return HeaderError("unsupported.gguf_version", what)

    def _big_endian(self) -> HeaderError:
        return HeaderError(
            "unsupported.endianness",
            f"{self._path.name} was made for big-endian machines such as s390x. "
            "Download the usual, little-endian file.",
        )


@cache
def _short_strings() -> re.Pattern[bytes]:
    """`RUN` strings with their lengths, walked in half the time that Python takes for it.

    One branch for each length, the usual ones first; the first byte tells which one it is.
    """
    lengths = sorted(range(MAX_SHORT_BYTES + 1), key=lambda length: abs(length - USUAL_BYTES))
    branches = (re.escape(U64.pack(length)[:1]) + rb"\0{7}.{%d}" % length for length in lengths)
    return re.compile(b"(?:%b){%d}+" % (b"|".join(branches), RUN), re.DOTALL)


def _padded(position: int, alignment: int) -> int:
    return (position + alignment - 1) // alignment * alignment


def _bounds(path: Path, what: str) -> HeaderError:
    return HeaderError("corrupt.bounds", f"{path.name} is corrupt: {what}. Download it again.")


def _corrupt(path: Path, what: str) -> HeaderError:
    return HeaderError("corrupt.header", f"{path.name} is corrupt: {what}. Download it again.")
