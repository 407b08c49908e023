"""Safetensors files written byte by byte, and folders of models made of them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detect.safetensors_header import DTYPE_BITS

Spec = tuple[str, Sequence[int]]
"""Dtype and shape."""

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, HEAD, VOCABULARY = 128, 256, 2, 4, 2, 32, 384

CONFIG: Mapping[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
MOE_CONFIG: Mapping[str, Any] = {
    **CONFIG,
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": HIDDEN,
}

LINEAR: Mapping[str, tuple[int, int]] = {
    "self_attn.q_proj": (HEADS * HEAD, HIDDEN),
    "self_attn.k_proj": (KV_HEADS * HEAD, HIDDEN),
    "self_attn.v_proj": (KV_HEADS * HEAD, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HEADS * HEAD),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
"""Outputs and inputs of the layers of a dense model."""

PARAMETERS = (
    2 * VOCABULARY * HIDDEN
    + HIDDEN
    + LAYERS * (sum(o * i for o, i in LINEAR.values()) + 2 * HIDDEN)
)


def encode(
    tensors: Mapping[str, Spec], metadata: Mapping[str, str] | None = None, **changes: Any
) -> bytes:
    """A whole file, its data zeros. `changes` replace entries of the header."""
    header: dict[str, Any] = {"__metadata__": metadata or {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + _size(dtype, shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    header.update(changes)
    return frame(json.dumps(header).encode(), end)


def frame(header: bytes, data_bytes: int) -> bytes:
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + bytes(data_bytes)


def _size(dtype: str, shape: Sequence[int]) -> int:
    bits = DTYPE_BITS[dtype]
    for size in shape:
        bits *= size
    return bits // 8


def write_model(
    folder: Path,
    tensors: Mapping[str, Spec],
    config: Mapping[str, Any] | None = CONFIG,
    *,
    metadata: Mapping[str, str] | None = None,
    name: str = "model.safetensors",
    tokenizer: bool = True,
    **files: Any,
) -> Path:
    """A folder with one weight file; `files` are JSON files by stem."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(encode(tensors, metadata))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(dict(config)))
    if tokenizer:
        (folder / "tokenizer.json").write_text("{}")
    for stem, value in files.items():
        (folder / f"{stem}.json").write_text(json.dumps(value))
    return folder


def write_shards(
    folder: Path, tensors: Mapping[str, Spec], count: int, config: Mapping[str, Any] = CONFIG
) -> Path:
    """The model in `count` files with their index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(config)))
    (folder / "tokenizer.json").write_text("{}")
    weight_map = {}
    for number in range(count):
        part = dict(list(tensors.items())[number::count])
        file = f"model-{number + 1:05}-of-{count:05}.safetensors"
        (folder / file).write_bytes(encode(part))
        weight_map.update(dict.fromkeys(part, file))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def dense(
    layer: Mapping[str, tuple[int, int]] = LINEAR,
    *,
    quantize: Any = None,
    embeddings: Any = None,
    prefix: str = "",
    tied: bool = False,
) -> dict[str, Spec]:
    """A dense model; `quantize(prefix, outputs, inputs)` gives the tensors of a linear layer."""
    make = quantize or plain
    tensors: dict[str, Spec] = {}
    tensors.update((embeddings or plain)(f"{prefix}model.embed_tokens", VOCABULARY, HIDDEN))
    tensors[f"{prefix}model.norm.weight"] = ("BF16", (HIDDEN,))
    if not tied:
        tensors.update((embeddings or plain)(f"{prefix}lm_head", VOCABULARY, HIDDEN))
    for number in range(LAYERS):
        base = f"{prefix}model.layers.{number}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{base}.{norm}.weight"] = ("BF16", (HIDDEN,))
        for name, (outputs, inputs) in layer.items():
            tensors.update(make(f"{base}.{name}", outputs, inputs))
    return tensors


ATTENTION = {name: size for name, size in LINEAR.items() if name.startswith("self_attn")}
EXPERTS = 4


def mixture(*, quantize: Any = None, router: Any = None, stacked: bool = False) -> dict[str, Spec]:
    """A mixture of experts: stacked as MLX does, or one by one as in Hugging Face's layout."""
    make = quantize or plain
    tensors = dense(ATTENTION, quantize=quantize, embeddings=quantize)
    for number in range(LAYERS):
        mlp = f"model.layers.{number}.mlp"
        tensors.update((router or plain)(f"{mlp}.gate", EXPERTS, HIDDEN))
        for name in ("gate_proj", "up_proj", "down_proj"):
            for expert in range(1 if stacked else EXPERTS):
                base = f"{mlp}.switch_mlp" if stacked else f"{mlp}.experts.{expert}"
                made = make(f"{base}.{name}", HIDDEN, HIDDEN)
                tensors.update(_stack(made) if stacked else made)
    return tensors


def _stack(tensors: Mapping[str, Spec]) -> dict[str, Spec]:
    return {name: (dtype, (EXPERTS, *shape)) for name, (dtype, shape) in tensors.items()}


# Layouts of one linear layer


def plain(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {f"{prefix}.weight": ("BF16", (outputs, inputs))}


def mlx(bits: int = 4, group: int = 64, mode: str = "affine") -> Any:
    def layer(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
        scales = (outputs, inputs // group)
        packed: dict[str, Spec] = {
            f"{prefix}.weight": ("U32", (outputs, inputs * bits // 32)),
            f"{prefix}.scales": ("BF16" if mode == "affine" else "U8", scales),
        }
        if mode == "affine":
            packed[f"{prefix}.biases"] = ("BF16", scales)
        return packed

    return layer


def gptq(bits: int = 4, group: int = 128, g_idx: bool = True) -> Any:
    def layer(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
        packed: dict[str, Spec] = {
            f"{prefix}.qweight": ("I32", (inputs * bits // 32, outputs)),
            f"{prefix}.qzeros": ("I32", (inputs // group, outputs * bits // 32)),
            f"{prefix}.scales": ("F16", (inputs // group, outputs)),
        }
        return packed | ({f"{prefix}.g_idx": ("I32", (inputs,))} if g_idx else {})

    return layer


def awq(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {
        f"{prefix}.qweight": ("I32", (inputs, outputs // 8)),
        f"{prefix}.qzeros": ("I32", (inputs // 64, outputs // 8)),
        f"{prefix}.scales": ("F16", (inputs // 64, outputs)),
    }


def awq_gemv(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {
        f"{prefix}.qweight": ("I32", (outputs, inputs // 8)),
        f"{prefix}.qzeros": ("I32", (outputs, inputs // 64 // 8 + 1)),
        f"{prefix}.scales": ("F16", (outputs, inputs // 64)),
    }


def awq_gemv_fast(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {
        f"{prefix}.qweight": ("I16", (outputs // 4, inputs)),
        f"{prefix}.qzeros": ("F16", (inputs // 64, outputs)),
        f"{prefix}.scales": ("F16", (inputs // 64, outputs)),
    }


def bnb_4bit(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {
        f"{prefix}.weight": ("U8", (outputs * inputs // 2, 1)),
        f"{prefix}.weight.absmax": ("F32", (outputs * inputs // 64,)),
        f"{prefix}.weight.quant_map": ("F32", (16,)),
        f"{prefix}.weight.quant_state.bitsandbytes__nf4": ("U8", (80,)),
    }


def bnb_8bit(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {f"{prefix}.weight": ("I8", (outputs, inputs)), f"{prefix}.SCB": ("F32", (outputs,))}


def fp8_block(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    blocks = (-(-outputs // 128), -(-inputs // 128))
    return {
        f"{prefix}.weight": ("F8_E4M3", (outputs, inputs)),
        f"{prefix}.weight_scale_inv": ("F32", blocks),
    }


def fp8_channel(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {
        f"{prefix}.weight": ("F8_E4M3", (outputs, inputs)),
        f"{prefix}.weight_scale": ("BF16", (outputs, 1)),
    }


def fp8_tensor(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {
        f"{prefix}.weight": ("F8_E4M3", (outputs, inputs)),
        f"{prefix}.weight_scale": ("F32", ()),
        f"{prefix}.input_scale": ("F32", ()),
    }


def fp8_raw(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {f"{prefix}.weight": ("F8_E4M3", (outputs, inputs))}


def ct_int4(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {
        f"{prefix}.weight_packed": ("I32", (outputs, inputs // 8)),
        f"{prefix}.weight_scale": ("BF16", (outputs, inputs // 32)),
        f"{prefix}.weight_shape": ("I64", (2,)),
    }


def ct_nvfp4(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {
        f"{prefix}.weight_packed": ("U8", (outputs, inputs // 2)),
        f"{prefix}.weight_scale": ("F8_E4M3", (outputs, inputs // 16)),
        f"{prefix}.weight_global_scale": ("F32", (1,)),
    }


def modelopt_nvfp4(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {
        f"{prefix}.weight": ("U8", (outputs, inputs // 2)),
        f"{prefix}.weight_scale": ("F8_E4M3", (outputs, inputs // 16)),
        f"{prefix}.weight_scale_2": ("F32", ()),
        f"{prefix}.input_scale": ("F32", ()),
    }


def hqq(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    names = ("nbits", "group_size", "axis", "packing", "stores_quant_config")
    return {
        f"{prefix}.W_q": ("U8", (outputs // 2, inputs)),
        f"{prefix}.scale": ("F16", (outputs, 1)),
        f"{prefix}.zero": ("F16", (outputs, 1)),
        **{f"{prefix}.{name}": ("I32", ()) for name in names},
    }


def eetq(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {
        f"{prefix}.weight": ("I8", (inputs, outputs)),
        f"{prefix}.weight_scales": ("F16", (outputs,)),
    }


def quanto(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {
        f"{prefix}.weight._data": ("I8", (outputs, inputs)),
        f"{prefix}.weight._scale": ("F16", (outputs, 1)),
        f"{prefix}.input_scale": ("F32", ()),
        f"{prefix}.output_scale": ("F32", ()),
    }


def torchao(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {
        f"{prefix}._weight_qdata": ("I8", (outputs, inputs)),
        f"{prefix}._weight_scale": ("BF16", (outputs, 1)),
    }


def aqlm(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {
        f"{prefix}.codes": ("I16", (outputs, inputs // 8, 1)),
        f"{prefix}.codebooks": ("F16", (1, 256, 1, 8)),
        f"{prefix}.scales": ("F16", (outputs, 1, 1, 1)),
    }


def higgs(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {
        f"{prefix}.qweight": ("U8", (outputs, inputs // 2)),
        f"{prefix}.scales": ("F16", (outputs, inputs // 64)),
        f"{prefix}.tables": ("F16", (16, 1)),
        f"{prefix}.tables2": ("F16", (16, 1)),
    }


def exl2(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {
        f"{prefix}.q_weight": ("I32", (inputs // 8, outputs)),
        f"{prefix}.q_invperm": ("I32", (inputs,)),
        f"{prefix}.q_scale": ("I32", (inputs // 32, outputs // 8)),
        f"{prefix}.q_scale_max": ("F16", (inputs // 32,)),
        f"{prefix}.q_groups": ("I16", (inputs // 16,)),
    }


def exl3(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {
        f"{prefix}.trellis": ("I16", (inputs // 16, outputs // 16, 64)),
        f"{prefix}.suh": ("F16", (inputs,)),
        f"{prefix}.svh": ("F16", (outputs,)),
    }


def marlin(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {
        f"{prefix}.B": ("I32", (inputs // 16, outputs * 2)),
        f"{prefix}.s": ("F16", (inputs // 128, outputs)),
    }


def metal(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {
        f"{prefix}.weight": ("U32", (outputs, inputs // 8)),
        f"{prefix}.scales": ("BF16", (outputs, inputs // 64)),
        f"{prefix}.qbiases": ("BF16", (outputs, inputs // 64)),
    }


def bitnet(prefix: str, outputs: int, inputs: int) -> dict[str, Spec]:
    return {
        f"{prefix}.weight": ("U8", (outputs // 4, inputs)),
        f"{prefix}.weight_scale": ("BF16", (1,)),
    }


def gpt_oss_experts(layers: Iterable[int] = range(LAYERS)) -> dict[str, Spec]:
    tensors: dict[str, Spec] = {}
    for number in layers:
        base = f"model.layers.{number}"
        tensors[f"{base}.self_attn.sinks"] = ("BF16", (HEADS,))
        tensors.update(plain(f"{base}.mlp.router", EXPERTS, HIDDEN))
        for name, outputs in (("gate_up_proj", 2 * HIDDEN), ("down_proj", HIDDEN)):
            expert = f"{base}.mlp.experts.{name}"
            tensors[f"{expert}_blocks"] = ("U8", (EXPERTS, outputs, HIDDEN // 32, 16))
            tensors[f"{expert}_scales"] = ("U8", (EXPERTS, outputs, HIDDEN // 32))
            tensors[f"{expert}_bias"] = ("BF16", (EXPERTS, outputs))
    return tensors
