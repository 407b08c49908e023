"""Folders of safetensors with real bytes in them, and the trained weights to fill them with."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from detect.safetensors_header import DTYPE_BITS
from tests.tiny.train import WEIGHTS

Matrix = npt.NDArray[np.float32]
Array = npt.NDArray[Any]

DTYPES: Mapping[str, str] = {
    "float16": "F16", "float32": "F32", "uint8": "U8", "int8": "I8", "int16": "I16",
    "int32": "I32", "uint32": "U32", "int64": "I64",
}  # fmt: skip
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor as it lies in a file."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


Tensors = Mapping[str, Stored]
Layer = Callable[[Matrix], Tensors]
"""How one linear layer of [out, in] is stored: tensors by what follows the layer's name."""


def stored(array: Array, dtype: str | None = None) -> Stored:
    """`dtype` names what numpy has no type for, such as an FP8 that is held in bytes."""
    array = np.ascontiguousarray(array)
    return Stored(dtype or DTYPES[array.dtype.name], array.shape, array.tobytes())


def zeros(dtype: str, shape: tuple[int, ...]) -> Stored:
    return Stored(dtype, shape, bytes(int(np.prod(shape)) * DTYPE_BITS[dtype] // 8))


def trained() -> dict[str, Matrix]:
    """The committed weights, which recite."""
    return {name: array.astype(np.float32) for name, array in _committed().items()}


def _committed() -> dict[str, Array]:
    return load_file(WEIGHTS / "model.safetensors")


def with_layers(layer: Layer | None = None, *, head: bool = False) -> dict[str, Stored]:
    """The trained model, its linear layers (and its head) stored as `layer` does; else plain."""
    tensors: dict[str, Stored] = {}
    for name, value in trained().items():
        prefix = name.removesuffix(".weight")
        if layer is not None and (name.endswith("_proj.weight") or (head and prefix == "lm_head")):
            tensors.update({f"{prefix}.{part}": one for part, one in layer(value).items()})
        else:
            tensors[name] = stored(value.astype(np.float16))
    return tensors


def encode(tensors: Tensors, metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, one in tensors.items():
        offsets = [end, end := end + len(one.data)]
        header[name] = {"dtype": one.dtype, "shape": list(one.shape), "data_offsets": offsets}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + b"".join(one.data for one in tensors.values())


def write(
    folder: Path,
    tensors: Tensors,
    config: Mapping[str, Any] | None,
    *,
    written_by: str = "pt",
    name: str = "model.safetensors",
    shards: int = 1,
    tokenizer: bool = True,
) -> Path:
    """A folder with everything that engines ask for."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": written_by}
    if shards == 1:
        (folder / name).write_bytes(encode(tensors, metadata))
    else:
        _write_shards(folder, tensors, metadata, shards)
    if config is not None:
        write_json(folder / "config.json", config)
    if tokenizer:
        copy_tokenizer(folder)
    return folder


def _write_shards(folder: Path, tensors: Tensors, metadata: Mapping[str, str], count: int) -> None:
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for number in range(count):
        part = {name: tensors[name] for name in names[number::count]}
        file = f"model-{number + 1:05}-of-{count:05}.safetensors"
        (folder / file).write_bytes(encode(part, metadata))
        weight_map.update(dict.fromkeys(part, file))
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def copy_tokenizer(folder: Path) -> None:
    for file in TOKENIZER_FILES:
        shutil.copyfile(WEIGHTS / file, folder / file)


def aged(path: Path) -> Path:
    """Nobody writes to it any more: a file that is short and new may still grow."""
    folder = path if path.is_dir() else path.parent
    for file in folder.rglob("*"):
        os.utime(file, (0, 0), follow_symlinks=False)
    return path


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1))
