"""How safetensors weights are quantised: the census says which scheme, shapes say how far. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from msgspec import structs

from detect.census import PLAIN, UNKNOWN, Census, Parts
from detect.hf_config import Configs, mapping, number, text
from detect.mlx_widths import FIXED_WIDTHS, Widths
from detect.types import Quantization, WeightFormat

Measured = tuple[float | None, int | None]
"""Bits and group size of one layer."""
Measure = Callable[[Parts, Configs], Measured]


def _fixed(bits: float | None, group: int | None = None) -> Measure:
    return lambda parts, configs: (bits, group)


def _gptq(parts: Parts, configs: Configs) -> Measured:
    """`qweight` is [in · bits / 32, out]; `scales` has a row per group."""
    groups = parts["scales"].shape[0] if parts["scales"].shape else 0
    packed = parts["qweight"].shape[0] if parts["qweight"].shape else 0
    claimed = number(configs.claim.get("group_size"))
    wide = parts["g_idx"].elements if "g_idx" in parts else (claimed or 0) * groups
    if not groups or not wide:
        return number(configs.claim.get("bits")), claimed
    return 32 * packed / wide, wide // groups


def _awq(parts: Parts, configs: Configs) -> Measured:
    """`qweight` is [in, out · bits / 32]; `scales` is [in / group, out]."""
    weight, scales = parts["qweight"].shape, parts["scales"].shape
    if len(weight) != 2 or len(scales) != 2 or 0 in scales:
        return _claimed(parts, configs)
    return 32 * weight[1] / scales[1], weight[0] // scales[0]


def _claimed(parts: Parts, configs: Configs) -> Measured:
    """For schemes whose shapes do not tell. Old AWQ names the same things differently."""
    claim = configs.claim
    bits = claim.get("bits", claim.get("w_bit", claim.get("num_bits")))
    known = isinstance(bits, int | float) and not isinstance(bits, bool) and 0 < bits <= 64
    group = number(claim.get("group_size")) or number(claim.get("q_group_size"))
    return (bits if known else None), group


def _bnb_4bit(parts: Parts, configs: Configs) -> Measured:
    scales = parts["weight.absmax"].elements
    return 4, 2 * parts["weight"].elements // scales if scales else None


def _ct_packed(parts: Parts, configs: Configs) -> Measured:
    """The logical shape is stored as data; the group config names bits, the scales the groups."""
    weights = _ct_weights(configs)
    bits = number(weights.get("num_bits"))
    group = number(weights.get("group_size"))
    packed = parts["weight_packed"].shape
    scales = parts["weight_scale"].shape
    if bits and packed and scales and scales[-1] > 1:
        group = 32 * packed[-1] // bits // scales[-1]
    return bits, group


def _ct_weights(configs: Configs) -> Mapping[str, object]:
    groups = mapping(configs.claim.get("config_groups"))
    found = (mapping(mapping(group).get("weights")) for group in groups.values())
    return next((weights for weights in found if weights), {})


def _exl3(parts: Parts, configs: Configs) -> Measured:
    return (parts["trellis"].shape[-1] / 16 if parts["trellis"].shape else None), None


def _fp8_block(parts: Parts, configs: Configs) -> Measured:
    scales = parts.get("weight_scale_inv", parts.get("weight_scale"))
    weight = parts["weight"].shape
    if scales is None or not scales.shape or not weight or not scales.shape[-1]:
        return 8, None
    block = configs.claim.get("weight_block_size")
    stated = number(block[-1]) if isinstance(block, list) and block else None
    return 8, stated or -(-weight[-1] // scales.shape[-1])


@dataclass(frozen=True, slots=True)
class Scheme:
    """One census class as an engine's tables name it."""

    method: str
    mode: str | None
    measure: Measure


SCHEMES: Mapping[str, Scheme] = {
    "gptq": Scheme("gptq", None, _gptq),
    "marlin": Scheme("gptq", "marlin", _claimed),
    "awq-gemm": Scheme("awq", "gemm", _awq),
    "awq-gemv": Scheme("awq", "gemv", _claimed),
    "awq-gemv-fast": Scheme("awq", "gemv_fast", _claimed),
    "bnb-4bit": Scheme("bitsandbytes", "nf4", _bnb_4bit),
    "bnb-8bit": Scheme("bitsandbytes", "int8", _fixed(8)),
    "fp8-block": Scheme("fp8", "block", _fp8_block),
    "fp8-channel": Scheme("fp8", "channel", _fixed(8)),
    "fp8-tensor": Scheme("fp8", "tensor", _fixed(8)),
    "fp8-raw": Scheme("fp8", "raw", _fixed(8)),
    "ct-packed": Scheme("compressed-tensors", "pack-quantized", _ct_packed),
    "ct-nvfp4": Scheme("compressed-tensors", "nvfp4-pack-quantized", _fixed(4, 16)),
    "ct-mxfp4": Scheme("compressed-tensors", "mxfp4-pack-quantized", _fixed(4, 32)),
    "ct-int8": Scheme("compressed-tensors", "int-quantized", _fixed(8)),
    "modelopt-nvfp4": Scheme("modelopt", "nvfp4", _fixed(4, 16)),
    "mxfp4": Scheme("mxfp4", None, _fixed(4, 32)),
    "hqq": Scheme("hqq", None, _claimed),
    "eetq": Scheme("eetq", None, _fixed(8)),
    "quanto": Scheme("quanto", None, _claimed),
    "torchao": Scheme("torchao", None, _claimed),
    "higgs": Scheme("higgs", None, _claimed),
    "aqlm": Scheme("aqlm", None, _claimed),
    "bitnet": Scheme("bitnet", None, _fixed(1.58)),
    "metal": Scheme("metal", None, _claimed),
    "exl2": Scheme("exl2", None, _claimed),
    "exl3": Scheme("exl3", None, _exl3),
    "uqff": Scheme("uqff", None, _claimed),
}

UQFF_SUFFIX = ".uqff"

FP8_METHODS = frozenset({"compressed-tensors", "modelopt", "fbgemm_fp8"})
"""Schemes that store FP8 alike, so that only the config can tell which one wrote it."""

REPACKED_BY = frozenset({"auto-round", "intel/auto-round"})
"""Stores GPTQ's or AWQ's packing under its own name."""


def find(census: Census, configs: Configs, widths: Widths) -> Quantization | None:
    """None for plain weights, and for a layout that no rule knows."""
    name = census.main
    if name in (PLAIN, UNKNOWN):
        return None
    if (width := widths.main) is not None and name.startswith("mlx-"):
        return _mlx(census, name, width, widths)
    if (scheme := SCHEMES.get(name)) is None:
        return None
    counts: Counter[Measured] = Counter()
    for alike in census.of_class(name):
        counts[scheme.measure(alike.parts, configs)] += alike.count
    measured = counts.most_common()
    (bits, group), _ = measured[0]
    found = Quantization(
        method=scheme.method,
        bits=bits,
        group_size=group,
        mode=scheme.mode,
        mixed=len({b for (b, _), _ in measured}) > 1,
    )
    return _as_claimed(found, name, configs)


def weight_format(
    census: Census, metadata: Mapping[str, str], suffixes: Collection[str] = ()
) -> tuple[WeightFormat, str]:
    """MLX's own layout or Hugging Face's, and what shows it."""
    if UQFF_SUFFIX in suffixes:
        return WeightFormat.UQFF, "files that end in .uqff, in safetensors' container"
    name = census.main
    matching = f"in {census.counts.get(name, 0)} of {census.linear_layers} linear layers"
    if name == "mlx-affine":
        return WeightFormat.MLX, f"U32 weight with float scales and biases {matching}"
    if name in FIXED_WIDTHS:
        return WeightFormat.MLX, f"U32 weight with one-byte scales and no biases {matching}"
    if name == PLAIN and census.stacked_experts:
        return WeightFormat.MLX, "experts stacked as switch_mlp, which only MLX does"
    if name == PLAIN and metadata.get("format") == "mlx":
        return WeightFormat.MLX, "float weights, and the header says format mlx"
    if name == PLAIN:
        return WeightFormat.SAFETENSORS, f"float weights {matching}"
    return WeightFormat.SAFETENSORS, f"tensors of {name} {matching}"


def _mlx(census: Census, name: str, width: tuple[int, int], widths: Widths) -> Quantization:
    modes = {c for c in census.counts if c.startswith("mlx-")}
    return Quantization(
        method="mlx",
        bits=width[0],
        group_size=width[1],
        mode=name.removeprefix("mlx-"),
        mixed=len(widths.distinct) > 1 or len(modes) > 1,
    )


def _as_claimed(found: Quantization, name: str, configs: Configs) -> Quantization:
    """Names that tensors cannot tell apart."""
    method = configs.quant_method
    if name == "bnb-4bit" and configs.claim.get("bnb_4bit_quant_type") == "fp4":
        return structs.replace(found, mode="fp4")
    if name.startswith("fp8-") and method in FP8_METHODS:
        mode = text(configs.claim.get("format")) if method == "compressed-tensors" else None
        return structs.replace(found, method=method, mode=mode or found.mode)
    if method in REPACKED_BY and found.method in ("gptq", "awq"):
        return structs.replace(found, method="auto-round", mode=found.method)
    return found
