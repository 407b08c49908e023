"""What a model on disk is: frozen facts, each with the evidence that led to it. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from msgspec import Struct, field


class WeightFormat(StrEnum):
    """The layout the weights are stored in: what an engine must be able to read.

    `MLX` covers everything in MLX's own tensor layout (packed `weight`/`scales`, stacked
    `switch_mlp` experts, or float weights written by MLX); `SAFETENSORS` covers every Hugging
    Face layout, quantised or not: `Quantization.method` says which.
    """

    MLX = "mlx"
    SAFETENSORS = "safetensors"
    GGUF = "gguf"
    UQFF = "uqff"
    PICKLE = "pickle"
    NPZ = "npz"
    GGML = "ggml"
    ONNX = "onnx"
    OPENVINO = "openvino"
    CTRANSLATE2 = "ctranslate2"
    TENSORRT_LLM = "tensorrt-llm"
    COREML = "coreml"
    TFLITE = "tflite"
    MLC = "mlc"
    LLAMAFILE = "llamafile"
    TENSORFLOW = "tensorflow"
    FLAX = "flax"
    DIFFUSERS = "diffusers"
    OLLAMA_TENSORS = "ollama-tensors"
    UNKNOWN = "unknown"


class Role(StrEnum):
    """What the model is for. Only some roles answer chat requests."""

    GENERATIVE = "generative"
    EMBEDDING = "embedding"
    RERANKER = "reranker"
    VISION = "vision"
    SPEECH = "speech"
    DIFFUSION = "diffusion"
    ADAPTER = "adapter"
    COMPANION = "companion"
    UNKNOWN = "unknown"


class Quantization(Struct, frozen=True, kw_only=True):
    """How the weights are quantised.

    `method` names the scheme: `mlx`, `gguf`, `gptq`, `awq`, `bitsandbytes`, `fp8`,
    `compressed-tensors`, `modelopt`, `mxfp4`, `hqq`, `eetq`, `quanto`, `torchao`, `aqlm`,
    `higgs`, `exl2`, `exl3`, `bitnet`, … `mode` is the variant inside the scheme: for MLX
    `affine`, `mxfp4`, `mxfp8` or `nvfp4`; for GGUF the label (`Q4_K_M`); for AWQ `gemm`,
    `gemv`, `gemv_fast`; for FP8 `block`, `tensor`, `channel` or `raw`.
    `bits` may be fractional (EXL2, EXL3, mixed GGUF) and is per weight, scales not counted.
    `group_size` is in weights per scale. `mixed` is true when layers differ in bits or group.
    """

    method: str
    bits: float | None = None
    group_size: int | None = None
    mode: str | None = None
    mixed: bool = False

    @property
    def label(self) -> str:
        """A short name for tables: `4-bit affine g32`, `Q4_K_M`, `gptq 4-bit g128`."""
        if self.method == "gguf":
            return self.mode or "gguf"
        parts = [] if self.method == "mlx" else [self.method]
        if self.bits is not None:
            parts.append(f"{self.bits:g}-bit")
        if self.mode and self.mode != self.method:
            parts.append(self.mode)
        if self.group_size:
            parts.append(f"g{self.group_size}")
        if self.mixed:
            parts.append("mixed")
        return " ".join(parts)


class Architecture(Struct, frozen=True, kw_only=True):
    """The architecture's name in each ecosystem; a format knows only some of them."""

    hf_class: str | None = None
    """`config.json` `architectures[0]`, e.g. `Qwen3MoeForCausalLM`."""
    model_type: str | None = None
    """`config.json` `model_type`, e.g. `qwen3_moe`."""
    text_model_type: str | None = None
    """`config.json` `text_config.model_type`, where there is one."""
    gguf: str | None = None
    """GGUF `general.architecture`, e.g. `qwen3moe`."""

    @property
    def name(self) -> str | None:
        return self.gguf or self.model_type or self.hf_class


class Problem(Struct, frozen=True):
    """Something wrong with the files themselves, whatever engine is asked.

    `code` is one of the stable reason codes (`docs/formats.md`), e.g.
    `incomplete.missing_shard`; `message` is one sentence that names the file and what to do.
    """

    code: str
    message: str


class Evidence(Struct, frozen=True):
    """Why a field has its value: `field` = `value` because of `source`."""

    field: str
    value: str
    source: str


class Pooling(Struct, frozen=True, kw_only=True):
    """How one vector is made of what the network says of a text's tokens, as files of
    sentence-transformers tell it."""

    modes: tuple[str, ...] = ()
    """Mostly one: `lasttoken`, `mean`, `cls` (the first token), or something rarer."""
    normalized: bool = False
    """To the length of 1."""
    others: tuple[str, ...] = ()
    """Modules that do more, such as `Dense`."""
    with_prompt: bool = True
    """Whether a prompt that is put before a text takes part."""


class SafetensorsDetails(Struct, frozen=True, kw_only=True):
    """What the engines' verdicts need to know of safetensors headers and the configs beside."""

    tensor_count: int
    dtype_bytes: Mapping[str, int] = field(default_factory=dict)
    """Bytes stored per safetensors dtype (`F16`, `BF16`, `U32`, …)."""
    census: Mapping[str, int] = field(default_factory=dict)
    """Linear prefixes per class of the census table, e.g. `{"mlx-affine": 14, "plain": 1}`."""
    quantized_widths: frozenset[tuple[int, int]] = frozenset()
    """Distinct `(bits, group_size)` found over the quantised MLX tensors."""
    moe: bool = False
    stacked_experts: bool = False
    """Experts stored as `switch_mlp`/`switch_glu`: MLX's layout, which mistral.rs cannot use."""
    channels_last_kernels: bool = False
    """Convolutions with their channels last: MLX's layout too."""
    bare_layers: bool = False
    """Names begin with `layers.` instead of `model.layers.`, as in files of embedders."""
    quantized_router: bool = False
    quantized_lm_head: bool | None = None
    """None when there is no `lm_head` tensor (tied embeddings)."""
    quantized_embeddings: bool | None = None
    name_prefix: str = ""
    """Prefix before `model.`/`layers.`, e.g. `language_model.` in vision conversions."""
    architectures: tuple[str, ...] = ()
    tied_embeddings: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    """`config.json` as parsed: a claim, of which engines believe different parts."""
    generation_config: Mapping[str, Any] | None = field(default_factory=dict)
    """`generation_config.json`; None when there is one and it is no JSON object."""
    side_config: Mapping[str, Any] = field(default_factory=dict)
    """`quantize_config.json`, `quant_config.json` or `hf_quant_config.json`, if any."""
    files_beside: frozenset[str] = frozenset()
    """Names of the other files in the folder (`tokenizer.json`, `modules.json`, …)."""
    pooling: Pooling | None = None
    """None without a readable `modules.json`."""


class GGUFDetails(Struct, frozen=True, kw_only=True):
    """What the engines' verdicts need to know of a GGUF header."""

    version: int
    tensor_count: int
    tensor_type_bytes: Mapping[str, int] = field(default_factory=dict)
    """Bytes per ggml type name (`Q4_K`, `F32`, …)."""
    tokenizer_model: str | None = None
    tokenizer_pre: str | None = None
    pooling_type: int | None = None
    shard_count: int = 1
    expert_count: int = 0
    embedded_projector: bool = False
    """Vision or audio tensors inside the text file: Ollama's own layout."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The scalar and short-array metadata; token arrays are never kept."""


class ModelInfo(Struct, frozen=True, kw_only=True):
    """One model on disk, as its headers tell it. Never opened again to be described."""

    id: str
    """Unique in its `ScanReport`; derived from the layout (`org/name`, `name:Q4_K_M`, stem)."""
    path: Path
    """The folder, or for GGUF the (first) file."""
    files: tuple[Path, ...]
    """The weight files, in shard order."""
    format: WeightFormat
    role: Role = Role.GENERATIVE
    quantization: Quantization | None = None
    architecture: Architecture = Architecture()
    parameters: int | None = None
    """Logical weights, packed ones unpacked; None where the format does not tell."""
    active_parameters: int | None = None
    """For mixture of experts: weights used per token."""
    weights_bytes: int = 0
    context_length: int | None = None
    """Native context in tokens; None means not stated or unbounded."""
    extended_context_length: int | None = None
    """With the RoPE scaling that the config carries (YaRN and the like)."""
    kv_bytes_per_token: int | None = None
    """At 16 bit per value, over the attention layers."""
    chat_template: bool = False
    tools: bool = False
    thinking: bool = False
    mmproj: Path | None = None
    aliases: tuple[str, ...] = ()
    details: SafetensorsDetails | GGUFDetails | None = None
    problems: tuple[Problem, ...] = ()
    evidence: tuple[Evidence, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder that holds the weights."""
        return self.path if not self.files else self.files[0].parent

    @property
    def fatal_problem(self) -> Problem | None:
        """The first problem that rules out every engine: files incomplete, corrupt or unsafe."""
        fatal = (p for p in self.problems if p.code.startswith(FATAL_PREFIXES))
        return next(fatal, None)

    @property
    def broken(self) -> bool:
        return self.fatal_problem is not None


FATAL_PREFIXES = (
    "incomplete.",
    "corrupt.",
    "settling",
    "unsafe.pickle",
    "missing.config",
    "unsupported.gguf_",
    "unsupported.endianness",
)


class Skipped(Struct, frozen=True):
    """A path that is not listed as a model, and why. `code` as in `Problem`."""

    path: Path
    code: str
    reason: str


class ScanReport(Struct, frozen=True):
    """Everything found under the given folders. One bad folder never spoils a scan."""

    models: tuple[ModelInfo, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    seconds: float = 0.0
