"""Every layout of the census table, as a whole model: what it is taken for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from detect.scan import inspect_path
from detect.types import ModelInfo, Quantization, SafetensorsDetails, WeightFormat
from tests.detect import raw_safetensors as raw


def claim(**quantization: Any) -> dict[str, Any]:
    return {**raw.CONFIG, "quantization_config": quantization}


def mlx_claim(config: Mapping[str, Any] = raw.CONFIG, **quantization: Any) -> dict[str, Any]:
    return {**config, "quantization": quantization, "quantization_config": quantization}


def details(info: ModelInfo) -> SafetensorsDetails:
    assert isinstance(info.details, SafetensorsDetails)
    return info.details


def codes(info: ModelInfo) -> list[str]:
    return [problem.code for problem in info.problems]


MLX = WeightFormat.MLX
HF = WeightFormat.SAFETENSORS
SAMPLES = [
    ("plain", raw.plain, raw.CONFIG, HF, None),
    ("mlx-affine", raw.mlx(4, 64), mlx_claim(bits=4, group_size=64), MLX,
     Quantization(method="mlx", bits=4, group_size=64, mode="affine")),
    ("mlx-affine", raw.mlx(5, 32), mlx_claim(bits=5, group_size=32), MLX,
     Quantization(method="mlx", bits=5, group_size=32, mode="affine")),
    ("mlx-mxfp4", raw.mlx(4, 32, "mxfp4"), mlx_claim(bits=4, group_size=32, mode="mxfp4"), MLX,
     Quantization(method="mlx", bits=4, group_size=32, mode="mxfp4")),
    ("mlx-nvfp4", raw.mlx(4, 16, "nvfp4"), mlx_claim(bits=4, group_size=16, mode="nvfp4"), MLX,
     Quantization(method="mlx", bits=4, group_size=16, mode="nvfp4")),
    ("mlx-mxfp8", raw.mlx(8, 32, "mxfp8"), mlx_claim(bits=8, group_size=32, mode="mxfp8"), MLX,
     Quantization(method="mlx", bits=8, group_size=32, mode="mxfp8")),
    ("gptq", raw.gptq(), claim(quant_method="gptq", bits=4, group_size=128), HF,
     Quantization(method="gptq", bits=4, group_size=128)),
    ("gptq", raw.gptq(g_idx=False), claim(quant_method="gptq", bits=4, group_size=128), HF,
     Quantization(method="gptq", bits=4, group_size=128)),
    ("gptq", raw.gptq(8, 64), claim(quant_method="gptq", bits=8, group_size=64), HF,
     Quantization(method="gptq", bits=8, group_size=64)),
    ("gptq", raw.gptq(), claim(quant_method="auto-round", bits=4, group_size=128), HF,
     Quantization(method="auto-round", bits=4, group_size=128, mode="gptq")),
    ("marlin", raw.marlin, claim(quant_method="gptq", bits=4, group_size=128), HF,
     Quantization(method="gptq", bits=4, group_size=128, mode="marlin")),
    ("awq-gemm", raw.awq, claim(quant_method="awq", bits=4, group_size=64), HF,
     Quantization(method="awq", bits=4, group_size=64, mode="gemm")),
    ("awq-gemv", raw.awq_gemv, claim(quant_method="awq", bits=4, group_size=64), HF,
     Quantization(method="awq", bits=4, group_size=64, mode="gemv")),
    ("awq-gemv-fast", raw.awq_gemv_fast, claim(quant_method="awq", bits=4, group_size=64), HF,
     Quantization(method="awq", bits=4, group_size=64, mode="gemv_fast")),
    ("bnb-4bit", raw.bnb_4bit, claim(quant_method="bitsandbytes", load_in_4bit=True), HF,
     Quantization(method="bitsandbytes", bits=4, group_size=64, mode="nf4")),
    ("bnb-8bit", raw.bnb_8bit, claim(quant_method="bitsandbytes", load_in_8bit=True), HF,
     Quantization(method="bitsandbytes", bits=8, mode="int8")),
    ("fp8-block", raw.fp8_block, claim(quant_method="fp8", weight_block_size=[128, 128]), HF,
     Quantization(method="fp8", bits=8, group_size=128, mode="block")),
    ("fp8-tensor", raw.fp8_tensor, claim(quant_method="fp8"), HF,
     Quantization(method="fp8", bits=8, mode="tensor")),
    ("fp8-channel", raw.fp8_channel, claim(quant_method="fbgemm_fp8"), HF,
     Quantization(method="fbgemm_fp8", bits=8, mode="channel")),
    ("fp8-channel", raw.fp8_channel,
     claim(quant_method="compressed-tensors", format="float-quantized"), HF,
     Quantization(method="compressed-tensors", bits=8, mode="float-quantized")),
    ("fp8-raw", raw.fp8_raw, raw.CONFIG, HF, Quantization(method="fp8", bits=8, mode="raw")),
    ("ct-packed", raw.ct_int4,
     claim(quant_method="compressed-tensors", format="pack-quantized",
           config_groups={"group_0": {"weights": {"num_bits": 4, "group_size": 32}}}), HF,
     Quantization(method="compressed-tensors", bits=4, group_size=32, mode="pack-quantized")),
    ("ct-nvfp4", raw.ct_nvfp4, claim(quant_method="compressed-tensors"), HF,
     Quantization(method="compressed-tensors", bits=4, group_size=16,
                  mode="nvfp4-pack-quantized")),
    ("modelopt-nvfp4", raw.modelopt_nvfp4, claim(quant_method="modelopt", quant_algo="NVFP4"), HF,
     Quantization(method="modelopt", bits=4, group_size=16, mode="nvfp4")),
    ("hqq", raw.hqq, claim(quant_method="hqq"), HF, Quantization(method="hqq")),
    ("eetq", raw.eetq, claim(quant_method="eetq"), HF, Quantization(method="eetq", bits=8)),
    ("quanto", raw.quanto, claim(quant_method="quanto"), HF, Quantization(method="quanto")),
    ("torchao", raw.torchao, claim(quant_method="torchao"), HF, Quantization(method="torchao")),
    ("aqlm", raw.aqlm, claim(quant_method="aqlm"), HF, Quantization(method="aqlm")),
    ("higgs", raw.higgs, claim(quant_method="higgs"), HF, Quantization(method="higgs")),
    ("metal", raw.metal, claim(quant_method="metal", bits=4), HF,
     Quantization(method="metal", bits=4)),
    ("bitnet", raw.bitnet, claim(quant_method="bitnet"), HF,
     Quantization(method="bitnet", bits=1.58)),
    ("exl2", raw.exl2, claim(quant_method="exl2", bits=4.25), HF,
     Quantization(method="exl2", bits=4.25)),
    ("exl3", raw.exl3, claim(quant_method="exl3", bits=4.0), HF,
     Quantization(method="exl3", bits=4)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "layer", "config", "kind", "expected"), SAMPLES)
def test_every_layout_is_known_by_its_tensors(
    tmp_path: Path,
    name: str,
    layer: Any,
    config: Mapping[str, Any],
    kind: WeightFormat,
    expected: Quantization | None,
) -> None:
    info = inspect_path(raw.write_model(tmp_path / "m", raw.dense(quantize=layer), config))
    assert info.quantization == expected
    assert info.format is kind
    assert details(info).census[name] == 7 * raw.LAYERS + (name == "plain")
    assert not info.broken
    assert {e.field for e in info.evidence} >= {"format", "quantization", "role"}


PACKED = [sample for sample in SAMPLES if sample[0] not in ("plain", "fp8-raw")]


@pytest.mark.parametrize(("name", "layer", "config", "kind", "expected"), PACKED)
def test_the_layout_is_known_without_a_claim_too_and_the_silence_is_a_conflict(
    tmp_path: Path,
    name: str,
    layer: Any,
    config: Mapping[str, Any],
    kind: WeightFormat,
    expected: Quantization,
) -> None:
    info = inspect_path(raw.write_model(tmp_path / "m", raw.dense(quantize=layer)))
    assert info.format is kind
    assert details(info).census[name] == 7 * raw.LAYERS
    assert codes(info) == ["conflict.config_vs_tensors"]


COUNTABLE = [
    s for s in SAMPLES
    if s[0] not in ("hqq", "torchao", "aqlm", "higgs", "exl2", "marlin", "awq-gemv-fast")
]  # fmt: skip


@pytest.mark.parametrize(("name", "layer", "config", "kind", "expected"), COUNTABLE)
def test_parameters_are_the_same_however_they_are_packed(
    tmp_path: Path, name: str, layer: Any, config: Any, kind: Any, expected: Any
) -> None:
    info = inspect_path(raw.write_model(tmp_path / "m", raw.dense(quantize=layer), config))
    assert info.parameters == raw.PARAMETERS


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("group", [32, 64, 128])
def test_bits_and_group_follow_from_shapes_alone(tmp_path: Path, bits: int, group: int) -> None:
    layer = raw.mlx(bits, group)
    tensors = raw.dense(quantize=layer, embeddings=layer)
    info = inspect_path(raw.write_model(tmp_path / "m", tensors, None))
    assert info.quantization is not None
    assert (info.quantization.bits, info.quantization.group_size) == (bits, group)
    assert details(info).quantized_widths == {(bits, group)}
    assert info.parameters == raw.PARAMETERS


def test_layers_of_other_widths_make_the_quantisation_mixed(tmp_path: Path) -> None:
    four, eight = raw.mlx(4, 64), raw.mlx(8, 64)

    def layer(prefix: str, outputs: int, inputs: int) -> Any:
        return (eight if "down_proj" in prefix else four)(prefix, outputs, inputs)

    config = mlx_claim(
        bits=4, group_size=64, **{"model.layers.0.mlp.down_proj": {"bits": 8, "group_size": 64}}
    )
    info = inspect_path(raw.write_model(tmp_path / "m", raw.dense(quantize=layer), config))
    assert info.quantization is not None
    assert info.quantization.label == "4-bit affine g64 mixed"
    assert details(info).quantized_widths == {(4, 64), (8, 64)}
    assert info.parameters == raw.PARAMETERS
    assert codes(info) == []


def test_unquantised_parts_are_told(tmp_path: Path) -> None:
    packed = raw.mlx()
    both = inspect_path(
        raw.write_model(tmp_path / "a", raw.dense(quantize=packed, embeddings=packed))
    )
    layers = inspect_path(raw.write_model(tmp_path / "b", raw.dense(quantize=packed)))
    tied = inspect_path(
        raw.write_model(
            tmp_path / "c",
            raw.dense(quantize=packed, tied=True),
            {k: v for k, v in raw.CONFIG.items() if k != "tie_word_embeddings"},
        )
    )
    assert (details(both).quantized_lm_head, details(both).quantized_embeddings) == (True, True)
    assert (details(layers).quantized_lm_head, details(layers).quantized_embeddings) == (
        False,
        False,
    )
    assert details(tied).quantized_lm_head is None
    assert details(tied).tied_embeddings
    assert not details(both).tied_embeddings


def test_mlx_floats_are_known_by_the_metadata(tmp_path: Path) -> None:
    info = inspect_path(raw.write_model(tmp_path / "m", raw.dense(), metadata={"format": "mlx"}))
    assert info.format is MLX
    assert info.quantization is None


def test_stacked_float_experts_are_mlx_whatever_the_metadata_says(tmp_path: Path) -> None:
    tensors = raw.mixture(stacked=True)
    info = inspect_path(raw.write_model(tmp_path / "m", tensors, raw.MOE_CONFIG))
    assert info.format is MLX
    assert details(info).stacked_experts
    assert details(info).moe


def test_the_seed_of_it_all_an_mlx_mixture_with_a_quantised_router(tmp_path: Path) -> None:
    tensors = raw.mixture(quantize=raw.mlx(4, 64), router=raw.mlx(8, 64), stacked=True)
    routers = {f"model.layers.{i}.mlp.gate": {"bits": 8, "group_size": 64} for i in range(2)}
    config = mlx_claim(raw.MOE_CONFIG, bits=4, group_size=64, **routers)
    info = inspect_path(raw.write_model(tmp_path / "m", tensors, config))
    assert info.format is MLX
    assert info.architecture.name == "qwen3_moe"
    assert details(info).moe
    assert details(info).stacked_experts
    assert details(info).quantized_router
    assert info.quantization is not None
    assert info.quantization.mixed
    assert codes(info) == []
    assert info.parameters is not None
    experts = raw.LAYERS * 3 * raw.EXPERTS * raw.HIDDEN * raw.HIDDEN
    assert info.active_parameters == info.parameters - experts // 2


def test_a_mixture_under_a_dense_name_is_a_conflict(tmp_path: Path) -> None:
    tensors = raw.mixture(quantize=raw.mlx(), router=raw.mlx(), stacked=True)
    config = mlx_claim(
        {**raw.MOE_CONFIG, "architectures": ["Qwen3ForCausalLM"]}, bits=4, group_size=64
    )
    info = inspect_path(raw.write_model(tmp_path / "m", tensors, config))
    assert codes(info) == ["conflict.config_vs_tensors"]
    assert "Qwen3ForCausalLM" in info.problems[0].message


def test_a_plain_mixture_keeps_experts_apart(tmp_path: Path) -> None:
    info = inspect_path(raw.write_model(tmp_path / "m", raw.mixture(), raw.MOE_CONFIG))
    assert info.format is HF
    assert details(info).moe
    assert not details(info).stacked_experts
    assert not details(info).quantized_router


def test_gpt_oss_is_mxfp4_by_its_blocks(tmp_path: Path) -> None:
    tensors = raw.dense(raw.ATTENTION) | raw.gpt_oss_experts()
    config = {
        **raw.CONFIG,
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "quantization_config": {"quant_method": "mxfp4"},
    }
    folder = raw.write_model(tmp_path / "m", tensors, config)
    raw.write_model(folder / "original", tensors, config)
    (folder / "metal").mkdir()
    (folder / "metal" / "model.bin").write_bytes(b"x" * 100)
    info = inspect_path(folder)
    assert info.quantization == Quantization(method="mxfp4", bits=4, group_size=32)
    assert info.files == (folder / "model.safetensors",)
    assert details(info).moe
    assert not details(info).quantized_router
    packed = raw.LAYERS * raw.EXPERTS * 3 * raw.HIDDEN * raw.HIDDEN
    biases = raw.LAYERS * raw.EXPERTS * 3 * raw.HIDDEN
    assert info.parameters is not None
    assert info.active_parameters == info.parameters - (packed + biases) // 2


def test_vision_conversions_have_their_prefix(tmp_path: Path) -> None:
    tensors = raw.dense(quantize=raw.mlx(), prefix="language_model.")
    tensors["vision_tower.encoder.layers.0.mlp.fc1.weight"] = ("BF16", (64, 64))
    config = mlx_claim({**raw.CONFIG, "vision_config": {"depth": 1}}, bits=4, group_size=64)
    info = inspect_path(raw.write_model(tmp_path / "m", tensors, config))
    assert details(info).name_prefix == "language_model."
    assert info.role.value == "vision"
    assert details(info).census["mlx-affine"] == 7 * raw.LAYERS


def test_an_unknown_layout_says_what_its_tensors_are_called(tmp_path: Path) -> None:
    tensors = {"a.b.weight": ("I16", (8, 8)), "a.c.weight": ("I16", (8, 8))}
    info = inspect_path(raw.write_model(tmp_path / "m", tensors))
    assert info.quantization is None
    assert "weight (2)" in next(e.source for e in info.evidence if e.field == "quantization")


def test_plain_tensors_under_a_quantised_label_are_plain_and_a_conflict(tmp_path: Path) -> None:
    config = claim(quant_method="bitsandbytes", load_in_4bit=True)
    info = inspect_path(raw.write_model(tmp_path / "m", raw.dense(), config))
    assert info.quantization is None
    assert codes(info) == ["conflict.config_vs_tensors"]
    assert "bitsandbytes" in info.problems[0].message


def test_a_wrong_method_or_width_in_the_config_is_a_conflict(tmp_path: Path) -> None:
    wrong = claim(quant_method="gptq", bits=4)
    info = inspect_path(raw.write_model(tmp_path / "a", raw.dense(quantize=raw.awq), wrong))
    assert codes(info) == ["conflict.config_vs_tensors"]
    config = mlx_claim(bits=8, group_size=64)
    info = inspect_path(raw.write_model(tmp_path / "b", raw.dense(quantize=raw.mlx()), config))
    assert codes(info) == ["conflict.config_vs_tensors"]
    assert info.quantization is not None
    assert info.quantization.bits == 4


def test_side_configs_are_claims_too(tmp_path: Path) -> None:
    side = {"bits": 4, "group_size": 128, "desc_act": False}
    tensors = raw.dense(quantize=raw.gptq(g_idx=False))
    info = inspect_path(raw.write_model(tmp_path / "m", tensors, quantize_config=side))
    assert info.quantization == Quantization(method="gptq", bits=4, group_size=128)
    assert details(info).side_config == side
    assert codes(info) == []
