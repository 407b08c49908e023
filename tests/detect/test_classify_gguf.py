from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from detect.scan import inspect_path
from detect.types import GGUFDetails, ModelInfo, Role, WeightFormat
from tests.detect import raw_gguf as raw
from tests.detect.raw_gguf import RawGGUF


def inspect(tmp_path: Path, content: RawGGUF) -> ModelInfo:
    return inspect_path(content.write(tmp_path / "m" / "model.gguf").parent)


def codes(info: ModelInfo) -> list[str]:
    return [problem.code for problem in info.problems]


def test_a_model_is_described_completely(tmp_path: Path) -> None:
    content = raw.model()
    content.metadata = {**content.metadata, "general.file_type": 15}
    info = inspect(tmp_path, content)
    assert info.id == "m"
    assert info.format is WeightFormat.GGUF
    assert info.path == tmp_path / "m" / "model.gguf"
    assert info.role is Role.GENERATIVE
    assert info.architecture.name == "llama"
    assert info.quantization is not None
    assert info.quantization.label == "Q4_K_M"
    assert info.quantization.bits == 4
    assert not info.quantization.mixed
    assert info.parameters == 256 * 300 + 2 * (256 + 256 * 256 + 256 * 512)
    assert info.context_length == 2048
    assert info.kv_bytes_per_token == 2 * 2 * 32 * 2 * 2
    assert info.chat_template
    assert not info.tools
    assert info.problems == ()
    assert isinstance(info.details, GGUFDetails)
    assert info.details.tensor_type_bytes["Q4_K"] > info.details.tensor_type_bytes["F32"]
    assert info.details.tokenizer_model == "gpt2"
    assert info.details.tokenizer_pre == "qwen2"
    assert info.details.shard_count == 1
    assert info.weights_bytes == sum(info.details.tensor_type_bytes.values())


def test_the_label_is_that_of_the_tensors_when_the_header_lies(tmp_path: Path) -> None:
    content = raw.model(raw.Q8_0)
    content.metadata = {**content.metadata, "general.file_type": 15}
    info = inspect(tmp_path, content)
    assert info.quantization is not None
    assert info.quantization.mode == "Q8_0"


def test_two_types_of_matrices_are_a_mixture_with_bits_between(tmp_path: Path) -> None:
    content = raw.model()
    content.tensors = {**content.tensors, "output.weight": (14, (256, 300))}
    info = inspect(tmp_path, content)
    assert info.quantization is not None
    assert info.quantization.mixed
    assert info.quantization.bits is not None
    assert 4 < info.quantization.bits < 6


@pytest.mark.parametrize(
    ("architecture", "changes", "role"),
    [
        ("llama", {}, Role.GENERATIVE),
        ("bert", {"pooling_type": 1}, Role.EMBEDDING),
        ("bert", {}, Role.EMBEDDING),
        ("qwen3", {"pooling_type": 3}, Role.EMBEDDING),
        ("qwen3", {"pooling_type": 4}, Role.RERANKER),
        ("llama", {"attention.causal": False}, Role.EMBEDDING),
        ("dream", {"attention.causal": False}, Role.GENERATIVE),
        ("flux", {}, Role.DIFFUSION),
        ("wavtokenizer-dec", {}, Role.SPEECH),
    ],
)
def test_the_role_follows_from_the_metadata(
    tmp_path: Path, architecture: str, changes: dict[str, Any], role: Role
) -> None:
    assert inspect(tmp_path, raw.model(architecture=architecture, **changes)).role is role


def test_a_classification_head_makes_a_reranker(tmp_path: Path) -> None:
    content = raw.model(architecture="bert")
    content.tensors = {**content.tensors, "cls.output.weight": (raw.F32, (256, 1))}
    assert inspect(tmp_path, content).role is Role.RERANKER


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"attention.head_count_kv": [0, 2]}, 2 * (32 + 32) * 2),
        ({"attention.key_length": 128, "attention.value_length": 64}, 2 * 2 * (128 + 64) * 2),
        ({"full_attention_interval": 2}, 1 * 2 * (32 + 32) * 2),
        ({"attention.kv_lora_rank": 512, "rope.dimension_count": 64}, 2 * (512 + 64) * 2),
        ({"block_count": 0}, None),
        ({"block_count": 10**6}, None),
        ({"attention.head_count": 0, "attention.head_count_kv": 0}, None),
        ({"attention.head_count": "8"}, None),
    ],
)
def test_a_token_costs_keys_and_values_in_the_attention_layers(
    tmp_path: Path, changes: dict[str, Any], expected: int | None
) -> None:
    assert inspect(tmp_path, raw.model(**changes)).kv_bytes_per_token == expected


def test_a_rope_scaling_extends_the_original_context(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "context_length": 131072,
        "rope.scaling.original_context_length": 32768,
    }
    info = inspect(tmp_path, raw.model(**changes))
    assert (info.context_length, info.extended_context_length) == (32768, 131072)


def test_the_used_experts_are_the_active_parameters(tmp_path: Path) -> None:
    content = raw.model(architecture="qwen3moe", expert_count=8, expert_used_count=2)
    content.tensors = {**content.tensors, "blk.0.ffn_up_exps.weight": (raw.Q4_K, (256, 256, 8))}
    info = inspect(tmp_path, content)
    assert info.parameters is not None
    assert info.active_parameters == info.parameters - 256 * 256 * 6
    assert isinstance(info.details, GGUFDetails)
    assert info.details.expert_count == 8


@pytest.mark.parametrize("name", ["v.patch_embd.weight", "mm.0.weight", "a.conv.weight"])
def test_a_projector_inside_the_text_file_is_ollamas_layout(tmp_path: Path, name: str) -> None:
    content = raw.model(architecture="gemma3")
    content.tensors = {**content.tensors, name: (raw.F16, (32, 32))}
    info = inspect(tmp_path, content)
    assert codes(info) == ["conflict.layout"]
    assert "Ollama" in info.problems[0].message
    assert not info.broken
    assert isinstance(info.details, GGUFDetails)
    assert info.details.embedded_projector


def test_an_architecture_of_ollama_is_told(tmp_path: Path) -> None:
    assert codes(inspect(tmp_path, raw.model(architecture="gptoss"))) == ["conflict.layout"]


def test_no_architecture_is_corrupt(tmp_path: Path) -> None:
    content = RawGGUF(metadata={"general.name": "x"}, tensors=raw.weights())
    info = inspect(tmp_path, content)
    assert codes(info) == ["corrupt.header"]
    assert info.broken


def test_a_cut_file_is_incomplete_and_still_described(tmp_path: Path) -> None:
    path = raw.model().write(tmp_path / "m" / "model.gguf")
    os.truncate(path, path.stat().st_size - 100)
    os.utime(path, (0, 0))
    info = inspect_path(path.parent)
    assert codes(info) == ["incomplete.truncated"]
    assert info.broken
    assert info.architecture.name == "llama"
    assert "100 of" in info.problems[0].message


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": 1}, "unsupported.gguf_version"),
        ({"version": 4}, "unsupported.gguf_version"),
        ({"version": 3 << 24}, "unsupported.endianness"),
        ({"tensors": {"x": (99, (32,))}}, "unsupported.gguf_type"),
        ({"entry_count": 2**40}, "corrupt.bounds"),
        ({"magic": b"NOPE"}, "corrupt.header"),
    ],
)
def test_a_file_no_engine_can_load_is_listed_as_broken(
    tmp_path: Path, change: dict[str, Any], code: str
) -> None:
    info = inspect(tmp_path, RawGGUF(**{"metadata": raw.llama(), **change}))
    assert info.format is WeightFormat.GGUF
    assert codes(info) == [code]
    assert info.broken


def test_named_templates_are_examined_too(tmp_path: Path) -> None:
    content = raw.model()
    content.metadata = {
        **content.metadata,
        "tokenizer.chat_templates": ["tool_use"],
        "tokenizer.chat_template.tool_use": "{{ tools }}",
    }
    assert inspect(tmp_path, content).tools


def test_long_texts_do_not_stay_in_the_details(tmp_path: Path) -> None:
    content = raw.model()
    content.metadata = {**content.metadata, "general.license.text": "x" * 10_000}
    info = inspect(tmp_path, content)
    assert isinstance(info.details, GGUFDetails)
    assert "general.license.text" not in info.details.metadata
    assert info.details.metadata["llama.context_length"] == 2048
