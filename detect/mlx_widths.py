"""Bits and group size of MLX's packed tensors. Pure.

Shapes give the product of both: 32 · columns of `weight` = bits · group · columns of `scales`.
It factors in several ways, so a layer whose input width is known decides, and only where none is
does the config, which is a claim.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from detect.census import Alike, Census, Parts
from detect.hf_config import mapping, number

Width = tuple[int, int]
"""Bits and group size."""

AFFINE_WIDTHS: tuple[Width, ...] = tuple(
    (bits, group) for group in (64, 32, 128) for bits in (4, 8, 6, 5, 3, 2, 1)
)
FIXED_WIDTHS: Mapping[str, Width] = {
    "mlx-mxfp4": (4, 32),
    "mlx-mxfp8": (8, 32),
    "mlx-nvfp4": (4, 16),
}
CLASSES = ("mlx-affine", *FIXED_WIDTHS)

READS_HIDDEN = frozenset(
    {
        "embed_tokens", "wte", "lm_head", "q_proj", "k_proj", "v_proj", "qkv_proj",
        "query_key_value", "Wqkv", "c_attn", "gate_proj", "up_proj", "gate_up_proj", "gate",
        "router", "q_a_proj", "kv_a_proj_with_mqa", "in_proj", "in_proj_qkvz", "in_proj_ba",
    }
)  # fmt: skip
"""Layers whose input is the hidden state, so that its width is theirs."""

NORMS = ("model.norm", "norm", "model.layers.0.input_layernorm", "layers.0.input_layernorm")


class Widths(Struct, frozen=True):
    """By layer prefix; empty when nothing is in MLX's packing."""

    by_layer: Mapping[str, Width]
    contradictions: tuple[str, ...] = ()

    @property
    def distinct(self) -> frozenset[Width]:
        return frozenset(self.by_layer.values())

    @property
    def main(self) -> Width | None:
        return next((w for w, _ in Counter(self.by_layer.values()).most_common(1)), None)


def find(census: Census, claim: Mapping[str, Any], hidden_size: int | None) -> Widths:
    """The width of every packed layer, and where the claim says otherwise."""
    layers = census.of_class(*CLASSES)
    if not layers:
        return Widths({})
    hidden = _norm_size(census) or hidden_size
    certain = {p: w for alike in layers for p, w in _certain(census, alike, hidden)}
    # In the order of the file, which decides between widths that are equally frequent.
    known = {prefix: certain[prefix] for prefix in census.parts if prefix in certain}
    usual = [width for width, _ in Counter(known.values()).most_common()]
    widths = dict(known)
    for alike in layers:
        unknown = [prefix for prefix in alike.prefixes if prefix not in known]
        if unknown and (possible := candidates(alike.parts)):
            for prefix in unknown:
                widths[prefix] = _likely(possible, _claimed(claim, prefix), usual)
    return Widths(widths, tuple(_contradictions(known, claim)))


def candidates(parts: Parts) -> list[Width]:
    """The legal widths that fit the shapes, most usual first."""
    weight, scales = parts["weight"].shape, parts["scales"].shape
    if not weight or not scales or not scales[-1] or 32 * weight[-1] % scales[-1]:
        return []
    product = 32 * weight[-1] // scales[-1]
    return [(bits, group) for bits, group in AFFINE_WIDTHS if bits * group == product]


def _certain(census: Census, alike: Alike, hidden: int | None) -> Iterator[tuple[str, Width]]:
    """By the scheme, when only one width fits, or by the layer's input width."""
    if (fixed := FIXED_WIDTHS.get(alike.name)) is not None:
        yield from ((prefix, fixed) for prefix in alike.prefixes)
        return
    possible = candidates(alike.parts)
    if len(possible) == 1:
        yield from ((prefix, possible[0]) for prefix in alike.prefixes)
        return
    scales = alike.parts["scales"].shape
    by_input = {w[1] * (scales[-1] if scales else 0): w for w in possible}
    leaf = alike.prefix.rpartition(".")[2]
    for prefix in alike.prefixes if leaf in READS_HIDDEN or leaf == "down_proj" else ():
        width = hidden if leaf in READS_HIDDEN else _inner_width(census, prefix)
        if width in by_input:
            yield prefix, by_input[width]


def _inner_width(census: Census, down_proj: str) -> int | None:
    """What goes into the last layer of a feed-forward block: what comes out of the first."""
    parent = down_proj.rpartition(".")[0]
    sibling = census.parts.get(f"{parent}.gate_proj") or census.parts.get(f"{parent}.up_proj")
    weight = sibling.get("weight") if sibling else None
    return weight.shape[-2] if weight is not None and len(weight.shape) >= 2 else None


def _norm_size(census: Census) -> int | None:
    for name in (census.name_prefix + norm for norm in NORMS):
        weight = census.parts.get(name, {}).get("weight")
        if weight is not None and len(weight.shape) == 1:
            return weight.shape[0]
    return None


def _likely(possible: list[Width], claimed: Width | None, usual: list[Width]) -> Width:
    ranked = (claimed, *usual)
    return next((width for width in ranked if width in possible), possible[0])


def _claimed(claim: Mapping[str, Any], prefix: str) -> Width | None:
    """What the config says of this layer: by its own name, else for all."""
    own = mapping(claim.get(prefix))
    bits = number(own.get("bits")) or number(claim.get("bits"))
    group = number(own.get("group_size")) or number(claim.get("group_size"))
    return (bits, group) if bits and group else None


def _contradictions(known: Mapping[str, Width], claim: Mapping[str, Any]) -> Iterable[str]:
    """Only named layers, and the general claim where no layer has it: the rest is tolerated."""
    for prefix, width in known.items():
        if mapping(claim.get(prefix)) and (said := _claimed(claim, prefix)) not in (None, width):
            assert said is not None
            yield f"{_words(said)} for {prefix}, and its tensors have {_words(width)}"
    general = _claimed(claim, "")
    if general is not None and known and general not in known.values():
        found = ", ".join(_words(width) for width in sorted(set(known.values())))
        yield f"{_words(general)}, and the tensors have {found}"


def _words(width: Width) -> str:
    return f"{width[0]}-bit group {width[1]}"
