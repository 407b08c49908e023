"""Gemma 3 with a small tower for images, as Hugging Face and as MLX lay it out."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from tests.truth import networks
from tests.truth.checkpoint import Stored, stored, write, write_json

WIDTH, INNER, PATCH, IMAGE, TEXT_WIDTH = 32, 64, 14, 56, networks.HIDDEN

TOWER: Mapping[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": IMAGE,
    "patch_size": PATCH,
    "num_channels": 3,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu_pytorch_tanh",
    "vision_use_head": False,
}
PREPROCESSOR: Mapping[str, Any] = {
    "image_processor_type": "Gemma3ImageProcessor",
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "size": {"height": IMAGE, "width": IMAGE},
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "rescale_factor": 1 / 255,
    "resample": 2,
    "image_seq_length": 4,
}


def plain(folder: Path, prefix: str = "") -> Path:
    """As published; `prefix` stands before everything."""
    text = networks.config("gemma3_text")
    tensors = {f"language_model.{name}": one for name, one in networks.tensors(text).items()}
    named = {f"{prefix}{name}": one for name, one in (tensors | _tower()).items()}
    if prefix:
        named = {name.replace("language_model.model.", "language_model."): one
                 for name, one in named.items()}  # fmt: skip
    return _write(folder, named, _config(text))


def mlx(folder: Path, bits: int | None = None) -> Path:
    """As mlx-vlm converts it: kernels with their channels last, only the text part quantised."""
    text = networks.config("gemma3_text")
    language = networks.mlx(folder / "language", text, bits=bits)
    tensors = {f"language_model.{name}": one for name, one in _read(language).items()}
    claim = {"bits": bits, "group_size": 64} if bits else None
    claims = {"quantization": claim, "quantization_config": claim} if claim else {}
    shutil.rmtree(language)
    tower = _tower(channels_last=True)
    return _write(folder, tensors | tower, _config(text) | claims, written_by="mlx")


def _read(folder: Path) -> dict[str, Stored]:
    """Through mlx, because numpy has no bfloat16."""
    import mlx.core as mx

    found: dict[str, Stored] = {}
    file = folder / "model.safetensors"
    loaded: Any = mx.load(str(file))
    with safe_open(file, "np") as opened:
        for name in opened.keys():  # noqa: SIM118
            value = loaded[name]
            raw = value.view(mx.uint16) if value.dtype == mx.bfloat16 else value
            dtype = opened.get_slice(name).get_dtype()
            found[name] = Stored(dtype, tuple(value.shape), np.array(raw).tobytes())
    return found


def _config(text: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": dict(text),
        "vision_config": dict(TOWER),
        "vocab_size": text["vocab_size"],
        "mm_tokens_per_image": 4,
        "image_token_index": 383,
        "boi_token_index": 381,
        "eoi_token_index": 382,
        "eos_token_id": 2,
    }


def _write(folder: Path, tensors: Mapping[str, Stored], config: Any, **options: Any) -> Path:
    write(folder, tensors, config, **options)
    write_json(folder / "preprocessor_config.json", PREPROCESSOR)
    write_json(folder / "processor_config.json", {"processor_class": "Gemma3Processor"})
    return folder


def _tower(channels_last: bool = False) -> dict[str, Stored]:
    random = np.random.default_rng(7)
    shapes = {f"vision_tower.vision_model.{name}": shape for name, shape in SHAPES.items()}
    shapes |= {f"multi_modal_projector.{name}": shape for name, shape in PROJECTOR.items()}
    values = {name: random.standard_normal(shape) * 0.05 for name, shape in shapes.items()}
    if channels_last:
        values = {name: value.transpose(0, 2, 3, 1) if value.ndim == 4 else value
                  for name, value in values.items()}  # fmt: skip
    return {name: stored(value.astype(np.float32)) for name, value in values.items()}


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


LAYER = "encoder.layers.0"
SHAPES: Mapping[str, tuple[int, ...]] = {
    "embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
    "embeddings.patch_embedding.bias": (WIDTH,),
    "embeddings.position_embedding.weight": ((IMAGE // PATCH) ** 2, WIDTH),
    **_norm(f"{LAYER}.layer_norm1"),
    **_norm(f"{LAYER}.layer_norm2"),
    **_linear(f"{LAYER}.self_attn.q_proj", WIDTH, WIDTH),
    **_linear(f"{LAYER}.self_attn.k_proj", WIDTH, WIDTH),
    **_linear(f"{LAYER}.self_attn.v_proj", WIDTH, WIDTH),
    **_linear(f"{LAYER}.self_attn.out_proj", WIDTH, WIDTH),
    **_linear(f"{LAYER}.mlp.fc1", INNER, WIDTH),
    **_linear(f"{LAYER}.mlp.fc2", WIDTH, INNER),
    **_norm("post_layernorm"),
}
PROJECTOR: Mapping[str, tuple[int, ...]] = {
    "mm_input_projection_weight": (WIDTH, TEXT_WIDTH),
    "mm_soft_emb_norm.weight": (WIDTH,),
}
