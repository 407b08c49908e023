from __future__ import annotations

import pytest

from detect import census
from detect.tensor import Column, Tensor, columns_of
from tests.detect import raw_safetensors as raw
from tests.detect.raw_safetensors import Spec


def tensors(specs: dict[str, Spec]) -> tuple[Column, ...]:
    return columns_of({n: Tensor(dtype, tuple(shape), 0) for n, (dtype, shape) in specs.items()})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.0.mlp.up_proj.weight", ("model.layers.0.mlp.up_proj", "weight")),
        ("a.q_proj.weight.absmax", ("a.q_proj", "weight.absmax")),
        ("a.q_proj.lora_A.weight", ("a.q_proj", "lora_A")),
        ("a.q_proj.lora_A.default.weight", ("a.q_proj", "lora_A")),
        ("a.q_proj.lora_a", ("a.q_proj", "lora_a")),
        ("mlp.experts.gate_up_proj_blocks", ("mlp.experts.gate_up_proj", "blocks")),
        ("mlp.experts.gate_up_proj_scale_inv", ("mlp.experts.gate_up_proj", "weight_scale_inv")),
        ("mlp.experts.gate_up_proj", ("mlp.experts.gate_up_proj", "weight")),
        ("a.weight_scale_inv", ("a", "weight_scale_inv")),
        ("weight", ("", "weight")),
        ("", ("", "weight")),
    ],
)
def test_names_are_split_into_layer_and_part(name: str, expected: tuple[str, str]) -> None:
    assert census.split(name) == expected


def test_only_the_language_models_linear_layers_are_counted() -> None:
    taken = census.take(
        tensors(
            {
                "model.embed_tokens.weight": ("BF16", (8, 8)),
                "model.norm.weight": ("BF16", (8,)),
                "model.layers.0.self_attn.q_norm.weight": ("BF16", (8, 8)),
                "model.layers.0.conv1d.weight": ("BF16", (8, 1, 4)),
                "model.layers.0.mlp.up_proj.weight": ("BF16", (8, 8)),
                "model.layers.0.mlp.up_proj.bias": ("BF16", (8,)),
                "vision_tower.layers.0.fc1.weight": ("BF16", (8, 8)),
                "model.layers.0.A_log": ("F32", (8,)),
            }
        )
    )
    assert taken.counts == {"plain": 1}
    assert taken.towers


def test_the_class_is_that_of_most_layers_that_are_not_plain() -> None:
    layers = raw.mlx()("a.q_proj", 64, 128) | raw.mlx(4, 32, "mxfp4")("a.k_proj", 64, 128)
    layers |= raw.mlx(4, 32, "mxfp4")("a.v_proj", 64, 128)
    for number in range(5):
        layers |= raw.plain(f"b.{number}.proj", 8, 8)
    assert census.take(tensors(layers)).main == "mlx-mxfp4"


def test_a_linear_bias_is_not_mlxs_biases() -> None:
    layer: dict[str, Spec] = {
        "a.weight": ("U32", (8, 4)),
        "a.scales": ("BF16", (8, 1)),
        "a.bias": ("BF16", (8,)),
    }
    assert census.take(tensors(layer)).main == "unknown"


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("model.layers.0.mlp.up_proj.weight", ""),
        ("layers.0.mlp.up_proj.weight", ""),
        ("language_model.model.layers.0.mlp.up_proj.weight", "language_model."),
        ("model.language_model.layers.0.mlp.up_proj.weight", "model.language_model."),
        ("transformer.h.0.mlp.weight", ""),
    ],
)
def test_the_prefix_before_the_language_model_is_found(name: str, prefix: str) -> None:
    vision: dict[str, Spec] = {"vision_tower.encoder.layers.0.fc.weight": ("BF16", (8, 8))}
    taken = census.take(tensors(vision | {name: ("BF16", (8, 8))}))
    assert taken.name_prefix == prefix


@pytest.mark.parametrize(
    ("name", "router", "expert"),
    [
        ("model.layers.0.mlp.gate", True, False),
        ("model.layers.0.block_sparse_moe.gate", True, False),
        ("model.layers.0.mlp.router", True, False),
        ("model.layers.0.mlp.gate_proj", False, False),
        ("model.layers.0.mlp.experts.0.gate_proj", False, True),
        ("model.layers.0.mlp.switch_mlp.gate_proj", False, True),
        ("model.layers.0.mlp.shared_experts.gate_proj", False, False),
        ("model.layers.0.mlp.shared_expert_gate", False, False),
    ],
)
def test_routers_and_experts_are_known_by_name(name: str, router: bool, expert: bool) -> None:
    taken = census.take(tensors(raw.mlx()(name, 64, 128)))
    assert taken.quantized_router is router
    assert taken.experts is expert


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("model.layers.0.conv.conv.weight", (128, 3, 1), True),
        ("model.layers.0.conv.conv.weight", (128, 1, 3), False),
        ("model.layers.0.linear_attn.conv1d.weight", (256, 4, 1), True),
        ("vision_tower.embeddings.patch_embedding.weight", (32, 14, 14, 3), True),
        ("vision_tower.embeddings.patch_embedding.weight", (32, 3, 14, 14), False),
        ("visual.patch_embed.proj.weight", (32, 2, 14, 14, 3), True),
        ("visual.patch_embed.proj.weight", (32, 3, 2, 14, 14), False),
        ("model.layers.0.mlp.switch_mlp.up_proj.weight", (4, 256, 128), False),
    ],
)
def test_kernels_show_whose_order_of_dimensions_they_have(
    name: str, shape: tuple[int, ...], expected: bool
) -> None:
    assert census.take(tensors({name: ("BF16", shape)})).channels_last_kernels is expected


def test_layers_below_nothing_are_bare() -> None:
    plain = ("BF16", (8, 8))
    assert census.take(tensors({"layers.0.mlp.up_proj.weight": plain})).bare_layers
    assert not census.take(tensors({"model.layers.0.mlp.up_proj.weight": plain})).bare_layers
