"""Models to measure the MLX engine with: random weights in real shapes, 4 bit, float32 beside.

Small, because MLX on a CPU computes some ten tokens a second of a model of 0.1 B: a prompt of 8,000
tokens would take a quarter of an hour, each time.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

from tests.tiny.train import WEIGHTS

VOCABULARY = 8192
END = "<|im_end|>"

SHAPE: dict[str, Any] = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}

DENSE: dict[str, Any] = {
    **SHAPE,
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "intermediate_size": 704,
    "rms_norm_eps": 1e-5,
}

HYBRID: dict[str, Any] = {
    **SHAPE,
    "model_type": "lfm2",
    "architectures": ["Lfm2ForCausalLM"],
    "norm_eps": 1e-5,
    "conv_bias": False,
    "conv_L_cache": 3,
    "block_dim": 256,
    "block_ff_dim": 704,
    "block_multiple_of": 32,
    "block_ffn_dim_multiplier": 1.0,
    "block_auto_adjust_ff_dim": False,
    "layer_types": ["conv", "full_attention", "conv", "full_attention"],
    "rope_theta": 10000.0,
}


def write(folder: Path, config: dict[str, Any]) -> Path:
    """A model folder; the end of a message is never the likeliest token."""
    import mlx.core as mx
    from mlx_lm.utils import _get_classes, quantize_model, save_config, save_model

    folder.mkdir(parents=True)
    end = _write_tokenizer(folder)
    mx.random.seed(7)
    classes, arguments = _get_classes(config)
    network = classes(arguments.from_dict(config))
    network.set_dtype(mx.float32)
    embedding = network.model.embed_tokens
    embedding.weight[end] = mx.zeros_like(embedding.weight[end])
    with contextlib.redirect_stdout(None):
        network, quantized = quantize_model(network, config, 64, 4)
    save_model(folder, network)
    save_config({**quantized, "eos_token_id": end}, folder / "config.json")
    return folder


def _write_tokenizer(folder: Path) -> int:
    """The tiny model's, with words for all ids; gives the id of the end of a message."""
    for file in WEIGHTS.iterdir():
        if "token" in file.name or file.suffix == ".jinja":
            shutil.copyfile(file, folder / file.name)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    words = tokenizer["model"]["vocab"]
    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    taken = {*words.values(), *added.values()}
    for number in sorted(set(range(VOCABULARY)) - taken):
        words[f"zq{number}"] = number
    path.write_text(json.dumps(tokenizer))
    return int(added[END] if END in added else words[END])
