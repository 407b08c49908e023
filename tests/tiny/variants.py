"""Derive every format from the committed weights, without a network.

`build("gguf-q8_0", folder)` makes the model in a sibling folder first and renames it, so that
a folder that exists is complete.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.tiny.train import CONFIG, WEIGHTS

Builder = Callable[[Path], None]


def build(variant: str, target: Path) -> Path:
    """Make `variant` (a key of `VARIANTS`) at `target`, unless it is there already."""
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".making-", dir=target.parent))
    try:
        VARIANTS[variant](work)
        os.chmod(work, 0o755)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _plain(folder: Path) -> None:
    for file in WEIGHTS.iterdir():
        shutil.copyfile(file, folder / file.name)


def _mlx(folder: Path, bits: int, group: int, mode: str = "affine", mixed: bool = False) -> None:
    from mlx_lm.utils import load_config, load_model, quantize_model, save_config, save_model

    def predicate(path: str, module: Any) -> bool | dict[str, Any]:
        six = {"bits": 6, "group_size": group, "mode": mode}
        return six if "layers.1" in path and hasattr(module, "to_quantized") else True

    _plain(folder)
    (folder / "model.safetensors").unlink()
    model, _ = load_model(WEIGHTS)
    with contextlib.redirect_stdout(None):
        model, config = quantize_model(
            model,
            load_config(WEIGHTS),
            group,
            bits,
            mode=mode,
            quant_predicate=predicate if mixed else None,
        )
    save_model(folder, model)
    save_config(config, folder / "config.json")


def _mlx_float(folder: Path) -> None:
    import mlx.core as mx
    from mlx_lm.utils import load_model, save_model

    _plain(folder)
    (folder / "model.safetensors").unlink()
    model, _ = load_model(WEIGHTS)
    model.set_dtype(mx.bfloat16)
    save_model(folder, model)


def _gguf(folder: Path, kind: str) -> None:
    import gguf

    writer = gguf.GGUFWriter(str(folder / f"parrot-{kind}.gguf"), "llama")
    write_facts(writer, kind)
    write_tokenizer(writer)
    for name, value in gguf_tensors():
        _write_tensor(writer, name, value, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_facts(writer: Any, kind: str) -> None:
    """Into a `gguf.GGUFWriter`: the trained model's dimensions."""
    import gguf

    writer.add_name("Parrot")
    writer.add_context_length(CONFIG["max_position_embeddings"])
    writer.add_embedding_length(CONFIG["hidden_size"])
    writer.add_block_count(CONFIG["num_hidden_layers"])
    writer.add_feed_forward_length(CONFIG["intermediate_size"])
    writer.add_head_count(CONFIG["num_attention_heads"])
    writer.add_head_count_kv(CONFIG["num_key_value_heads"])
    writer.add_rope_dimension_count(CONFIG["head_dim"])
    writer.add_rope_freq_base(CONFIG["rope_theta"])
    writer.add_layer_norm_rms_eps(CONFIG["rms_norm_eps"])
    writer.add_vocab_size(CONFIG["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType[f"{'ALL' if kind == 'F32' else 'MOSTLY'}_{kind}"])


def write_tokenizer(writer: Any, pre: str | None = "gpt-2") -> None:
    import gguf

    tokenizer = json.loads((WEIGHTS / "tokenizer.json").read_text())
    settings = json.loads((WEIGHTS / "tokenizer_config.json").read_text())
    ids: dict[str, int] = dict(tokenizer["model"]["vocab"])
    special = {t["content"]: t["special"] for t in tokenizer["added_tokens"]}
    ids.update({t["content"]: t["id"] for t in tokenizer["added_tokens"]})
    by_id = {number: token for token, number in ids.items()}
    tokens = [by_id.get(i, f"[UNUSED{i}]") for i in range(CONFIG["vocab_size"])]
    kinds = gguf.TokenType
    types = [
        (kinds.CONTROL if special[t] else kinds.USER_DEFINED)
        if t in special
        else (kinds.NORMAL if i in by_id else kinds.UNUSED)
        for i, t in enumerate(tokens)
    ]
    merges = tokenizer["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_eos_token_id(ids["<|im_end|>"])
    writer.add_eot_token_id(ids["<|im_end|>"])
    writer.add_pad_token_id(ids["<|endoftext|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(settings["chat_template"])


def gguf_tensors() -> Iterator[tuple[str, Any]]:
    """GGUF's names, float32, with q and k in the order its rotary embedding expects."""
    import numpy as np
    from safetensors.numpy import load_file

    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
    }
    parts = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    heads = {"self_attn.q_proj": "num_attention_heads", "self_attn.k_proj": "num_key_value_heads"}
    for name, stored in load_file(WEIGHTS / "model.safetensors").items():
        value = stored.astype(np.float32)
        stem = name.removesuffix(".weight")
        if stem in names:
            yield f"{names[stem]}.weight", value
            continue
        _, _, layer, part = stem.split(".", 3)
        if part in heads:
            count = CONFIG[heads[part]]
            halves = value.reshape(count, 2, value.shape[0] // count // 2, value.shape[1])
            value = halves.swapaxes(1, 2).reshape(value.shape)
        yield f"blk.{layer}.{parts[part]}.weight", value


def _write_tensor(writer: Any, name: str, value: Any, kind: str) -> None:
    import gguf
    from gguf import quants

    quantize = value.ndim == 2 and kind != "F32"
    wanted = gguf.GGMLQuantizationType[kind] if quantize else gguf.GGMLQuantizationType.F32
    writer.add_tensor(name, quants.quantize(value, wanted), raw_dtype=wanted)


VARIANTS: Mapping[str, Builder] = {
    "safetensors": _plain,
    "mlx-4bit": partial(_mlx, bits=4, group=32),
    "mlx-8bit": partial(_mlx, bits=8, group=64),
    "mlx-5bit": partial(_mlx, bits=5, group=32),
    "mlx-mxfp4": partial(_mlx, bits=4, group=32, mode="mxfp4"),
    "mlx-mxfp8": partial(_mlx, bits=8, group=32, mode="mxfp8"),
    "mlx-nvfp4": partial(_mlx, bits=4, group=16, mode="nvfp4"),
    "mlx-mixed": partial(_mlx, bits=4, group=32, mixed=True),
    "mlx-bf16": _mlx_float,
    "gguf-f32": partial(_gguf, kind="F32"),
    "gguf-f16": partial(_gguf, kind="F16"),
    "gguf-q8_0": partial(_gguf, kind="Q8_0"),
    "gguf-q4_0": partial(_gguf, kind="Q4_0"),
    "gguf-bf16": partial(_gguf, kind="BF16"),
    "gguf-q4_1": partial(_gguf, kind="Q4_1"),
    "gguf-q5_0": partial(_gguf, kind="Q5_0"),
    "gguf-q5_1": partial(_gguf, kind="Q5_1"),
}
