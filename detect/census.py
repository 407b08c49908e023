"""Tensor census: which layout each linear layer is stored in, by names, dtypes and shapes. Pure.

`RULES` is the decision table; the first rule that matches a layer decides. Tensors are facts, so
nothing here looks at a config.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from msgspec import Struct, field

from detect import layer_words
from detect.layer_words import Words
from detect.tensor import Column, Tensor, numberless

Parts = Mapping[str, Tensor]
"""The tensors of one layer, by what follows its prefix: `weight`, `scales`, …"""

FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
FP8 = frozenset({"F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})
E8M0 = frozenset({"U8", "F8_E8M0"})
I32 = frozenset({"I32", "U32"})
I16 = frozenset({"I16", "U16"})
U8, I8, U32, ANY = frozenset({"U8"}), frozenset({"I8"}), frozenset({"U32"}), frozenset[str]()


def _always(parts: Parts) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A layer matches when it has all of `has`, in one of these dtypes, and none of `lacks`."""

    name: str
    has: Mapping[str, frozenset[str]]
    lacks: frozenset[str] = frozenset()
    where: Callable[[Parts], bool] = _always

    def may_match(self, suffixes: frozenset[str]) -> bool:
        return self.has.keys() <= suffixes and self.lacks.isdisjoint(suffixes)

    def matches(self, parts: Parts) -> bool:
        """Of layers that it may match."""
        for suffix, dtypes in self.has.items():
            if dtypes and parts[suffix].dtype not in dtypes:
                return False
        return self.where(parts)


def _same_columns(parts: Parts) -> bool:
    """GPTQ packs along the input: its columns are outputs, one scale each."""
    return "g_idx" in parts or _last(parts["qweight"]) == _last(parts["scales"])


def _same_rows(parts: Parts) -> bool:
    return parts["qweight"].shape[:1] == parts["scales"].shape[:1]


def _bitnet_shape(parts: Parts) -> bool:
    return parts["weight_scale"].elements == 1


def _half_width(parts: Parts) -> bool:
    """Two 4-bit values in each byte, one scale for each 16 of them."""
    return _last(parts["weight"]) * 2 == _last(parts["weight_scale"]) * 16


def _block_scales(parts: Parts) -> bool:
    return len(parts["weight_scale"].shape) >= 2 and _last(parts["weight_scale"]) > 1


def _scale_per_channel(parts: Parts) -> bool:
    return parts["weight_scale"].elements > 1


def _u8_scale_ratio(wanted: int) -> Callable[[Parts], bool]:
    """Bits times group size, which is unambiguous for MLX's scales of one byte."""

    def where(parts: Parts) -> bool:
        columns = _last(parts["scales"])
        return bool(columns) and 32 * _last(parts["weight"]) == wanted * columns

    return where


def _nf4(parts: Parts) -> bool:
    return any(suffix.startswith("weight.quant_state.") for suffix in parts)


def _last(tensor: Tensor) -> int:
    return tensor.shape[-1] if tensor.shape else 0


RULES: tuple[Rule, ...] = (
    Rule(name="exl3", has={"trellis": I16}),
    Rule(name="exl2", has={"q_weight": I32, "q_scale": ANY, "q_groups": ANY}),
    Rule(name="uqff", has={"weight.format": U8}),
    Rule(
        name="bnb-4bit",
        has={"weight": U8, "weight.absmax": ANY, "weight.quant_map": ANY},
    ),
    Rule(name="bnb-4bit", has={"weight": U8, "weight.absmax": ANY}, where=_nf4),
    Rule(name="bnb-8bit", has={"weight": I8, "SCB": ANY}),
    Rule(name="hqq", has={"W_q": ANY, "scale": ANY}),
    Rule(name="ct-nvfp4", has={"weight_packed": U8, "weight_global_scale": ANY}),
    Rule(name="ct-mxfp4", has={"weight_packed": U8, "weight_scale": E8M0}),
    Rule(name="ct-packed", has={"weight_packed": I32, "weight_scale": ANY}),
    Rule(
        name="modelopt-nvfp4",
        has={"weight": U8, "weight_scale": FP8, "weight_scale_2": ANY},
        where=_half_width,
    ),
    Rule(name="mxfp4", has={"blocks": U8, "scales": U8}),
    Rule(name="gptq", has={"qweight": I32, "qzeros": ANY, "scales": ANY}, where=_same_columns),
    Rule(name="awq-gemv-fast", has={"qweight": I16, "qzeros": ANY, "scales": ANY}),
    Rule(name="awq-gemv", has={"qweight": I32, "qzeros": ANY, "scales": ANY}, where=_same_rows),
    Rule(name="awq-gemm", has={"qweight": I32, "qzeros": ANY, "scales": ANY}),
    Rule(name="marlin", has={"B": ANY, "s": ANY}),
    Rule(name="mlx-affine", has={"weight": U32, "scales": FLOATS, "biases": FLOATS}),
    Rule(name="metal", has={"weight": U32, "scales": ANY, "qbiases": ANY}),
    Rule(
        name="mlx-nvfp4", has={"weight": U32, "scales": U8}, where=_u8_scale_ratio(64),
        lacks=frozenset({"biases"}),
    ),
    Rule(
        name="mlx-mxfp4", has={"weight": U32, "scales": U8}, where=_u8_scale_ratio(128),
        lacks=frozenset({"biases"}),
    ),
    Rule(
        name="mlx-mxfp8", has={"weight": U32, "scales": U8}, where=_u8_scale_ratio(256),
        lacks=frozenset({"biases"}),
    ),
    Rule(name="fp8-block", has={"weight": FP8, "weight_scale_inv": ANY}),
    Rule(name="fp8-tensor", has={"weight": FP8, "qscale_weight": ANY}),
    Rule(name="fp8-block", has={"weight": FP8, "weight_scale": ANY}, where=_block_scales),
    Rule(name="fp8-channel", has={"weight": FP8, "weight_scale": ANY}, where=_scale_per_channel),
    Rule(name="fp8-tensor", has={"weight": FP8, "weight_scale": ANY}),
    Rule(name="fp8-raw", has={"weight": FP8}),
    Rule(name="eetq", has={"weight": I8, "weight_scales": ANY}),
    Rule(name="ct-int8", has={"weight": I8, "weight_scale": ANY}),
    Rule(name="quanto", has={"weight._data": ANY, "weight._scale": ANY}),
    Rule(name="torchao", has={"_weight_qdata": ANY}),
    Rule(name="torchao", has={"weight:_weight_qdata": ANY}),
    Rule(name="higgs", has={"qweight": U8, "scales": ANY, "tables": ANY}),
    Rule(name="aqlm", has={"codes": ANY, "codebooks": ANY}),
    Rule(name="bitnet", has={"weight": U8, "weight_scale": ANY}, where=_bitnet_shape),
    Rule(name="peft-lora", has={"lora_A": ANY}),
    Rule(name="peft-lora", has={"lora_B": ANY}),
    Rule(name="mlx-lora", has={"lora_a": ANY}),
    Rule(name="mlx-lora", has={"lora_b": ANY}),
    Rule(name="plain", has={"weight": FLOATS}),
    Rule(name="unknown", has={"weight": ANY}),
    Rule(name="unknown", has={"qweight": ANY}),
)  # fmt: skip

PLAIN = "plain"
UNKNOWN = "unknown"

SUFFIXES = frozenset(
    {
        "weight", "bias", "scales", "biases", "qbiases", "qweight", "qzeros", "g_idx",
        "trellis", "suh", "svh", "su", "sv", "mcg", "mul1", "q_weight", "q_invperm", "q_scale",
        "q_scale_max", "q_groups", "q_group_map", "q_perm", "weight_packed", "weight_scale",
        "weight_shape", "weight_zero_point", "weight_g_idx", "weight_global_scale",
        "input_global_scale", "input_scale", "output_scale", "weight_scale_2",
        "weight_scale_inv", "SCB", "weight_format", "W_q", "scale", "zero", "nbits",
        "group_size", "shape", "axis", "packing", "stores_quant_config", "encoded_state_dict",
        "channel_wise", "compute_dtype", "quant_scale", "quant_zero", "unpack_view_dtype",
        "view_as_float", "offload_meta", "optimize", "round_zero", "B", "s", "workspace",
        "qscale_weight", "qscale_act", "weight_scales", "tables", "tables2", "codes",
        "codebooks", "lora_a", "lora_b", "_weight_qdata", "_weight_scale", "_weight_zero_point",
        "weight:_weight_qdata", "weight:_weight_scale", "global_scale",
    }
)  # fmt: skip
"""Last parts of tensor names that follow the name of a layer."""

TAILS: tuple[tuple[str, str], ...] = (
    ("_blocks", "blocks"),
    ("_scales", "scales"),
    ("_scale_inv", "weight_scale_inv"),
    ("_weight_scale", "weight_scale"),
    ("_bias", "bias"),
)
"""Fused experts glue the suffix to the layer's name: `experts.gate_up_proj_blocks`."""

MAX_CHANNELS = 4


class Alike(Struct, frozen=True, gc=False):
    """Layers that differ in nothing but the numbers in their names.

    A network has hundreds of layers and some twenty of these, and what is asked about names and
    shapes has one answer for all of them. `name` is their class, empty for what is no matrix.
    `names` are one tensor's of each, and the last `cut` characters of these no part of the prefix:
    models have hundreds of prefixes, of which mostly one is asked for.
    """

    names: Sequence[str]
    cut: int
    prefix: str
    """One of them, for questions about its words."""
    parts: Parts
    name: str
    linear: bool
    words: Words

    @property
    def tower(self) -> bool:
        return self.words.tower

    @property
    def prefixes(self) -> list[str]:
        return [_without(name, self.cut) for name in self.names]

    @property
    def count(self) -> int:
        return len(self.names)

    @property
    def quantized(self) -> bool:
        return self.name not in ("", PLAIN, UNKNOWN)

    def has_layer(self, number: int) -> bool:
        """Whether one of them is in the layer of this number."""
        if (place := self.words.number) is None:
            return False
        begin, end = place
        return f"{self.names[0][:begin]}{number}{self.names[0][end:]}" in self.names


class Census(Struct, frozen=True, kw_only=True, dict=True):
    """All layers, by what is alike in them. `counts` has the layers per class, over
    the language model's linear ones, the most frequent class first."""

    layers: tuple[Alike, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def parts(self) -> Mapping[str, Parts]:
        """Of every layer, by its prefix."""
        return {prefix: alike.parts for alike in self.layers for prefix in alike.prefixes}

    @cached_property
    def main(self) -> str:
        """The class that the weights are known by: the most frequent that is not plain."""
        for name in self.counts:
            if name not in (PLAIN, UNKNOWN):
                return name
        return PLAIN if PLAIN in self.counts or not self.counts else UNKNOWN

    @property
    def linear_layers(self) -> int:
        return sum(self.counts.values())

    def of_class(self, *names: str) -> list[Alike]:
        """The layers of these classes, embeddings and towers included."""
        return [alike for alike in self.layers if alike.name in names]

    @property
    def tensor_count(self) -> int:
        return sum(len(alike.parts) * alike.count for alike in self.layers)

    @property
    def towers(self) -> bool:
        return any(alike.words.tower for alike in self.layers)

    @cached_property
    def stacked_experts(self) -> bool:
        return any(alike.words.stacked for alike in self.layers)

    @property
    def channels_last_kernels(self) -> bool:
        """Kernels have one to four input channels, by whose place they are told."""
        named = [a.parts["weight"].shape for a in self.layers if "weight" in a.parts]
        return any(_channels_last(shape) for shape in named if len(shape) > 2)

    @property
    def bare_layers(self) -> bool:
        """The language model's layers are below nothing, not even `model.`."""
        return any(a.prefix.startswith("layers.") and not a.tower for a in self.layers)

    @cached_property
    def experts(self) -> bool:
        return any(alike.words.expert for alike in self.layers)

    @property
    def quantized_router(self) -> bool:
        return any(alike.words.router and alike.quantized for alike in self.layers)

    def quantized(self, names: Collection[str]) -> bool | None:
        """Whether the layer of such a name is quantised; None when there is no such layer."""
        named = [a for a in self.layers if a.words.last in names and a.name and not a.tower]
        return any(alike.quantized for alike in named) if named else None

    @property
    def name_prefix(self) -> str:
        """What stands before `model.layers.` or `layers.` in the language model's names."""
        numbered = (a.words for a in self.layers if not a.tower and a.words.number)
        return next((words.root for words in numbered), "")

    def has_layer(self, number: int) -> bool:
        """Whether the language model has a layer of this number."""
        return any(alike.has_layer(number) for alike in self.layers if not alike.tower)

    @property
    def layer_count(self) -> int:
        """One more than the highest layer number of the language model."""
        prefixes = (p for alike in self.layers if not alike.tower for p in alike.prefixes)
        return max(map(layer_words.layers_up_to, prefixes), default=0)


def _channels_last(shape: Sequence[int]) -> bool:
    if len(shape) == 3:
        return shape[2] == 1 < shape[1]
    return len(shape) > 3 and shape[-1] <= MAX_CHANNELS < shape[-2]


DIGITS = frozenset("0123456789")


def take(columns: Iterable[Column]) -> Census:
    layers = tuple(_layers(columns))
    counts: Counter[str] = Counter()
    for alike in layers:
        if alike.name and alike.linear:
            counts[alike.name] += alike.count
    return Census(layers=layers, counts=dict(counts.most_common()))


def _layers(columns: Iterable[Column]) -> Iterator[Alike]:
    """Pieces of one layer have prefixes that differ in nothing but numbers."""
    related: defaultdict[bytes, list[_Piece]] = defaultdict(list)
    for column in columns:
        for piece in _pieces(column):
            related[piece.numberless].append(piece)
    for pieces in related.values():
        if len(pieces) == 1:
            yield _alike(pieces[0].names, pieces[0].cut, pieces)
        else:
            yield from (_alike(prefixes, 0, own) for prefixes, own in _grouped(pieces))


class _Piece(Struct, frozen=True, gc=False):
    """One tensor of many layers, equal in all of them. `cut` as in `Alike`."""

    names: Sequence[str]
    cut: int
    numberless: bytes
    suffix: str
    tensor: Tensor

    @property
    def prefixes(self) -> tuple[str, ...]:
        return tuple([_without(name, self.cut) for name in self.names])


def _without(name: str, cut: int) -> str:
    return name[:-cut] if cut else name


def _grouped(pieces: Sequence[_Piece]) -> Iterable[tuple[Sequence[str], Sequence[_Piece]]]:
    """Layers are alike when they are made of the same pieces."""
    groups: dict[tuple[str, ...], list[_Piece]] = {}
    for piece in pieces:
        groups.setdefault(piece.prefixes, []).append(piece)
    if len(set().union(*groups)) == sum(map(len, groups)):
        return groups.items()
    made_of: defaultdict[str, list[_Piece]] = defaultdict(list)
    for prefixes, own in groups.items():
        for prefix in prefixes:
            made_of[prefix] += own
    alike: dict[tuple[int, ...], list[str]] = {}
    for prefix, own in made_of.items():
        alike.setdefault(tuple(map(id, own)), []).append(prefix)
    return [(prefixes, made_of[prefixes[0]]) for prefixes in alike.values()]


def _pieces(column: Column) -> Iterator[_Piece]:
    names = column.names
    prefix, suffix = split(names[0])
    tail = names[0][len(prefix) :]
    if _split_alike(names, tail):
        yield _Piece(names, len(tail), numberless(prefix), suffix, column.tensor)
    else:
        for prefix, suffix in map(split, names):
            yield _Piece((prefix,), 0, numberless(prefix), suffix, column.tensor)


def _split_alike(names: Sequence[str], tail: str) -> bool:
    """Some suffixes have numbers, so that one name may have one, and another none."""
    if not tail:
        return all(split(name)[0] == name for name in names)
    return DIGITS.isdisjoint(tail) or all(name.endswith(tail) for name in names)


def _alike(names: Sequence[str], cut: int, pieces: Sequence[_Piece]) -> Alike:
    prefix = _without(names[0], cut)
    parts = {piece.suffix: piece.tensor for piece in pieces}
    words, weight = layer_words.of(prefix), parts.get("weight")
    vector = weight is not None and len(weight.shape) < 2
    # Empty for what is no matrix: norms, biases, single vectors.
    name = "" if vector and len(parts) == 1 else _class(parts)
    linear = not (vector or words.tower or words.not_linear)
    return Alike(names, cut, prefix, parts, name, linear, words)


def split(name: str) -> tuple[str, str]:
    """The layer's prefix and the suffix: `("model.layers.0.mlp.up_proj", "weight.absmax")`."""
    if ".weight." in name or ".lora_" in name:
        for marker in (".weight.", ".lora_A.", ".lora_B."):
            head, found, tail = name.partition(marker)
            if found:
                return head, f"weight.{tail}" if marker == ".weight." else marker.strip(".")
    head, _, last = name.rpartition(".")
    if last in SUFFIXES:
        return head, last
    for tail, suffix in TAILS:
        if last.endswith(tail):
            return name[: -len(tail)], suffix
    return name, "weight"


def _class(parts: Parts) -> str:
    for rule in _rules_about(frozenset(parts)):
        if rule.matches(parts):
            return rule.name
    return ""


@lru_cache(maxsize=256)
def _rules_about(suffixes: frozenset[str]) -> tuple[Rule, ...]:
    """Those that may match a layer of these tensors; most layers have the same ones."""
    return tuple(rule for rule in RULES if rule.may_match(suffixes))
