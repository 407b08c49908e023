"""Mutants of valid models: whatever the bytes, a model or a named refusal, and never long.

`ROUTER_FUZZ_MUTANTS` sets how many of each kind; the usual number keeps the suite quick.
"""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from detect import gguf_header, safetensors_header
from detect.errors import DetectError
from detect.scan import inspect_path, scan
from tests.detect import raw_gguf, raw_safetensors
from tests.detect.raw_gguf import RawGGUF

MUTANTS = int(os.environ.get("ROUTER_FUZZ_MUTANTS", "300"))
SECONDS_EACH = 0.25

CODES = frozenset(
    {
        "incomplete.lfs_pointer", "incomplete.partial", "incomplete.missing_shard",
        "incomplete.truncated", "corrupt.header", "corrupt.bounds", "corrupt.index_mismatch",
        "unsupported.gguf_version", "unsupported.endianness", "unsupported.gguf_type",
        "unsupported.format", "unsupported.role", "missing.config", "missing.tokenizer",
        "missing.base_model", "conflict.config_vs_tensors", "conflict.layout", "unsafe.pickle",
        "unsafe.remote_code", "settling",
    }
)  # fmt: skip

NUMBERS = (0, 1, 2, 3, 7, 255, 2**16, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1)
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**70, 0.5, 1e308, float("nan"), "", "x",
    "\u0000", "x" * 5000, [], {}, [[]], [None], {"": None}, [1, 2], ["a"], {"a": [{}]},
]  # fmt: skip

Result = TypeVar("Result")
Mutate = Callable[[random.Random, bytes], bytes]


def flip(chance: random.Random, content: bytes) -> bytes:
    mutant = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        mutant[_early(chance, len(mutant))] = chance.randrange(256)
    return bytes(mutant)


def overwrite_number(chance: random.Random, content: bytes) -> bytes:
    raw = struct.pack(chance.choice(("<I", "<Q")), chance.choice(NUMBERS) & 0xFFFFFFFF)
    if chance.random() < 0.5:
        raw = struct.pack("<Q", chance.choice(NUMBERS))
    at = _early(chance, len(content))
    return content[:at] + raw + content[at + len(raw) :]


def cut(chance: random.Random, content: bytes) -> bytes:
    return content[: chance.randrange(len(content))]


def drop(chance: random.Random, content: bytes) -> bytes:
    at = _early(chance, len(content))
    return content[:at] + content[at + chance.randint(1, 64) :]


def repeat(chance: random.Random, content: bytes) -> bytes:
    at, size = _early(chance, len(content)), chance.randint(1, 200)
    return content[: at + size] + content[at:]


def _early(chance: random.Random, size: int) -> int:
    """Mostly in the header, where bytes mean something."""
    return chance.randrange(min(size, chance.choice((64, 512, 8192, size))))


BYTE_MUTATIONS: tuple[Mutate, ...] = (flip, overwrite_number, cut, drop, repeat)


def gguf_mutant(chance: random.Random) -> bytes:
    """A change of one declared thing, or of bytes, or of both."""
    content = raw_gguf.model(chance.choice((raw_gguf.F32, raw_gguf.Q8_0, raw_gguf.Q4_K)))
    number = chance.choice(NUMBERS)
    name = chance.choice(list(content.tensors))
    key = chance.choice(list(content.metadata))
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"tensor_count": number},
        {"entry_count": number},
        {"version": number & 0xFFFFFFFF},
        {"offsets": {name: number}},
        {"tensors": {**content.tensors, name: (chance.randrange(60), (number, 2))}, "data": False},
        {"tensors": {**content.tensors, name: (0, (1,) * chance.randrange(9))}},
        {"metadata": {**content.metadata, "general.alignment": chance.choice((0, 3, 64, 2**31))}},
        {"metadata": {**content.metadata, key: _gguf_value(chance)}},
        {"metadata": {k: v for k, v in content.metadata.items() if k != key}},
    )
    for attribute, value in chance.choice(changes).items():
        setattr(content, attribute, value)
    encoded = content.encode()
    return chance.choice(BYTE_MUTATIONS)(chance, encoded) if chance.random() < 0.6 else encoded


def _gguf_value(chance: random.Random) -> Any:
    values: list[Any] = [
        0, 2**32 - 1, True, 0.5, float("nan"), "", "x" * 300, [], [1, -1], ["a", ""],
        raw_gguf.Typed(raw_gguf.U64, 2**64 - 1), raw_gguf.Typed(raw_gguf.I64, -(2**63)),
        raw_gguf.Typed(raw_gguf.STRING, b"\xff\xfe\x00"),
        raw_gguf.Typed(raw_gguf.ARRAY, [raw_gguf.Typed(raw_gguf.ARRAY, [1], raw_gguf.I32)],
                       raw_gguf.ARRAY),
    ]  # fmt: skip
    return chance.choice(values)


LAYERS: tuple[Any, ...] = (
    raw_safetensors.plain, raw_safetensors.mlx(), raw_safetensors.mlx(4, 32, "mxfp4"),
    raw_safetensors.gptq(), raw_safetensors.awq, raw_safetensors.awq_gemv,
    raw_safetensors.bnb_4bit, raw_safetensors.fp8_block, raw_safetensors.fp8_channel,
    raw_safetensors.ct_int4, raw_safetensors.ct_nvfp4, raw_safetensors.modelopt_nvfp4,
    raw_safetensors.hqq, raw_safetensors.exl2, raw_safetensors.exl3, raw_safetensors.quanto,
    raw_safetensors.bitnet, raw_safetensors.higgs, raw_safetensors.aqlm, raw_safetensors.marlin,
)  # fmt: skip


def safetensors_mutant(chance: random.Random) -> bytes:
    """A file that may still be valid, with tensors of odd shapes and dtypes; or a damaged one."""
    tensors = raw_safetensors.dense(quantize=chance.choice(LAYERS))
    for name in chance.sample(list(tensors), 6):
        dtype = chance.choice(("U32", "U8", "I32", "F16", "F8_E4M3", "I8", "BF16", "I16", "F32"))
        shape = tuple(chance.choice((0, 1, 2, 3, 7, 32)) for _ in range(chance.randrange(5)))
        tensors[name] = (dtype, shape)
    for name in chance.sample(list(tensors), 3):
        if chance.random() < 0.5:
            del tensors[name]
    encoded = raw_safetensors.encode(tensors)
    if chance.random() < 0.5:
        return encoded
    if chance.random() < 0.5:
        return chance.choice(BYTE_MUTATIONS)(chance, encoded)
    (length,) = struct.unpack_from("<Q", encoded)
    header = json.loads(encoded[8 : 8 + length])
    changed = json.dumps(_changed(chance, header)).encode()
    return raw_safetensors.frame(changed, len(encoded) - 8 - length)


def config_mutant(chance: random.Random) -> dict[str, Any]:
    claim = {"bits": 4, "group_size": 64, "quant_method": "gptq", "config_groups": {"a": {}}}
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
    config = {
        **raw_safetensors.MOE_CONFIG,
        "quantization": claim,
        "quantization_config": dict(claim),
        "rope_scaling": scaling,
        "layer_types": ["full_attention"],
        "text_config": dict(raw_safetensors.CONFIG),
        "kv_lora_rank": 8,
        "added_tokens_decoder": {"1": {"content": "<think>"}},
        "chat_template": [{"name": "default", "template": "{{ tools }}"}],
        "vision_config": {},
        "auto_map": {},
    }
    changed = config
    for _ in range(chance.randint(1, 4)):
        changed = _changed(chance, changed)
    return changed if isinstance(changed, dict) else config


def _changed(chance: random.Random, value: Any) -> Any:
    """The value with something inside it replaced or gone."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        if chance.random() < 0.2:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: _changed(chance, value[key])}
    if isinstance(value, list) and value and chance.random() < 0.7:
        at = chance.randrange(len(value))
        return [*value[:at], _changed(chance, value[at]), *value[at + 1 :]]
    return chance.choice(VALUES)


def refused(read: Callable[[], Result]) -> Result | None:
    """What is read, or None if it was refused under a known code; other errors pass through."""
    refusal: DetectError | None = None
    try:
        return read()
    except DetectError as error:
        refusal = error
    assert refusal.code in CODES
    refusal.message.encode()
    return None


def check_folder(folder: Path) -> None:
    """A model or a refusal, in words that can be sent as JSON."""
    info = refused(lambda: inspect_path(folder))
    if info is None:
        return
    assert {problem.code for problem in info.problems} <= CODES
    for number in (info.parameters, info.active_parameters, info.context_length):
        assert number is None or number >= 0
    assert info.kv_bytes_per_token is None or info.kv_bytes_per_token >= 0
    repr(info).encode()
    for evidence in info.evidence:
        evidence.value.encode()


@pytest.mark.timeout(30 + MUTANTS * 2 * SECONDS_EACH)
def test_gguf_mutants_are_models_or_named(tmp_path: Path) -> None:
    path = tmp_path / "m" / "m.gguf"
    path.parent.mkdir()
    for seed in range(MUTANTS):
        path.write_bytes(gguf_mutant(random.Random(seed)))
        refused(lambda: gguf_header.read_header(path))
        check_folder(path.parent)


@pytest.mark.timeout(30 + MUTANTS * 2 * SECONDS_EACH)
def test_safetensors_mutants_are_models_or_named(tmp_path: Path) -> None:
    folder = raw_safetensors.write_model(tmp_path / "m", raw_safetensors.dense())
    path = folder / "model.safetensors"
    for seed in range(MUTANTS):
        path.write_bytes(safetensors_mutant(random.Random(seed)))
        refused(lambda: safetensors_header.read_header(path))
        check_folder(folder)


@pytest.mark.timeout(30 + MUTANTS * 2 * SECONDS_EACH)
def test_config_mutants_are_models_or_named(tmp_path: Path) -> None:
    tensors = [raw_safetensors.dense(quantize=layer) for layer in LAYERS[:6]]
    folder = tmp_path / "m"
    for seed in range(MUTANTS):
        chance = random.Random(seed)
        config = config_mutant(chance)
        raw_safetensors.write_model(
            folder,
            chance.choice(tensors),
            config,
            tokenizer_config=config_mutant(chance),
            quantize_config=config_mutant(chance),
        )
        check_folder(folder)


@pytest.mark.timeout(30 + MUTANTS * SECONDS_EACH)
def test_a_folder_of_mutants_is_scanned_to_its_end(tmp_path: Path) -> None:
    for seed in range(min(MUTANTS, 100)):
        chance = random.Random(seed)
        (tmp_path / f"{seed}.gguf").write_bytes(gguf_mutant(chance))
        folder = raw_safetensors.write_model(tmp_path / f"f{seed}", {}, config_mutant(chance))
        (folder / "model.safetensors").write_bytes(safetensors_mutant(chance))
    models = scan([tmp_path]).models
    assert len(models) >= min(MUTANTS, 100)
    assert len({model.id for model in models}) == len(models)


def test_the_unchanged_models_pass(tmp_path: Path) -> None:
    raw_gguf.model().write(tmp_path / "a" / "a.gguf")
    raw_safetensors.write_model(tmp_path / "b", raw_safetensors.dense())
    assert not any(model.broken for model in scan([tmp_path]).models)
    assert RawGGUF().encode()
