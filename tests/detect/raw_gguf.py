"""GGUF files written byte by byte, so that every byte of them can be wrong."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detect.gguf_header import TENSOR_TYPES

F32, F16, Q8_0, Q4_K = 0, 1, 8, 12
U8, I8, U16, I16, U32, I32, FLOAT32, BOOL, STRING, ARRAY, U64, I64, FLOAT64 = range(13)

FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", FLOAT32: "f", BOOL: "?",
           U64: "Q", I64: "q", FLOAT64: "d"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Typed:
    """A value of a given GGUF type; arrays hold values of `item` type."""

    type: int
    value: Any
    item: int = 0


@dataclass(kw_only=True)
class RawGGUF:
    """Everything that is written, and what a test may change about it."""

    metadata: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, tuple[int, Sequence[int]]] = field(default_factory=dict)
    magic: bytes = b"GGUF"
    version: int = 3
    tensor_count: int | None = None
    entry_count: int | None = None
    alignment: int = 32
    offsets: Mapping[str, int] = field(default_factory=dict)
    data: bool = True

    def encode(self) -> bytes:
        head = self.magic + struct.pack(
            "<IQQ",
            self.version,
            len(self.tensors) if self.tensor_count is None else self.tensor_count,
            len(self.metadata) if self.entry_count is None else self.entry_count,
        )
        for key, value in self.metadata.items():
            head += text(key) + entry(value)
        records, data_bytes = self._records()
        head += records
        if self.tensors:
            head += bytes(-len(head) % self.alignment)
        return head + bytes(data_bytes if self.data else 0)

    def write(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.encode())
        return path

    def _records(self) -> tuple[bytes, int]:
        records, end = b"", 0
        for name, (kind, shape) in self.tensors.items():
            offset = end + -end % self.alignment
            end = offset + _size(kind, shape)
            records += text(name) + struct.pack("<I", len(shape))
            records += b"".join(struct.pack("<Q", n) for n in shape)
            records += struct.pack("<IQ", kind, self.offsets.get(name, offset) % 2**64)
        return records, end


def _size(kind: int, shape: Sequence[int]) -> int:
    known = TENSOR_TYPES.get(kind)
    elements = 1
    for size in shape:
        elements *= size
    return elements // known.block * known.nbytes if known else elements


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def entry(value: Any) -> bytes:
    """The type and the value; Python's types stand for the usual ones."""
    typed = _typed(value)
    return struct.pack("<I", typed.type) + _payload(typed)


def _typed(value: Any) -> Typed:
    if isinstance(value, Typed):
        return value
    if isinstance(value, bool):
        return Typed(BOOL, value)
    if isinstance(value, int):
        return Typed(U32, value)
    if isinstance(value, float):
        return Typed(FLOAT32, value)
    if isinstance(value, list):
        return Typed(ARRAY, value, STRING if value and isinstance(value[0], str) else I32)
    return Typed(STRING, value)


def _payload(typed: Typed) -> bytes:
    if typed.type == STRING:
        return text(typed.value)
    if typed.type == ARRAY:
        head = struct.pack("<IQ", typed.item, len(typed.value))
        return head + b"".join(_payload(_item(v, typed.item)) for v in typed.value)
    return struct.pack("<" + FORMATS[typed.type], typed.value)


def _item(value: Any, kind: int) -> Typed:
    return value if isinstance(value, Typed) else Typed(kind, value)


TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


def llama(architecture: str = "llama", **changes: Any) -> dict[str, Any]:
    """The metadata of a small model; `changes` go under the architecture's name."""
    facts = {
        "context_length": 2048,
        "embedding_length": 256,
        "block_count": 2,
        "attention.head_count": 8,
        "attention.head_count_kv": 2,
        **changes,
    }
    return {
        "general.architecture": architecture,
        "general.type": "model",
        **{f"{architecture}.{key}": value for key, value in facts.items()},
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": [f"t{i}" for i in range(300)],
        "tokenizer.chat_template": TEMPLATE,
    }


def weights(kind: int = Q4_K) -> dict[str, tuple[int, Sequence[int]]]:
    tensors: dict[str, tuple[int, Sequence[int]]] = {"token_embd.weight": (kind, (256, 300))}
    for number in range(2):
        tensors[f"blk.{number}.attn_norm.weight"] = (F32, (256,))
        tensors[f"blk.{number}.attn_q.weight"] = (kind, (256, 256))
        tensors[f"blk.{number}.ffn_up.weight"] = (kind, (256, 512))
    return tensors


def model(kind: int = Q4_K, architecture: str = "llama", **changes: Any) -> RawGGUF:
    return RawGGUF(metadata=llama(architecture, **changes), tensors=weights(kind))


def projector(kind: int = F16, width: int = 256) -> RawGGUF:
    metadata = {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "mlp",
        "clip.vision.projection_dim": width,
    }
    return RawGGUF(metadata=metadata, tensors={"v.patch_embd.weight": (kind, (32, 32))})


def write_split(folder: Path, stem: str, count: int) -> list[Path]:
    """A model in `count` shards."""
    paths = []
    items = list(weights().items())
    for number in range(count):
        split = {"split.no": number, "split.count": count, "split.tensors.count": len(items)}
        raw = RawGGUF(
            metadata={**(llama() if number == 0 else {}), **split},
            tensors=dict(items[number::count]),
        )
        paths.append(raw.write(folder / f"{stem}-{number + 1:05}-of-{count:05}.gguf"))
    return paths
