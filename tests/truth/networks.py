"""Small networks with random weights, of every architecture that mlx-lm can build."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.truth.checkpoint import Stored, copy_tokenizer, write, write_json

HIDDEN, VOCABULARY, EXPERTS = 128, 384, 4

BASE: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "attention_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}
MIXTURE: dict[str, Any] = {
    "num_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 128,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
}
MAMBA: dict[str, Any] = {
    "mamba_n_heads": 4,
    "mamba_d_head": 64,
    "mamba_d_ssm": 256,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_n_groups": 1,
    "mamba_expand": 2,
    "mamba_chunk_size": 256,
    "mamba_conv_bias": True,
    "mamba_proj_bias": False,
}

CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "llama": {"architectures": ["LlamaForCausalLM"], "mlp_bias": False},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": False,
              "sliding_window": 2048, "max_window_layers": 2},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "use_sliding_window": False,
              "sliding_window": None, "max_window_layers": 2},
    "smollm3": {"architectures": ["SmolLM3ForCausalLM"], "no_rope_layers": [1, 1],
                "no_rope_layer_interval": 4},
    "phi3": {"architectures": ["Phi3ForCausalLM"], "sliding_window": None, "pad_token_id": 0,
             "original_max_position_embeddings": 2048},
    "gemma2": {"architectures": ["Gemma2ForCausalLM"], "hidden_act": "gelu_pytorch_tanh",
               "hidden_activation": "gelu_pytorch_tanh", "attn_logit_softcapping": 50.0,
               "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 32,
               "sliding_window": 64, "tie_word_embeddings": True},
    "gemma3_text": {"architectures": ["Gemma3ForCausalLM"],
                    "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 32,
                    "rope_local_base_freq": 10000.0, "sliding_window": 64,
                    "sliding_window_pattern": 2, "attn_logit_softcapping": None,
                    "final_logit_softcapping": None, "tie_word_embeddings": True},
    "gemma": {"architectures": ["GemmaForCausalLM"], "hidden_act": "gelu_pytorch_tanh",
              "tie_word_embeddings": True},
    "starcoder2": {"architectures": ["Starcoder2ForCausalLM"], "norm_epsilon": 1e-5,
                   "use_bias": True, "hidden_act": "gelu_pytorch_tanh", "sliding_window": None,
                   "tie_word_embeddings": True},
    "glm4": {"architectures": ["Glm4ForCausalLM"], "partial_rotary_factor": 0.5},
    "hunyuan_v1_dense": {"architectures": ["HunYuanDenseV1ForCausalLM"], "use_qk_norm": True,
                         "rope_scaling": None},
    "olmo2": {"architectures": ["Olmo2ForCausalLM"]},
    "qwen3_moe": {"architectures": ["Qwen3MoeForCausalLM"], "use_sliding_window": False,
                  "sliding_window": None, "max_window_layers": 2, **MIXTURE},
    "mixtral": {"architectures": ["MixtralForCausalLM"], "num_local_experts": EXPERTS,
                "num_experts_per_tok": 2, "sliding_window": None},
    "glm4_moe": {"architectures": ["Glm4MoeForCausalLM"], "moe_intermediate_size": 128,
                 "norm_topk_prob": True, "n_group": 1, "topk_group": 1, "n_shared_experts": 1,
                 "n_routed_experts": EXPERTS, "routed_scaling_factor": 1.0,
                 "num_experts_per_tok": 2, "first_k_dense_replace": 1, "rope_scaling": None,
                 "use_qk_norm": False, "partial_rotary_factor": 0.5},
    "lfm2": {"architectures": ["Lfm2ForCausalLM"], "norm_eps": 1e-5, "conv_bias": False,
             "conv_L_cache": 3, "block_dim": HIDDEN, "block_ff_dim": 256,
             "block_multiple_of": 32, "block_ffn_dim_multiplier": 1.0,
             "block_auto_adjust_ff_dim": False, "layer_types": ["conv", "full_attention"],
             "tie_word_embeddings": True},
    "granitemoehybrid": {"architectures": ["GraniteMoeHybridForCausalLM"],
                         "embedding_multiplier": 1.0, "attention_multiplier": 0.2,
                         "logits_scaling": 1.0, "residual_multiplier": 1.0,
                         "layer_types": ["mamba", "attention"], "num_local_experts": 0,
                         "shared_intermediate_size": 256, "num_experts_per_tok": 0, **MAMBA},
    "falcon_h1": {"architectures": ["FalconH1ForCausalLM"], "mamba_rms_norm": False, **MAMBA},
    "qwen3_next": {"architectures": ["Qwen3NextForCausalLM"], "linear_num_value_heads": 4,
                   "linear_num_key_heads": 2, "linear_key_head_dim": 32,
                   "linear_value_head_dim": 32, "linear_conv_kernel_dim": 4,
                   "shared_expert_intermediate_size": 128, "partial_rotary_factor": 0.25,
                   "full_attention_interval": 2, **MIXTURE},
    "deepseek_v3": {"architectures": ["DeepseekV3ForCausalLM"], "moe_intermediate_size": 128,
                    "num_key_value_heads": 4, "n_shared_experts": 1,
                    "n_routed_experts": EXPERTS, "routed_scaling_factor": 1.0,
                    "kv_lora_rank": 64, "q_lora_rank": None, "qk_rope_head_dim": 16,
                    "v_head_dim": 32, "qk_nope_head_dim": 16, "n_group": 1, "topk_group": 1,
                    "num_experts_per_tok": 2, "moe_layer_freq": 1, "first_k_dense_replace": 1,
                    "topk_method": "noaux_tc", "scoring_func": "sigmoid",
                    "norm_topk_prob": True},
    "gpt_oss": {"architectures": ["GptOssForCausalLM"], "num_local_experts": EXPERTS,
                "num_experts_per_tok": 2, "intermediate_size": HIDDEN, "sliding_window": 64,
                "rope_scaling": None, "attention_bias": True,
                "layer_types": ["sliding_attention", "full_attention"], "swiglu_limit": 7.0},
    "quux": {"architectures": ["QuuxForCausalLM"]},
}  # fmt: skip


def config(architecture: str, **changes: Any) -> dict[str, Any]:
    return {**BASE, "model_type": architecture, **CONFIGS[architecture], **changes}


def network(settings: Mapping[str, Any], dtype: str = "bfloat16") -> Any:
    """Random weights, the same in every run."""
    import mlx.core as mx
    from mlx_lm.utils import _get_classes

    mx.random.seed(7)
    model_class, arguments = _get_classes(dict(settings))
    model = model_class(arguments.from_dict(dict(settings)))
    model.set_dtype(getattr(mx, dtype))
    if settings["tie_word_embeddings"] and "lm_head" in model:
        # Some classes find out only when they load weights that have none.
        model.tie_word_embeddings = True
        model.pop("lm_head")
    return model


def mlx(
    folder: Path,
    settings: Mapping[str, Any],
    *,
    bits: int | None = None,
    group: int = 64,
    mode: str = "affine",
    predicate: Callable[[str, Any], bool | dict[str, Any]] | None = None,
    keys: tuple[str, ...] = ("quantization", "quantization_config"),
    dtype: str = "bfloat16",
    model: Any = None,
    **changes: Any,
) -> Path:
    """As mlx-lm writes it, quantised unless `bits` is None. `keys` are those of the config that
    tell of it; `changes` are made to what is written of the config."""
    from mlx_lm.utils import quantize_model, save_model

    model = model if model is not None else network(settings, dtype)
    written = dict(settings)
    if bits is not None:
        predicate = predicate or getattr(model, "quant_predicate", None)
        with contextlib.redirect_stdout(None):
            model, written = quantize_model(
                model, written, group, bits, mode=mode, quant_predicate=predicate
            )
        claim = written.pop("quantization")
        written.pop("quantization_config", None)
        written |= dict.fromkeys(keys, claim)
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, model)
    write_json(folder / "config.json", written | changes)
    copy_tokenizer(folder)
    return folder


def plain(
    folder: Path, settings: Mapping[str, Any], *, dtype: str = "bfloat16", **options: Any
) -> Path:
    """In Hugging Face's layout, not quantised."""
    changes = options.pop("changes", {})
    return write(folder, tensors(settings, dtype), {**settings, **changes}, **options)


def tensors(settings: Mapping[str, Any], dtype: str = "bfloat16") -> dict[str, Stored]:
    """Under Hugging Face's names: experts one by one, and kernels with their channels first."""
    from mlx.utils import tree_flatten

    values = dict(tree_flatten(network(settings, dtype).parameters()))
    values = ORIGINALS.get(settings["model_type"], dict)(values)
    found: dict[str, Stored] = {}
    for name, value in values.items():
        if "conv" in name and value.ndim == 3:
            found[name] = _stored(value.transpose(0, 2, 1))
        elif ".switch_mlp." in name and settings["model_type"] != "gpt_oss":
            found |= {_expert(name, n): _stored(one) for n, one in enumerate(value)}
        else:
            found[name] = _stored(value)
    return found


def _granites(values: dict[str, Any]) -> dict[str, Any]:
    """Two projections in one."""
    import mlx.core as mx

    found: dict[str, Any] = {}
    for name, value in values.items():
        if name.endswith("mlp.gate_proj.weight"):
            both = [value, values[name.replace("gate_proj", "up_proj")]]
            found[name.replace("mlp.gate_proj", "shared_mlp.input_linear")] = mx.concatenate(both)
        elif name.endswith("mlp.down_proj.weight"):
            found[name.replace("mlp.down_proj", "shared_mlp.output_linear")] = value
        elif not name.endswith("mlp.up_proj.weight"):
            found[name] = value
    return found


def _deepseeks(values: dict[str, Any]) -> dict[str, Any]:
    """One projection from the compressed keys and values to both."""
    import mlx.core as mx

    found: dict[str, Any] = {}
    for name, value in values.items():
        if name.endswith(".embed_q.weight"):
            heads = [value.swapaxes(-1, -2), values[name.replace("embed_q", "unembed_out")]]
            both = mx.concatenate(heads, axis=1)
            found[name.replace("embed_q", "kv_b_proj")] = both.reshape(-1, both.shape[-1])
        elif not name.endswith(".unembed_out.weight"):
            found[name] = value
    return found


ORIGINALS = {"granitemoehybrid": _granites, "deepseek_v3": _deepseeks}
"""How the architectures that mlx-lm takes apart are published."""

MIXTRALS_NAMES = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


def _expert(name: str, number: int) -> str:
    name = name.replace(".switch_mlp.", f".experts.{number}.")
    if ".block_sparse_moe." in name:
        name = re.sub("gate_proj|down_proj|up_proj", lambda m: MIXTRALS_NAMES[m[0]], name)
    return name


def _stored(value: Any) -> Stored:
    import mlx.core as mx
    import numpy as np

    dtype = {mx.bfloat16: "BF16", mx.float16: "F16", mx.float32: "F32"}[value.dtype]
    raw = value if value.dtype != mx.bfloat16 else value.view(mx.uint16)
    return Stored(dtype, tuple(value.shape), np.ascontiguousarray(np.array(raw)).tobytes())
