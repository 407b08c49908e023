"""What mlx-lm can run: one table. Checked against mlx-lm 0.32.2 on CPU by really loading."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from backends.base import Support
from backends.headers import TOKENIZERS
from backends.headers import safetensors_details as _details
from backends.mlx.library import Supported
from backends.mlx.pooling import mode_of
from backends.shared_rules import ADAPTER
from backends.verdicts import Reason, Rule, only
from detect.types import ModelInfo, Role, WeightFormat

SERVED_ROLES = frozenset((Role.GENERATIVE, Role.VISION, Role.EMBEDDING, Role.UNKNOWN))

Predicate = Callable[[ModelInfo], bool]

FP8_DEQUANTIZED = frozenset(
    ("deepseek_v3", "deepseek_v32", "kimi_k2", "joyai_llm_flash", "mimo_v2_flash", "minimax",
     "minimax_m2", "minimax_m3_vl", "ministral3", "mistral4")
)  # fmt: skip
"""Architectures whose module in mlx-lm turns block FP8 into 16 bit while it loads."""

READS_FP8_AS_MXFP8 = frozenset(("deepseek_v41", "deepseek_v41_text", "minimax_m3_vl"))
"""Architectures whose module renames the scales of FP8 in blocks of 32 to those of MXFP8."""

CT_FORMATS = frozenset(("nvfp4-pack-quantized", "mxfp4-pack-quantized", "pack-quantized"))
"""What mlx-lm has a width for; it refuses every other claim of compressed-tensors, whatever the
tensors are."""

NEEDS_ITS_CLAIM = frozenset(("mlx", "awq", "mxfp4", "bitnet"))
"""Methods that mlx-lm converts only because the config tells it to."""


def rules(supported: Supported, version: str, device: str) -> tuple[Rule, ...]:
    """In order: what it is, whether it may be run, whether it can be read, what is limited.

    `device` is `metal`, `cuda` or `cpu`. Without a list of architectures none is refused.
    """
    return (
        *_format_rules(),
        Rule(
            when=lambda info: "model_file" in _details(info).config,
            code=Reason.UNSAFE_REMOTE_CODE,
            reason="the model brings Python code of its own, which is never run here",
        ),
        Rule(
            when=lambda info: bool(supported.modules) and _module(info, supported) is None,
            code=Reason.UNSUPPORTED_ARCH,
            reason=lambda info: f"mlx-lm {version} has no architecture {_type(info)!r}",
            remedy="A newer mlx-lm may have it.",
        ),
        Rule(
            when=lambda info: not TOKENIZERS & _details(info).files_beside,
            code=Reason.MISSING_TOKENIZER,
            reason="there is no tokenizer beside the weights",
            remedy="Copy tokenizer.json and tokenizer_config.json of the original model there.",
        ),
        Rule(
            when=lambda info: not all(file.name.startswith("model") for file in info.files),
            code=Reason.CONFLICT_LAYOUT,
            reason="reads weights from model*.safetensors only",
            remedy="Download the model in Hugging Face's layout.",
        ),
        Rule(
            when=lambda info: (
                _details(info).bare_layers
                and _wants_model(info, supported)
                and info.role is not Role.EMBEDDING
            ),
            code=Reason.CONFLICT_LAYOUT,
            reason="the tensors' names begin with 'layers.', where it expects 'model.layers.'",
            remedy="Download the model with its head: this is only the body of one.",
        ),
        Rule(
            when=lambda info: _is_nested_elsewhere(info, supported),
            code=Reason.CONFLICT_LAYOUT,
            reason=lambda info: (
                f"the tensors' names begin with {_details(info).name_prefix!r}, which its "
                f"{_type(info)} does not know"
            ),
            remedy="Restore config.json from where the model came from, or download the original.",
        ),
        *only(lambda info: info.role is Role.EMBEDDING, _embedding_rules(supported)),
        *_quantization_rules(),
        Rule(
            when=lambda info: _details(info).generation_config is None,
            code=Reason.CONFLICT_CONFIG_VS_TENSORS,
            reason="mlx-lm fails over generation_config.json, which is no JSON object",
            remedy="Restore the file from where the model came from, or remove it.",
        ),
        Rule(
            when=_has_no_end,
            code=Reason.CONFLICT_CONFIG_VS_TENSORS,
            reason="the `eos_token_id` in generation_config.json or config.json, with which an "
            "answer ends, is no token's number and no list of such",
            remedy="Restore the files from where the model came from.",
        ),
        Rule(
            when=lambda info: device != "metal" and _method(info) == "bitnet",
            code=Reason.UNSUPPORTED_QUANT_ON_PLATFORM,
            reason="computes BitNet with Metal only",
            remedy="Download a GGUF of the model.",
        ),
        Rule(
            when=lambda info: device == "cpu" and _has_16_bit_experts(info),
            code=Reason.UNSUPPORTED_QUANT_ON_PLATFORM,
            reason="on CPU, mlx computes experts only when they are quantised or float32",
            remedy="Quantise the model with `mlx_lm.convert -q`.",
        ),
        Rule(
            when=lambda info: info.role is Role.VISION,
            code=Reason.UNSUPPORTED_ROLE,
            reason="answers text only: mlx-lm has no image input",
            support=Support.LIMITED,
        ),
    )


def _format_rules() -> tuple[Rule, ...]:
    return (
        Rule(
            when=lambda info: info.format is WeightFormat.GGUF,
            code=Reason.UNSUPPORTED_FORMAT,
            reason="reads MLX and safetensors models, not GGUF",
        ),
        Rule(
            when=lambda info: info.format not in (WeightFormat.MLX, WeightFormat.SAFETENSORS),
            code=Reason.UNSUPPORTED_FORMAT,
            reason=lambda info: f"cannot read the {info.format} format",
        ),
        ADAPTER,
        Rule(
            when=lambda info: info.role not in SERVED_ROLES,
            code=Reason.UNSUPPORTED_ROLE,
            reason=lambda info: f"generates text, and this model's role is {info.role}",
        ),
        Rule(
            when=lambda info: info.role is Role.EMBEDDING and _details(info).pooling is None,
            code=Reason.UNSUPPORTED_ROLE,
            reason="makes vectors only where modules.json says how, and there is none to be read",
            remedy="Copy modules.json and the folder 1_Pooling of the original beside the weights.",
        ),
    )


def _embedding_rules(supported: Supported) -> tuple[Rule, ...]:
    """Wrong vectors look like right ones: what is not known to be right is refused."""
    return (
        Rule(
            when=lambda info: mode_of(_details(info).pooling) is None,
            code=Reason.UNSUPPORTED_ROLE,
            reason=lambda info: (
                f"makes vectors of the last, the first or the mean token and nothing more; this "
                f"model wants {_pooling(info)}"
            ),
        ),
        Rule(
            when=lambda info: "auto_map" in _details(info).config,
            code=Reason.UNSAFE_REMOTE_CODE,
            reason="the model brings Python code of its own, which is never run here, and its "
            "vectors may depend on it",
        ),
        Rule(
            when=_looks_ahead,
            code=Reason.UNSUPPORTED_ARCH,
            reason="reads text from left to right only, and this model looks both ways",
        ),
        Rule(
            when=lambda info: bool(supported.modules) and not _tells_states(info, supported),
            code=Reason.UNSUPPORTED_ARCH,
            reason=lambda info: f"gives no states of {_type(info)} that vectors are made of",
        ),
    )


def _pooling(info: ModelInfo) -> str:
    pooling = _details(info).pooling
    assert pooling is not None
    return ", ".join((*pooling.modes, *pooling.others)) or "something that is not said"


def _looks_ahead(info: ModelInfo) -> bool:
    config = _details(info).config
    both_ways = (config.get("use_bidirectional_attention"), config.get("is_causal") is False)
    return any(both_ways)


def _tells_states(info: ModelInfo, supported: Supported) -> bool:
    """The module's network has a body, and the head is applied to what that returns."""
    model_type = info.architecture.model_type or ""
    return all(supported.mentions(model_type, w) for w in ("self.model = ", " out = self.model("))


def _quantization_rules() -> tuple[Rule, ...]:
    return (
        Rule(
            when=_is_quantized_without_claim,
            code=Reason.CONFLICT_CONFIG_VS_TENSORS,
            reason="the weights are quantised and config.json does not say how",
            remedy="Restore config.json from where the model came from.",
        ),
        Rule(
            when=lambda info: _method(info) not in (None, *READABLE),
            code=Reason.UNSUPPORTED_QUANT,
            reason=lambda info: f"cannot read {_method(info)} weights",
            remedy=CONVERT,
        ),
        Rule(
            when=_unreadable("awq"),
            code=Reason.UNSUPPORTED_QUANT,
            reason="reads AWQ only in its 4-bit GEMM layout and without experts",
            remedy=CONVERT,
        ),
        Rule(
            when=_unreadable("bitnet"),
            code=Reason.CONFLICT_CONFIG_VS_TENSORS,
            reason="the head is plain, and config.json does not exclude it from what is packed",
            remedy="Restore config.json from where the model came from.",
        ),
        Rule(
            when=_unreadable("fp8"),
            code=Reason.UNSUPPORTED_QUANT,
            reason=lambda info: f"reads FP8 of a few architectures only, not of {_type(info)}",
            remedy=CONVERT,
        ),
        Rule(
            when=lambda info: bool(_unreadable_claim(info)),
            code=Reason.CONFLICT_CONFIG_VS_TENSORS,
            reason=lambda info: (
                f"believes config.json, which claims {_unreadable_claim(info)}, and cannot load "
                "the weights as that"
            ),
            remedy="Restore config.json from where the model came from, or remove its claim where "
            "the weights are plain.",
        ),
    )


CONVERT = (
    "Download an MLX conversion of the model, or make one from its 16-bit original with "
    "`mlx_lm.convert -q`."
)


def _type(info: ModelInfo) -> str:
    return info.architecture.model_type or info.architecture.hf_class or "unknown"


def _module(info: ModelInfo, supported: Supported) -> str | None:
    return supported.module(info.architecture.model_type or "")


def _method(info: ModelInfo) -> str | None:
    return info.quantization.method if info.quantization else None


def _claim(info: ModelInfo) -> Mapping[str, Any]:
    """What the config says of the quantisation: mlx-lm decides by it, whatever the tensors are."""
    config = _details(info).config
    claims = (config.get("quantization"), _hf_claim(info))
    return next((claim for claim in claims if isinstance(claim, dict)), {})


def _hf_claim(info: ModelInfo) -> Any:
    """Of `quantization_config`, from the places where mlx-lm looks for it, in its order."""
    details = _details(info)
    text_config = details.config.get("text_config")
    if "quantization_config" in details.config:
        return details.config["quantization_config"]
    if isinstance(text_config, dict) and "quantization_config" in text_config:
        return text_config["quantization_config"]
    return details.side_config if "hf_quant_config.json" in details.files_beside else None


def _is_quantized_without_claim(info: ModelInfo) -> bool:
    return _method(info) in NEEDS_ITS_CLAIM and not _claim(info)


def _unreadable_claim(info: ModelInfo) -> str:
    """The claim that mlx-lm fails over before it looks at the tensors, or because of them."""
    claim = _claim(info)
    if not claim or isinstance(_details(info).config.get("quantization"), dict):
        return ""
    method = str(claim.get("quant_method") or "")
    if not method:
        return "a quantisation and no quant_method"
    if method == "compressed-tensors" and claim.get("format") not in CT_FORMATS:
        return f"compressed-tensors in {claim.get('format')}"
    if method == "modelopt" and claim.get("quant_algo") != "NVFP4":
        return f"modelopt in {claim.get('quant_algo')}"
    return method if method in ("awq", "gptq", "bitnet") and info.quantization is None else ""


def _is_nested_elsewhere(info: ModelInfo, supported: Supported) -> bool:
    """The layers are below something that the architecture's module never speaks of."""
    parts = [part for part in _details(info).name_prefix.split(".") if part]
    known = (_speaks_of(part, info, supported) for part in parts)
    return bool(supported.modules) and not all(known)


def _speaks_of(part: str, info: ModelInfo, supported: Supported) -> bool:
    """`model` is a word of every module: it takes a text that begins with it to remove it."""
    words = ('"model"', '"model.') if part == "model" else (part,)
    return any(supported.mentions(info.architecture.model_type or "", word) for word in words)


def _wants_model(info: ModelInfo, supported: Supported) -> bool:
    """The architecture's module has its layers in `model`, and adds that to no name."""
    model_type = info.architecture.model_type or ""
    adds = supported.mentions(model_type, 'f"model.{')
    return supported.mentions(model_type, "self.model = ") and not adds


def _has_no_end(info: ModelInfo) -> bool:
    """As mlx-lm looks for it: generation_config.json goes first, unless it says nothing."""
    details = _details(info)
    generation = (details.generation_config or {}).get("eos_token_id")
    end = generation or details.config.get("eos_token_id")
    return end is not None and not all(
        isinstance(token, int) for token in (end if isinstance(end, list) else [end])
    )


def _has_16_bit_experts(info: ModelInfo) -> bool:
    details = _details(info)
    return info.quantization is None and details.moe and "F32" not in details.dtype_bytes


def _unreadable(method: str) -> Predicate:
    """Quantised by `method`, in a variant that mlx-lm does not read."""
    return lambda info: _method(info) == method and not READABLE[method](info)


def _is_awq_gemm(info: ModelInfo) -> bool:
    quantization = info.quantization
    assert quantization is not None
    gemm = quantization.mode == "gemm" and quantization.bits == 4
    return gemm and not _details(info).moe


def _fp8_is_dequantized(info: ModelInfo) -> bool:
    claim = _claim(info)
    as_mxfp8 = claim.get("scale_fmt") == "ue8m0" and claim.get("weight_block_size") == [32, 32]
    if as_mxfp8:
        return info.architecture.model_type in READS_FP8_AS_MXFP8
    return info.architecture.model_type in FP8_DEQUANTIZED


def _is_bitnet_throughout(info: ModelInfo) -> bool:
    """It expects every linear layer packed that the config does not name."""
    kept = _claim(info).get("modules_to_not_convert")
    named = isinstance(kept, list) and "lm_head" in kept
    return named or _details(info).quantized_lm_head is not False


def _always(info: ModelInfo) -> bool:
    return True


READABLE: Mapping[str, Predicate] = {
    "mlx": _always,
    "mxfp4": _always,
    "bitnet": _is_bitnet_throughout,
    "awq": _is_awq_gemm,
    "fp8": _fp8_is_dequantized,
}
"""Methods that mlx-lm takes as they are or converts while it loads, and in which variants."""
