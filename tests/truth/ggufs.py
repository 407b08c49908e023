"""GGUF files: the trained model under other headers, and small random ones of other architectures
and tensor types."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.tiny.train import CONFIG
from tests.tiny.variants import gguf_tensors, write_facts, write_tokenizer
from tests.truth.checkpoint import Array, trained

Shapes = Iterator[tuple[str, tuple[int, ...]]]
Change = Callable[[Any], None]
"""Something more that is written into the header."""

VOCABULARY, LAYERS, HEADS, KV_HEADS, EXPERTS = 384, 2, 4, 2, 4


def parrot(
    path: Path,
    *,
    architecture: str = "llama",
    pre: str | None = "gpt-2",
    tokenizer: bool = True,
    shards: int = 1,
    changes: Change = lambda writer: None,
) -> Path:
    """The trained model, float32. `path` is the file, or the first of its shards' common name."""
    writer = _writer(path, architecture, 8 if shards > 1 else 0)
    write_facts(writer, "F32")
    if tokenizer:
        write_tokenizer(writer, pre)
    changes(writer)
    for name, value in gguf_tensors():
        writer.add_tensor(name, value)
    return _finish(writer, path, shards)


def qwen2_parrot(path: Path) -> Path:
    """The same function: biases of zero, and the rotary halves one after the other."""
    writer = _writer(path, "qwen2")
    write_facts(writer, "F32")
    write_tokenizer(writer, "qwen2")
    own = {f"blk.{n}.attn_{x}.weight": f"model.layers.{n}.self_attn.{x}_proj.weight"
           for n in range(LAYERS) for x in "qk"}  # fmt: skip
    for name, value in gguf_tensors():
        writer.add_tensor(name, trained()[own[name]] if name in own else value)
        if name.endswith(("attn_q.weight", "attn_k.weight", "attn_v.weight")):
            bias = np.zeros(value.shape[0], np.float32)
            writer.add_tensor(name.replace("weight", "bias"), bias)
    return _finish(writer, path, 1)


def _writer(path: Path, architecture: str, tensors_per_shard: int = 0) -> Any:
    import gguf

    path.parent.mkdir(parents=True, exist_ok=True)
    return gguf.GGUFWriter(str(path), architecture, split_max_tensors=tensors_per_shard)


def _finish(writer: Any, path: Path, shards: int) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path if shards == 1 else min(path.parent.glob(f"{path.stem}-00001-of-*.gguf"))


# Random networks


def network(
    path: Path,
    *,
    architecture: str = "llama",
    kind: str = "F32",
    hidden: int = 128,
    changes: Change = lambda writer: None,
) -> Path:
    """Of any architecture and any type: types that gguf cannot make are blocks of zeros."""
    writer = _writer(path, architecture)
    _write_dimensions(writer, hidden)
    write_tokenizer(writer, "qwen2")
    changes(writer)
    FACTS.get(architecture, lambda writer: None)(writer)
    random = np.random.default_rng(7)
    for name, shape in _shapes(architecture, hidden):
        _write(writer, name, _values(name, shape, random), kind)
    return _finish(writer, path, 1)


def _write_dimensions(writer: Any, hidden: int) -> None:
    writer.add_context_length(CONFIG["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(256)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(hidden // HEADS)
    writer.add_value_length(hidden // HEADS)
    writer.add_rope_dimension_count(hidden // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)


def _values(name: str, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    if len(shape) == 1:
        return np.full(shape, 0.0 if name.endswith("bias") else 1.0, np.float32)
    values: Array = random.standard_normal(shape) / shape[-1] ** 0.5
    return values.astype(np.float32)


def _write(writer: Any, name: str, value: Array, kind: str) -> None:
    """Embeddings and head stay float, so that some token is the likeliest."""
    import gguf
    from gguf import quants

    wanted = gguf.GGMLQuantizationType[kind]
    if value.ndim == 1 or name.startswith(("token_embd", "output")) or kind == "F32":
        writer.add_tensor(name, value)
        return
    try:
        packed = quants.quantize(value, wanted)
    except NotImplementedError:
        block, nbytes = gguf.GGML_QUANT_SIZES[wanted]
        packed = np.zeros((*value.shape[:-1], value.shape[-1] // block * nbytes), np.uint8)
    writer.add_tensor(name, packed, raw_dtype=wanted)


def _shapes(architecture: str, hidden: int) -> Shapes:
    yield "token_embd.weight", (VOCABULARY, hidden)
    yield "output_norm.weight", (hidden,)
    if architecture not in TIED:
        yield "output.weight", (VOCABULARY, hidden)
    block = BLOCKS.get(architecture, _llama_block)
    for number in range(LAYERS):
        for name, shape in block(hidden):
            yield f"blk.{number}.{name}", shape


def _attention(hidden: int) -> Shapes:
    yield "attn_q.weight", (hidden, hidden)
    yield "attn_k.weight", (hidden // HEADS * KV_HEADS, hidden)
    yield "attn_v.weight", (hidden // HEADS * KV_HEADS, hidden)
    yield "attn_output.weight", (hidden, hidden)


def _feed_forward(hidden: int) -> Shapes:
    yield "ffn_gate.weight", (256, hidden)
    yield "ffn_up.weight", (256, hidden)
    yield "ffn_down.weight", (hidden, 256)


def _norms(hidden: int) -> Shapes:
    yield "attn_norm.weight", (hidden,)
    yield "ffn_norm.weight", (hidden,)


def _head_norms(hidden: int) -> Shapes:
    yield "attn_q_norm.weight", (hidden // HEADS,)
    yield "attn_k_norm.weight", (hidden // HEADS,)


def _post_norms(hidden: int) -> Shapes:
    yield "post_attention_norm.weight", (hidden,)
    yield "post_ffw_norm.weight", (hidden,)


def _llama_block(hidden: int) -> Shapes:
    yield from _norms(hidden)
    yield from _attention(hidden)
    yield from _feed_forward(hidden)


def _qwen2_block(hidden: int) -> Shapes:
    yield from _llama_block(hidden)
    yield "attn_q.bias", (hidden,)
    yield "attn_k.bias", (hidden // HEADS * KV_HEADS,)
    yield "attn_v.bias", (hidden // HEADS * KV_HEADS,)


def _qwen3_block(hidden: int) -> Shapes:
    yield from _llama_block(hidden)
    yield from _head_norms(hidden)


def _gemma2_block(hidden: int) -> Shapes:
    yield from _llama_block(hidden)
    yield from _post_norms(hidden)


def _gemma3_block(hidden: int) -> Shapes:
    yield from _gemma2_block(hidden)
    yield from _head_norms(hidden)


def _olmo2_block(hidden: int) -> Shapes:
    yield from _attention(hidden)
    yield from _feed_forward(hidden)
    yield from _post_norms(hidden)
    yield "attn_q_norm.weight", (hidden,)
    yield "attn_k_norm.weight", (hidden // HEADS * KV_HEADS,)


def _qwen3moe_block(hidden: int) -> Shapes:
    yield from _norms(hidden)
    yield from _attention(hidden)
    yield from _head_norms(hidden)
    yield "ffn_gate_inp.weight", (EXPERTS, hidden)
    yield "ffn_gate_exps.weight", (EXPERTS, 64, hidden)
    yield "ffn_up_exps.weight", (EXPERTS, 64, hidden)
    yield "ffn_down_exps.weight", (EXPERTS, hidden, 64)


BLOCKS: Mapping[str, Callable[[int], Shapes]] = {
    "qwen2": _qwen2_block,
    "qwen2vl": _qwen2_block,
    "qwen3": _qwen3_block,
    "gemma2": _gemma2_block,
    "gemma3": _gemma3_block,
    "olmo2": _olmo2_block,
    "qwen3moe": _qwen3moe_block,
}
TIED = frozenset(("gemma2", "gemma3"))


def _add_experts(writer: Any) -> None:
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(2)
    writer.add_expert_feed_forward_length(64)


def _add_sections(writer: Any) -> None:
    writer.add_rope_dimension_sections([8, 4, 4, 0])


def _add_window(writer: Any) -> None:
    writer.add_sliding_window(64)


def pools(writer: Any) -> None:
    """It makes one vector of a text."""
    import gguf

    writer.add_pooling_type(gguf.PoolingType.MEAN)


def pools_last(writer: Any) -> None:
    import gguf

    writer.add_pooling_type(gguf.PoolingType.LAST)


def ranks(writer: Any) -> None:
    """It tells of a question and a document how well they go together."""
    import gguf

    writer.add_pooling_type(gguf.PoolingType.RANK)


def looks_both_ways(writer: Any) -> None:
    """As an encoder, and does not say how it pools."""
    writer.add_causal_attention(False)


FACTS: Mapping[str, Change] = {
    "qwen3moe": _add_experts,
    "qwen2vl": _add_sections,
    "gemma2": _add_window,
    "gemma3": _add_window,
}
