"""What mistral.rs can run: one table. Checked against mistralrs 0.9.5 on CPU by really loading."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from backends.base import Support
from backends.headers import (
    gguf_details,
    has_no_pre_tokenizer,
    pre_tokenizer,
    safetensors_details,
)
from backends.mistral_rs.stub import NEEDS_PROJECTOR
from backends.shared_rules import ADAPTER, NO_GGUF_TOKENIZER, OLLAMAS_LAYOUT
from backends.stub import PRE_TOKENIZER
from backends.verdicts import Reason, Rule, only
from detect.types import ModelInfo, Quantization, Role, WeightFormat

Predicate = Callable[[ModelInfo], bool]

FORMATS = frozenset(
    (WeightFormat.GGUF, WeightFormat.SAFETENSORS, WeightFormat.MLX, WeightFormat.UQFF)
)
ROLES = frozenset((Role.GENERATIVE, Role.VISION, Role.UNKNOWN))

GGUF_TYPES = frozenset(
    ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0",
     "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K")
)  # fmt: skip
"""It also names Q8_1, with blocks of another size than in files."""

GPT_OSS = "gpt-oss"

MLX_BITS = frozenset((2, 3, 4, 6, 8))
MLX_GROUPS = frozenset((32, 64, 128))
NOT_QUANTIZED_BY_MLX = frozenset(("glm4", "phi3"))
"""Dense architectures that it reads from MLX only as floats: with quantised layers it takes the
head for plain, or fails at the first request."""

NAMES_BEGIN = {"gemma3": "language_model."}
"""Multimodal architectures, and where it looks for their language model."""

ONE_ACTIVATION = frozenset(("gemma",))
"""Architectures whose config may have `hidden_act` or `hidden_activation`, and not both."""

STORED_OTHERWISE_BY_MLX = frozenset(("granitemoehybrid",))
"""Dense architectures whose layers MLX renames, so that it does not find them."""

READS_BOTH_KEYS_AS_ONE = frozenset(("deepseek_v3", "glm4_moe", "glm4_moe_lite", "phi3_v"))
"""Architectures whose config it refuses when it has both `quantization_config` and its alias."""

CUDA_ONLY = "runs {} weights with CUDA only"
WEIGHT_FILE = re.compile(r".*(model|consolidated)\.safetensors|.*-\d{5}-of-\d{5}\.safetensors")
"""Names of files that it loads where no index lists them."""

FALLS_BACK = frozenset(("gptq", "awq", "fp8"))
"""Claims that it drops, layer by layer, where the tensors are plain."""

READS_EXCLUSIONS = frozenset(("compressed-tensors", "modelopt"))
"""Claims under which every layer is quantised that is not excluded by name."""

EXCLUSIONS = ("ignore", "exclude_modules", "modules_to_not_convert")
HEAD = "lm_head"

OTHER_DOWNLOAD = "Download the model as MLX, as GGUF or unquantised."


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Of the installed engine: its version, what it computes on (`metal`, `cuda` or `cpu`), and
    how it knows an architecture (empty: not at all; None: it did not say)."""

    version: str
    device: str
    answer: Callable[[str], str | None]

    def of(self, info: ModelInfo) -> str | None:
        return self.answer(question(info))

    def pre_tokenizer(self, info: ModelInfo) -> str | None:
        """The same of how the model's text is split; None where that goes without saying."""
        name = pre_tokenizer(info)
        return None if name is None else self.answer(f"{PRE_TOKENIZER}{name}")


def question(info: ModelInfo) -> str:
    """The architecture's name as the probe takes it."""
    if _is_gguf(info):
        return f"gguf:{info.architecture.gguf}"
    return f"hf:{info.architecture.hf_class}"


def rules(known: Knowledge) -> tuple[Rule, ...]:
    """In order: what it is, whether it is known, whether it can be read, what is limited."""
    return (
        *_kind_rules(known),
        *only(_is_gguf, _gguf_rules(known)),
        *only(_is_folder, _folder_rules(known)),
        *only(_is_mlx, _mlx_rules()),
        *only(_is_safetensors, _quantization_rules(known)),
        Rule(
            when=lambda info: info.role is Role.VISION,
            code=Reason.UNSUPPORTED_ROLE,
            reason="answers text only here: the router sends it no images yet",
            support=Support.LIMITED,
        ),
    )


def _is_gguf(info: ModelInfo) -> bool:
    return info.format is WeightFormat.GGUF


def _is_folder(info: ModelInfo) -> bool:
    return not _is_gguf(info)


def _is_mlx(info: ModelInfo) -> bool:
    return info.format is WeightFormat.MLX


def _is_safetensors(info: ModelInfo) -> bool:
    return info.format is WeightFormat.SAFETENSORS


def _kind_rules(known: Knowledge) -> tuple[Rule, ...]:
    return (
        Rule(
            when=lambda info: info.format not in FORMATS,
            code=Reason.UNSUPPORTED_FORMAT,
            reason=lambda info: f"cannot read the {info.format} format",
            remedy=OTHER_DOWNLOAD,
        ),
        ADAPTER,
        *only(_is_gguf, (OLLAMAS_LAYOUT,)),
        Rule(
            when=lambda info: info.role not in ROLES,
            code=Reason.UNSUPPORTED_ROLE,
            reason=lambda info: f"generates text here, and this model's role is {info.role}",
        ),
        Rule(
            when=lambda info: _is_folder(info) and _classes(info) != 1,
            code=Reason.CONFLICT_CONFIG_VS_TENSORS,
            reason="finds its loader by the one class that config.json should name under "
            "`architectures`",
            remedy="Restore config.json from where the model came from.",
        ),
        Rule(
            when=lambda info: known.of(info) == "",
            code=Reason.UNSUPPORTED_ARCH,
            reason=lambda info: (
                f"mistral.rs {known.version} does not know the architecture "
                f"{question(info).partition(':')[2]!r}"
            ),
            remedy="A newer mistral.rs may.",
        ),
    )


def _gguf_rules(known: Knowledge) -> tuple[Rule, ...]:
    return (
        Rule(
            when=lambda info: known.of(info) == NEEDS_PROJECTOR and info.mmproj is None,
            code=Reason.MISSING_MMPROJ,
            reason="loads this architecture only together with its projector",
            remedy="Put the model's mmproj file into the same folder.",
        ),
        Rule(
            when=lambda info: bool(_unreadable_types(info)),
            code=Reason.UNSUPPORTED_QUANT,
            reason=lambda info: f"cannot read tensors of type {', '.join(_unreadable_types(info))}",
            remedy="Download a K-quant of the model, e.g. Q4_K_M.",
        ),
        NO_GGUF_TOKENIZER,
        Rule(
            when=has_no_pre_tokenizer,
            code=Reason.MISSING_TOKENIZER,
            reason="the file does not name its pre-tokenizer, and it does not guess",
            remedy="Convert it anew with a current llama.cpp.",
        ),
        Rule(
            when=lambda info: known.pre_tokenizer(info) == "",
            code=Reason.MISSING_TOKENIZER,
            reason=lambda info: (
                f"mistral.rs {known.version} does not know the pre-tokenizer "
                f"{pre_tokenizer(info)!r}"
            ),
            remedy="A newer mistral.rs may.",
        ),
    )


def _folder_rules(known: Knowledge) -> tuple[Rule, ...]:
    return (
        Rule(
            when=lambda info: known.of(info) == "embedding",
            code=Reason.UNSUPPORTED_ROLE,
            reason="knows this architecture for embeddings only",
        ),
        Rule(
            when=lambda info: "tokenizer.json" not in safetensors_details(info).files_beside,
            code=Reason.MISSING_TOKENIZER,
            reason="needs a tokenizer.json beside the weights",
            remedy="Copy tokenizer.json and tokenizer_config.json of the original model there.",
        ),
        Rule(
            when=_has_two_activations,
            code=Reason.CONFLICT_CONFIG_VS_TENSORS,
            reason="refuses a config.json that has both `hidden_act` and `hidden_activation`",
            remedy="Remove one of them from config.json.",
        ),
        Rule(
            when=lambda info: bool(_unnoticed_files(info)),
            code=Reason.CONFLICT_LAYOUT,
            reason=lambda info: f"does not take {_unnoticed_files(info)[0]} for weights",
            remedy="Rename a single file to model.safetensors; several need an index.",
        ),
        Rule(
            when=lambda info: known.of(info) == "text" and safetensors_details(info).bare_layers,
            code=Reason.CONFLICT_LAYOUT,
            reason="the tensors' names begin with 'layers.', where it expects 'model.layers.'",
            remedy="Download the model with its head: this is only the body of one.",
        ),
        Rule(
            when=_begins_elsewhere,
            code=Reason.CONFLICT_LAYOUT,
            reason=lambda info: (
                "the tensors' names begin with "
                f"{safetensors_details(info).name_prefix!r}, where it expects "
                f"{NAMES_BEGIN[info.architecture.model_type or '']!r}"
            ),
            remedy="Download the original model, or an MLX conversion for mlx.",
        ),
        Rule(
            when=lambda info: known.of(info) == "text" and _is_nested(info),
            code=Reason.CONFLICT_LAYOUT,
            reason=lambda info: (
                "the tensors' names begin with "
                f"{safetensors_details(info).name_prefix!r}, where it expects 'model.'"
            ),
            remedy="Download the original model, or an MLX conversion for mlx.",
        ),
    )


def _mlx_rules() -> tuple[Rule, ...]:
    """`docs/formats.md` has the measurements behind each."""
    return (
        Rule(
            when=_has_mlx_experts,
            code=Reason.CONFLICT_LAYOUT,
            reason="cannot load mixtures of experts in MLX's layout: it reads the router "
            "(`mlp.gate`) as plain weights and the experts one by one",
            remedy="Download a GGUF of the model.",
        ),
        Rule(
            when=_is_rearranged,
            code=Reason.CONFLICT_LAYOUT,
            reason=lambda info: (
                f"does not read MLX's arrangement of {info.architecture.model_type}'s tensors"
            ),
            remedy="Download a GGUF or the original of the model.",
        ),
        Rule(
            when=lambda info: _mode(info) not in (None, "affine"),
            code=Reason.UNSUPPORTED_QUANT,
            reason=lambda info: f"reads MLX's affine quantisation only, not {_mode(info)}",
            remedy="Download an affine MLX conversion or a GGUF of the model.",
        ),
        Rule(
            when=_has_odd_width,
            code=Reason.UNSUPPORTED_QUANT,
            reason=lambda info: (
                f"cannot read {_label(info)}: MLX weights of 2, 3, 4, 6 or 8 bit "
                "in groups of 32, 64 or 128"
            ),
            remedy="Download a 4-bit MLX conversion or a GGUF of the model.",
        ),
        Rule(
            when=_is_not_uniform,
            code=Reason.UNSUPPORTED_QUANT,
            reason="reads MLX weights only when all layers have the same bits and group, and "
            "here they differ",
            remedy="Download a GGUF of the model.",
        ),
        Rule(
            when=lambda info: (
                info.quantization is not None
                and not isinstance(_config(info).get("quantization_config"), dict)
            ),
            code=Reason.CONFLICT_CONFIG_VS_TENSORS,
            reason="looks for `quantization_config` in config.json, and this one has only "
            "`quantization`",
            remedy="Convert the model anew with a current mlx-lm, which writes both.",
        ),
        Rule(
            when=_claims_other_width,
            code=Reason.CONFLICT_CONFIG_VS_TENSORS,
            reason=lambda info: (
                "believes the bits and group of `quantization_config`, which are not those of the "
                f"tensors ({_label(info)})"
            ),
            remedy="Restore config.json from where the model came from.",
        ),
        Rule(
            when=lambda info: (
                info.quantization is not None
                and info.architecture.model_type in NOT_QUANTIZED_BY_MLX
            ),
            code=Reason.UNSUPPORTED_QUANT,
            reason=lambda info: (
                f"reads no quantised MLX weights of the architecture {info.architecture.model_type}"
            ),
            remedy="Download a GGUF of the model.",
        ),
        Rule(
            when=lambda info: (
                info.architecture.model_type in READS_BOTH_KEYS_AS_ONE
                and "quantization" in _config(info)
            ),
            code=Reason.CONFLICT_CONFIG_VS_TENSORS,
            reason="takes `quantization` and `quantization_config` in config.json for one key "
            "given twice, and refuses it for this architecture",
        ),
    )


def _quantization_rules(known: Knowledge) -> tuple[Rule, ...]:
    on_cuda = known.device == "cuda"
    return (
        Rule(
            when=lambda info: (
                info.quantization is None and _claimed_method(info) not in ("", *FALLS_BACK)
            ),
            code=Reason.CONFLICT_CONFIG_VS_TENSORS,
            reason=lambda info: (
                f"believes config.json, which claims {_claimed_method(info)}, and "
                "the tensors are plain"
            ),
            remedy="Remove `quantization_config` from config.json.",
        ),
        Rule(
            when=lambda info: (
                info.quantization is not None
                and not _claimed_method(info)
                and _method(info) != "mxfp4"
            ),
            code=Reason.CONFLICT_CONFIG_VS_TENSORS,
            reason=lambda info: (
                f"the weights are quantised ({_label(info)}) and config.json does not say so"
            ),
            remedy="Restore config.json from where the model came from.",
        ),
        Rule(
            when=lambda info: _method(info) not in (None, *READABLE),
            code=Reason.UNSUPPORTED_QUANT,
            reason=lambda info: f"cannot read {_method(info)} weights",
            remedy=OTHER_DOWNLOAD,
        ),
        Rule(
            when=lambda info: _method(info) in CUDA_METHODS and not on_cuda,
            code=Reason.UNSUPPORTED_QUANT_ON_PLATFORM,
            reason=lambda info: CUDA_ONLY.format(_method(info)),
            remedy=OTHER_DOWNLOAD,
        ),
        Rule(
            when=lambda info: _method(info) in DENSE_ONLY and safetensors_details(info).moe,
            code=Reason.UNSUPPORTED_QUANT,
            reason=lambda info: f"reads {_method(info)} weights of dense models only",
            remedy=OTHER_DOWNLOAD,
        ),
        Rule(
            when=lambda info: (
                info.quantization is not None and not READABLE[info.quantization.method](info)
            ),
            code=Reason.UNSUPPORTED_QUANT,
            reason=lambda info: f"does not read this variant: {_label(info)}",
            remedy=OTHER_DOWNLOAD,
        ),
        Rule(
            when=_has_plain_head_not_excluded,
            code=Reason.CONFLICT_CONFIG_VS_TENSORS,
            reason="the head is plain, and config.json does not exclude it from what is quantised",
            remedy="Restore config.json from where the model came from.",
        ),
        Rule(
            when=lambda info: known.device != "cuda" and _is_block_fp8_with_experts(info),
            code=Reason.UNSUPPORTED_QUANT_ON_PLATFORM,
            reason="loads experts in block FP8 and cannot compute them without CUDA",
            remedy=OTHER_DOWNLOAD,
        ),
        Rule(
            when=lambda info: known.device == "metal" and _mode(info) in NVFP4_MODES,
            code=Reason.UNSUPPORTED_QUANT_ON_PLATFORM,
            reason="cannot compute NVFP4 with Metal",
            remedy="Download the model as MLX in mode nvfp4.",
        ),
    )


def _always(info: ModelInfo) -> bool:
    return True


def _is_gptq(info: ModelInfo) -> bool:
    return _mode(info) is None and bool(_quantization(info).group_size)


def _is_awq(info: ModelInfo) -> bool:
    return _mode(info) in ("gemm", "gemv") and _quantization(info).bits in (4, 8)


def _is_bnb(info: ModelInfo) -> bool:
    """4 bit, and a head that is quantised too, or shared with the embeddings. FP4 it loads and
    decodes wrongly."""
    details = safetensors_details(info)
    return _mode(info) == "nf4" and details.quantized_lm_head is not False


def _is_fp8(info: ModelInfo) -> bool:
    """Scales per channel it reads under the name of compressed-tensors only."""
    return _mode(info) in ("block", "tensor")


def _is_gpt_oss(info: ModelInfo) -> bool:
    return info.architecture.model_type == "gpt_oss"


def _is_ct(info: ModelInfo) -> bool:
    return _mode(info) in ("float-quantized", "nvfp4-pack-quantized")


READABLE: Mapping[str, Predicate] = {
    "gptq": _is_gptq,
    "awq": _is_awq,
    "bitsandbytes": _is_bnb,
    "fp8": _is_fp8,
    "compressed-tensors": _is_ct,
    "modelopt": _always,
    "mxfp4": _is_gpt_oss,
}
"""Methods by their name in `detect.types.Quantization`, and which variants of them."""

CUDA_METHODS = frozenset(("gptq", "awq"))
DENSE_ONLY = frozenset(("gptq", "awq", "bitsandbytes"))
NVFP4_MODES = frozenset(("nvfp4", "nvfp4-pack-quantized"))


def _config(info: ModelInfo) -> Mapping[str, Any]:
    return safetensors_details(info).config


def _claim(info: ModelInfo) -> Mapping[str, Any]:
    """What the configs say of the quantisation, from the two files that it reads for it."""
    details = safetensors_details(info)
    claim = _config(info).get("quantization_config")
    if isinstance(claim, dict):
        return claim
    if "hf_quant_config.json" not in details.files_beside:
        return {}
    settings = details.side_config.get("quantization")
    return {"quant_method": "modelopt", **(settings if isinstance(settings, dict) else {})}


def _claimed_method(info: ModelInfo) -> str:
    claim = _claim(info)
    return str(claim.get("quant_method") or "a quantisation") if claim else ""


def _classes(info: ModelInfo) -> int:
    return len(safetensors_details(info).architectures)


def _is_nested(info: ModelInfo) -> bool:
    return bool(safetensors_details(info).name_prefix)


def _begins_elsewhere(info: ModelInfo) -> bool:
    expected = NAMES_BEGIN.get(info.architecture.model_type or "")
    return expected is not None and safetensors_details(info).name_prefix != expected


def _has_two_activations(info: ModelInfo) -> bool:
    keys = ("hidden_act", "hidden_activation")
    both = all(_config(info).get(key) is not None for key in keys)
    return both and info.architecture.model_type in ONE_ACTIVATION


def _unnoticed_files(info: ModelInfo) -> list[str]:
    """Weights under names that it passes over."""
    indexed = "model.safetensors.index.json" in safetensors_details(info).files_beside
    if indexed or info.format is WeightFormat.UQFF:
        return []
    return [file.name for file in info.files if not WEIGHT_FILE.fullmatch(file.name)]


def _has_mlx_experts(info: ModelInfo) -> bool:
    """Stacked under MLX's names, or quantised: floats under the usual names are as published."""
    details = safetensors_details(info)
    return details.stacked_experts or (details.moe and info.quantization is not None)


def _is_rearranged(info: ModelInfo) -> bool:
    details = safetensors_details(info)
    return details.channels_last_kernels or info.architecture.model_type in STORED_OTHERWISE_BY_MLX


def _claims_other_width(info: ModelInfo) -> bool:
    if info.quantization is None:
        return False
    claim = _claim(info)
    return (claim.get("bits"), claim.get("group_size")) != (
        info.quantization.bits,
        info.quantization.group_size,
    )


def _has_plain_head_not_excluded(info: ModelInfo) -> bool:
    if info.quantization is None or safetensors_details(info).quantized_lm_head is not False:
        return False
    if _claimed_method(info) not in READS_EXCLUSIONS:
        return False
    claim = _claim(info)
    return not any(HEAD in name for name in _texts(claim.get(key) for key in EXCLUSIONS))


def _texts(lists: Iterable[Any]) -> list[str]:
    return [text for texts in lists if isinstance(texts, list) for text in texts
            if isinstance(text, str)]  # fmt: skip


def _quantization(info: ModelInfo) -> Quantization:
    assert info.quantization is not None
    return info.quantization


def _method(info: ModelInfo) -> str | None:
    return info.quantization.method if info.quantization else None


def _mode(info: ModelInfo) -> str | None:
    return info.quantization.mode if info.quantization else None


def _label(info: ModelInfo) -> str:
    return info.quantization.label if info.quantization else "plain"


def _has_odd_width(info: ModelInfo) -> bool:
    if info.quantization is None:
        return False
    return info.quantization.bits not in MLX_BITS or info.quantization.group_size not in MLX_GROUPS


def _is_not_uniform(info: ModelInfo) -> bool:
    if info.quantization is None:
        return False
    details = safetensors_details(info)
    return (
        info.quantization.mixed
        or bool(details.census.get("plain"))
        or details.quantized_embeddings is False
    )


def _unreadable_types(info: ModelInfo) -> list[str]:
    readable = GGUF_TYPES | ({"MXFP4"} if info.architecture.gguf == GPT_OSS else set())
    return sorted(set(gguf_details(info).tensor_type_bytes) - readable)


def _is_block_fp8_with_experts(info: ModelInfo) -> bool:
    return _method(info) == "fp8" and _mode(info) == "block" and safetensors_details(info).moe
