from __future__ import annotations

from detect import census, mlx_widths
from detect.mlx_widths import candidates, find
from detect.tensor import Column, Tensor, columns_of
from tests.detect import raw_safetensors as raw


def tensors(specs: dict[str, raw.Spec]) -> tuple[Column, ...]:
    return columns_of({n: Tensor(dtype, tuple(shape), 0) for n, (dtype, shape) in specs.items()})


def test_shapes_alone_leave_several_widths() -> None:
    parts = {"weight": Tensor("U32", (64, 16), 0), "scales": Tensor("BF16", (64, 2), 0)}
    assert set(candidates(parts)) == {(4, 64), (8, 32), (2, 128)}


def test_the_hidden_size_decides_even_against_the_claim() -> None:
    taken = census.take(tensors(raw.mlx(4, 64)("model.layers.0.self_attn.q_proj", 64, 128)))
    widths = find(taken, {"bits": 8, "group_size": 32}, hidden_size=128)
    assert widths.distinct == {(4, 64)}
    assert widths.contradictions == ("8-bit group 32, and the tensors have 4-bit group 64",)


def test_the_norm_tells_the_hidden_size_where_the_config_is_silent() -> None:
    layers = raw.mlx(2, 128)("model.layers.0.self_attn.q_proj", 64, 128)
    layers["model.norm.weight"] = ("BF16", (128,))
    assert find(census.take(tensors(layers)), {}, None).distinct == {(2, 128)}


def test_a_layer_of_unknown_input_follows_its_own_claim_then_its_neighbours() -> None:
    layers = raw.mlx(8, 32)("model.layers.0.odd", 64, 256)
    layers |= raw.mlx(8, 32)("model.layers.1.odd", 64, 256)
    layers |= raw.mlx(4, 64)("model.layers.0.self_attn.q_proj", 64, 128)
    claim = {"model.layers.0.odd": {"bits": 8, "group_size": 32}}
    by_layer = find(census.take(tensors(layers)), claim, 128).by_layer
    assert by_layer["model.layers.0.odd"] == (8, 32)
    assert by_layer["model.layers.1.odd"] == (4, 64)


def test_a_named_layer_that_is_otherwise_contradicts() -> None:
    name = "model.layers.0.self_attn.q_proj"
    taken = census.take(tensors(raw.mlx(4, 64)(name, 64, 128)))
    found = find(taken, {name: {"bits": 8, "group_size": 32}, "bits": 4, "group_size": 64}, 128)
    assert name in found.contradictions[0]


def test_false_for_a_layer_claims_nothing() -> None:
    name = "model.layers.0.self_attn.q_proj"
    taken = census.take(tensors(raw.mlx(4, 64)(name, 64, 128)))
    claim = {name: False, "bits": 4, "group_size": 64}
    assert find(taken, claim, 128).contradictions == ()


def test_widths_that_no_kernel_has_are_not_candidates() -> None:
    parts = {"weight": Tensor("U32", (64, 7), 0), "scales": Tensor("BF16", (64, 2), 0)}
    assert candidates(parts) == []
    empty = {"weight": Tensor("U32", (), 0), "scales": Tensor("BF16", (64, 0), 0)}
    assert candidates(empty) == []
    assert mlx_widths.AFFINE_WIDTHS[0] == (4, 64)
