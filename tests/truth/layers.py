"""One linear layer in every quantised layout, its numbers real: what is decoded rightly recites.

Written from the formats' descriptions and not from an engine, so that an engine which loads a
layout and decodes it wrongly is found out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from tests.truth.checkpoint import Array, Layer, Matrix, Stored, Tensors, stored, zeros

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which output each of the eight nibbles of a word holds, from the lowest."""

NF4 = (
    -1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0,
    0.0795803, 0.1609302, 0.24611230, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0,
)  # fmt: skip
FP4 = (
    0.0, 0.0052083333, 0.6666667, 1.0, 0.3333333, 0.5, 0.1666667, 0.25,
    -0.0, -0.0052083333, -0.6666667, -1.0, -0.3333333, -0.5, -0.1666667, -0.25,
)  # fmt: skip
BNB_BLOCK = 64
FP8_LARGEST = 448.0


def plain(dtype: str = "F16") -> Layer:
    def layer(w: Matrix) -> Tensors:
        return {"weight": stored(w.astype(np.float16 if dtype == "F16" else np.float32))}

    return layer


# Integers, packed into words


def _pack(values: Array, bits: int, order: Sequence[int] | None = None) -> Array:
    """Along the last axis; `order` says which value the lowest bits hold, and so on."""
    per_word = 32 // bits
    words = values.reshape(*values.shape[:-1], -1, per_word).astype(np.uint32)
    packed = np.zeros(words.shape[:-1], np.uint32)
    for place, index in enumerate(order or range(per_word)):
        packed |= words[..., index] << np.uint32(bits * place)
    return packed.view(np.int32)


def _rounded(w: Matrix, group: int, bits: int) -> tuple[Array, Matrix]:
    """[out, in] integers from 0 with their zero in the middle, and scales of [out, in / group]."""
    middle = 1 << (bits - 1)
    grouped = w.reshape(w.shape[0], -1, group)
    scales = (np.abs(grouped).max(-1) / (middle - 1)).astype(np.float16).astype(np.float32)
    integers = np.clip(np.rint(grouped / scales[..., None]) + middle, 0, 2 * middle - 1)
    return integers.reshape(w.shape), scales


def gptq(bits: int = 4, group: int = 32, g_idx: bool = True) -> Layer:
    def layer(w: Matrix) -> Tensors:
        integers, scales = _rounded(w, group, bits)
        zero = np.full((w.shape[1] // group, w.shape[0]), (1 << (bits - 1)) - 1)
        tensors = {
            "qweight": stored(_pack(integers, bits).T),
            "qzeros": stored(_pack(zero, bits)),
            "scales": stored(scales.T.astype(np.float16)),
        }
        if g_idx:
            tensors["g_idx"] = stored(np.arange(w.shape[1], dtype=np.int32) // group)
        return tensors

    return layer


def awq(group: int = 32) -> Layer:
    def layer(w: Matrix) -> Tensors:
        integers, scales = _rounded(w, group, 4)
        zero = np.full((w.shape[1] // group, w.shape[0]), 8)
        return {
            "qweight": stored(_pack(integers.T, 4, AWQ_ORDER)),
            "qzeros": stored(_pack(zero, 4, AWQ_ORDER)),
            "scales": stored(scales.T.astype(np.float16)),
        }

    return layer


def awq_gemv(w: Matrix) -> Tensors:
    integers, scales = _rounded(w, 32, 4)
    return {
        "qweight": stored(_pack(integers, 4)),
        "qzeros": stored(np.full((w.shape[0], -(-w.shape[1] // 256)), -0x77777778, np.int32)),
        "scales": stored(scales.astype(np.float16)),
    }


def ct_packed(bits: int = 4, group: int = 32) -> Layer:
    def layer(w: Matrix) -> Tensors:
        integers, scales = _rounded(w, group, bits)
        return {
            "weight_packed": stored(_pack(integers, bits)),
            "weight_scale": stored(scales.astype(np.float16)),
            "weight_shape": stored(np.array(w.shape, np.int64)),
        }

    return layer


def ct_int8(w: Matrix) -> Tensors:
    scales = np.abs(w).max(1, keepdims=True) / 127
    return {
        "weight": stored(np.rint(w / scales).astype(np.int8)),
        "weight_scale": stored(scales.astype(np.float16)),
    }


# bitsandbytes


def bnb_4bit(kind: str = "nf4", nested: bool = False) -> Layer:
    code = np.array(NF4 if kind == "nf4" else FP4, np.float32)

    def layer(w: Matrix) -> Tensors:
        blocks = w.reshape(-1, BNB_BLOCK)
        largest = np.abs(blocks).max(1)
        near = np.abs((blocks / largest[:, None])[..., None] - code).argmin(-1).reshape(-1)
        packed = (near[0::2] << 4 | near[1::2]).astype(np.uint8)
        state: dict[str, Any] = {
            "quant_type": kind,
            "blocksize": BNB_BLOCK,
            "dtype": "float16",
            "shape": list(w.shape),
        }
        tensors = {"weight": stored(packed.reshape(-1, 1)), "weight.quant_map": stored(code)}
        tensors |= _nested(largest, state) if nested else {"weight.absmax": stored(largest)}
        raw = np.frombuffer(json.dumps(state).encode(), np.uint8)
        return tensors | {f"weight.quant_state.bitsandbytes__{kind}": stored(raw)}

    return layer


def _nested(largest: Array, state: dict[str, Any]) -> dict[str, Stored]:
    """The scales themselves as bytes, with a code of 256 values and one scale for 256 of them."""
    code = np.linspace(-1, 1, 256, dtype=np.float32)
    offset = float(largest.mean())
    whole = np.zeros(-(-largest.size // 256) * 256, np.float32)
    whole[: largest.size] = largest - offset
    blocks = whole.reshape(-1, 256)
    scales = np.abs(blocks).max(1) + 1e-9
    near = np.abs((blocks / scales[:, None])[..., None] - code).argmin(-1).reshape(-1)
    state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset}
    return {
        "weight.absmax": stored(near[: largest.size].astype(np.uint8)),
        "weight.nested_absmax": stored(scales),
        "weight.nested_quant_map": stored(code),
    }


def bnb_8bit(w: Matrix) -> Tensors:
    largest = np.abs(w).max(1)
    return {
        "weight": stored(np.rint(w / largest[:, None] * 127).astype(np.int8)),
        "SCB": stored(largest),
    }


# Eight and four bit floats, rounded by mlx


def _fp8(values: Matrix) -> Stored:
    import mlx.core as mx

    return stored(np.array(mx.to_fp8(mx.array(values))), "F8_E4M3")


def fp8_block(block: int = 128) -> Layer:
    def layer(w: Matrix) -> Tensors:
        rows, columns = (-(-size // block) for size in w.shape)
        whole = np.zeros((rows * block, columns * block), np.float32)
        whole[: w.shape[0], : w.shape[1]] = w
        blocks = whole.reshape(rows, block, columns, block)
        scales = np.abs(blocks).max((1, 3)) / FP8_LARGEST
        values = (blocks / scales[:, None, :, None]).reshape(whole.shape)
        values = values[: w.shape[0], : w.shape[1]]
        return {"weight": _fp8(values), "weight_scale_inv": stored(scales)}

    return layer


def fp8_channel(w: Matrix) -> Tensors:
    scales = np.abs(w).max(1, keepdims=True) / FP8_LARGEST
    return {"weight": _fp8(w / scales), "weight_scale": stored(scales)}


def fp8_tensor(w: Matrix, shape: tuple[int, ...] = (), static: bool = False) -> Tensors:
    scale = np.float32(np.abs(w).max() / FP8_LARGEST)
    tensors = {"weight": _fp8(w / scale), "weight_scale": stored(np.full(shape, scale))}
    if static:
        tensors["input_scale"] = stored(np.full(shape, np.float32(0.05)))
    return tensors


def fp8_raw(w: Matrix) -> Tensors:
    return {"weight": _fp8(w)}


def mistral_fp8(w: Matrix) -> Tensors:
    tensors = fp8_tensor(w)
    return {"weight": tensors["weight"], "qscale_weight": tensors["weight_scale"]}


def _four_bit_float(w: Matrix, mode: str) -> tuple[Stored, Array]:
    """The nibbles, two in a byte, and the scales' bytes: as all formats of the kind have them."""
    import mlx.core as mx

    made: Any = mx.quantize(mx.array(w), mode=mode)
    packed, scales = made
    return stored(np.array(packed).view(np.uint8)), np.array(scales)


def modelopt_nvfp4(w: Matrix) -> Tensors:
    packed, scales = _four_bit_float(w * 256, "nvfp4")
    return {
        "weight": packed,
        "weight_scale": stored(scales, "F8_E4M3"),
        "weight_scale_2": stored(np.full((), 1 / 256, np.float32)),
        "input_scale": stored(np.full((), 0.05, np.float32)),
    }


def ct_nvfp4(w: Matrix) -> Tensors:
    """It divides by its global scale, where ModelOpt multiplies."""
    packed, scales = _four_bit_float(w * 256, "nvfp4")
    return {
        "weight_packed": packed,
        "weight_scale": stored(scales, "F8_E4M3"),
        "weight_global_scale": stored(np.full((1,), 256, np.float32)),
    }


def ct_mxfp4(w: Matrix) -> Tensors:
    packed, scales = _four_bit_float(w, "mxfp4")
    return {"weight_packed": packed, "weight_scale": stored(scales)}


# Layouts that no engine here decodes: their tensors, without their numbers

Spec = Mapping[str, tuple[str, tuple[int, ...]]]


def hollow(describe: Any) -> Layer:
    """By a layout of `tests.detect.raw_safetensors`."""

    def layer(w: Matrix) -> Tensors:
        specs: Spec = describe("", *w.shape)
        return {
            name.lstrip("."): zeros(dtype, tuple(shape)) for name, (dtype, shape) in specs.items()
        }

    return layer


fp8_tensor_static = partial(fp8_tensor, static=True)
fp8_tensor_of_one = partial(fp8_tensor, shape=(1,))
