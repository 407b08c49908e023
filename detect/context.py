"""Context length, native and extended, and what a token of it costs, from configs. Pure."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from detect.hf_config import Configs, mapping, number

LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "seq_length",
    "max_seq_len",
    "max_sequence_length",
    "model_max_length",
)
UNBOUNDED_TYPES = frozenset({"mamba", "mamba2", "falcon_mamba", "rwkv5", "rwkv6", "rwkv7"})
MAX_TOKENS = 10**9
"""Above this a tokenizer's limit is the placeholder for "none"."""

BYTES_PER_VALUE = 2
ATTENTION_LAYERS = frozenset(
    {"full_attention", "sliding_attention", "chunked_attention", "attention", "hybrid", "*"}
)


class Context(Struct, frozen=True):
    native: int | None
    extended: int | None = None
    source: str = ""


def length(configs: Configs) -> Context:
    """What the model was trained for; the RoPE scaling of the config on top of that."""
    if configs.model_type in UNBOUNDED_TYPES:
        return Context(None, None, "recurrent, so without a limit")
    stated = configs.number(*LENGTH_KEYS)
    if stated is None:
        return _from_tokenizer(configs)
    scaling = mapping(configs.value("rope_scaling")) or mapping(configs.value("rope_parameters"))
    original = number(scaling.get("original_max_position_embeddings"))
    factor = scaling.get("factor")
    if not original or isinstance(factor, bool) or not isinstance(factor, int | float):
        return Context(stated, None, "config.json")
    if not 1 < factor < 1e6:
        return Context(stated, None, "config.json")
    extended = max(stated, round(original * factor))
    # Some families state the length after scaling, others before; the original is native in both.
    return Context(min(original, stated), extended, "config.json, with its RoPE scaling")


def _from_tokenizer(configs: Configs) -> Context:
    for config, key, source in (
        (configs.sentence_bert, "max_seq_length", "sentence_bert_config.json"),
        (configs.tokenizer, "model_max_length", "tokenizer_config.json"),
    ):
        found = number(config.get(key))
        if found and found < MAX_TOKENS:
            return Context(found, None, source)
    return Context(None)


def kv_bytes_per_token(configs: Configs) -> int | None:
    """Over the attention layers, at 16 bit; an upper bound where layers slide over a window."""
    layers = configs.number("num_hidden_layers", "n_layer", "num_layers", "n_layers")
    if layers is None or layers > 10_000:
        return None
    attention = _attention_layers(configs, layers)
    if (latent := configs.number("kv_lora_rank")) is not None:
        rotary = configs.number("qk_rope_head_dim") or 0
        return (latent + rotary) * attention * BYTES_PER_VALUE
    heads = configs.number("num_attention_heads", "n_head", "n_heads")
    hidden = configs.number("hidden_size", "n_embd", "d_model")
    kv_heads = _kv_heads(configs, heads)
    size = configs.number("head_dim") or (hidden // heads if hidden and heads else None)
    if kv_heads is None or size is None:
        return 0 if attention == 0 else None
    return 2 * attention * kv_heads * size * BYTES_PER_VALUE


def _kv_heads(configs: Configs, heads: int | None) -> int | None:
    if configs.value("multi_query") is True and not configs.value("new_decoder_architecture"):
        return 1
    return configs.number("num_key_value_heads", "num_kv_heads", "n_head_kv") or heads


def _attention_layers(configs: Configs, layers: int) -> int:
    for count in ATTENTION_COUNTS:
        if (found := count(configs, layers)) is not None:
            return min(found, layers)
    return layers


def _by_type(configs: Configs, layers: int) -> int | None:
    for key in ("layer_types", "layers_block_type", "attn_type_list"):
        types = configs.value(key)
        if isinstance(types, list) and types and len(types) <= 10_000:
            return sum(t in ATTENTION_LAYERS for t in types if isinstance(t, str))
    return None


def _by_pattern(configs: Configs, layers: int) -> int | None:
    pattern = configs.value("hybrid_override_pattern")
    return pattern[:10_000].count("*") if isinstance(pattern, str) and pattern else None


def _by_indices(configs: Configs, layers: int) -> int | None:
    for key in ("attn_layer_idxs", "full_attn_idxs", "attn_layer_indices"):
        indices = configs.value(key)
        if isinstance(indices, list) and indices:
            return len(indices)
    return None


def _by_interval(configs: Configs, layers: int) -> int | None:
    interval = configs.number("full_attention_interval", "attn_layer_period")
    return layers // interval if interval else None


def _by_recurrence(configs: Configs, layers: int) -> int | None:
    return 0 if configs.model_type in UNBOUNDED_TYPES else None


ATTENTION_COUNTS: tuple[Callable[[Configs, int], int | None], ...] = (
    _by_recurrence,
    _by_type,
    _by_pattern,
    _by_indices,
    _by_interval,
)
