"""Logical parameters: what the packed tensors stand for. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from msgspec import Struct

from detect.census import Alike, Census, Parts
from detect.hf_config import Configs
from detect.mlx_widths import CLASSES, Width, Widths

WEIGHT_SUFFIXES = ("weight", "bias")

PER_WORD: Mapping[str, Callable[[Parts], float]] = {
    "mxfp4": lambda parts: 2 * parts["blocks"].elements,
    "bnb-4bit": lambda parts: 2 * parts["weight"].elements,
    "modelopt-nvfp4": lambda parts: 2 * parts["weight"].elements,
    "ct-nvfp4": lambda parts: 2 * parts["weight_packed"].elements,
    "ct-mxfp4": lambda parts: 2 * parts["weight_packed"].elements,
    "bitnet": lambda parts: 4 * parts["weight"].elements,
    "quanto": lambda parts: parts["weight._data"].elements,
}
"""Weights of one layer, for the classes whose shapes alone tell."""

PACKED_IN: Mapping[str, str] = {
    "gptq": "qweight",
    "awq-gemm": "qweight",
    "awq-gemv": "qweight",
    "ct-packed": "weight_packed",
    "metal": "weight",
}
"""Where the classes that pack 32 bits into a word keep them."""

UNTOLD = frozenset(
    {"hqq", "aqlm", "higgs", "torchao", "exl2", "uqff", "marlin", "awq-gemv-fast", "unknown"}
)


class Count(Struct, frozen=True):
    total: int | None
    active: int | None = None
    source: str = ""


def count(census: Census, configs: Configs, widths: Widths, bits: float | None) -> Count:
    """All parameters, and for mixtures of experts those used per token."""
    if not UNTOLD.isdisjoint([alike.name for alike in census.layers]):
        stated = configs.stated_parameters
        return Count(stated, None, "stated in the index" if stated else "")
    total = experts = 0
    for alike in census.layers:
        weights = _in_all(alike, widths, bits)
        total += weights
        if alike.words.expert:
            experts += weights
    return Count(total, _active(total, experts, configs), "counted from the tensors' shapes")


def share_used(configs: Configs) -> float | None:
    """Experts per token over experts, where the config tells both."""
    used = configs.number("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk")
    return used / all_experts if used and (all_experts := expert_count(configs)) else None


def expert_count(configs: Configs) -> int | None:
    return configs.number(
        "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_moe_experts"
    )


def _active(total: int, experts: int, configs: Configs) -> int | None:
    share = share_used(configs)
    return total - round(experts * (1 - share)) if experts and share and share <= 1 else None


def _in_all(alike: Alike, widths: Widths, bits: float | None) -> int:
    """Of all these layers, in which equal packed shapes may stand for several widths."""
    if alike.name not in CLASSES:
        return alike.count * _weights(alike, None, bits)
    by_width = Counter(map(widths.by_layer.get, alike.prefixes))
    return sum(layers * _weights(alike, width, bits) for width, layers in by_width.items())


def _weights(alike: Alike, width: Width | None, bits: float | None) -> int:
    """Of one layer."""
    name, parts = alike.name, alike.parts
    bias = parts["bias"].elements if "bias" in parts else 0
    if name in CLASSES:
        return bias + (parts["weight"].elements * 32 // width[0] if width else 0)
    if name in PACKED_IN:
        return bias + (round(parts[PACKED_IN[name]].elements * 32 / bits) if bits else 0)
    if name == "exl3":
        return bias + 256 * _product(parts["trellis"].shape[:-1])
    if name in PER_WORD:
        return bias + round(PER_WORD[name](parts))
    return bias + (parts["weight"].elements if "weight" in parts else 0)


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result
