"""From the headers of a GGUF model to what it is, with the evidence. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detect import chat_template, gguf_set, quant_label
from detect.gguf_header import GGUFHeader, GGUFTensor
from detect.gguf_set import DIFFUSION, GGUFSet
from detect.types import (
    Architecture,
    Evidence,
    GGUFDetails,
    ModelInfo,
    Problem,
    Quantization,
    Role,
    WeightFormat,
)

BYTES_PER_VALUE = 2
MAX_LAYERS = 10_000
MAX_KEPT_TEXT = 256

EMBEDDING_ARCHITECTURES = frozenset(
    {
        "bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2",
        "jina-bert-v3", "eurobert", "gemma-embedding", "llama-embed", "t5encoder",
    }
)  # fmt: skip
DIFFUSION_TEXT = frozenset({"dream", "llada", "llada-moe", "rnd1"})
SPEECH_ARCHITECTURES = frozenset({"wavtokenizer-dec", "qwen3tts", "pockettts", "whisper"})
OLLAMA_ARCHITECTURES = frozenset(
    {
        "gptoss", "qwen25vl", "mllama", "deepseekocr", "glmocr", "glm4moelite",
        "nemotron_h_omni", "olmo3",
    }
)  # fmt: skip
RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv7", "rwkv6qwen2", "arwkv7"})
POOLING_MEAN_TO_LAST = (1, 2, 3)
POOLING_RANK = 4
TOWER_PREFIXES = ("v.", "a.", "mm.")
EXPERT_MARK = "_exps."


def classify(model: GGUFSet, mmproj: Path | None = None) -> ModelInfo:
    """One model; its `id` is still to be given."""
    found_problems = tuple(gguf_set.problems(model))
    files = tuple(file.path for file in model.files)
    header = model.header
    if header is None:
        return ModelInfo(
            id="",
            path=files[0],
            files=files,
            format=WeightFormat.GGUF,
            role=Role.UNKNOWN,
            problems=found_problems,
        )
    tensors = tuple(model.tensors)
    role, role_source = _role(_Subject(header, tensors, mmproj))
    quantization, quantization_source = _quantization(header, tensors)
    template = chat_template.examine(_templates(header))
    parameters = sum(tensor.elements for tensor in tensors)
    native, extended = _context(header)
    return ModelInfo(
        id="",
        path=files[0],
        files=files,
        format=WeightFormat.GGUF,
        role=role,
        quantization=quantization,
        architecture=Architecture(gguf=_short(header.architecture)),
        parameters=parameters or None,
        active_parameters=_active(header, tensors, parameters),
        weights_bytes=sum(tensor.nbytes for tensor in tensors),
        context_length=native,
        extended_context_length=extended,
        kv_bytes_per_token=_kv_bytes_per_token(header),
        chat_template=template.present,
        tools=template.tools,
        thinking=template.thinking,
        mmproj=mmproj,
        details=_details(model, header, tensors),
        problems=(
            *found_problems,
            *(() if found_problems else _absurd_layers(header, tensors)),
            *_own_problems(header, tensors),
        ),
        evidence=(
            Evidence("format", "gguf", f"magic GGUF, version {header.version}"),
            Evidence("quantization", quantization.label, quantization_source),
            Evidence("architecture", str(_short(header.architecture)), "general.architecture"),
            Evidence("role", role.value, role_source),
            Evidence("parameters", f"{parameters:,}", "counted from the tensors' shapes"),
            *_more_evidence(header, native, template.present, mmproj),
        ),
    )


def _more_evidence(
    header: GGUFHeader, native: int | None, template: bool, mmproj: Path | None
) -> Iterator[Evidence]:
    if native:
        key = f"{_short(header.architecture)}.context_length"
        yield Evidence("context length", str(native), key)
    if template:
        yield Evidence("chat template", "yes", "tokenizer.chat_template; never run here")
    if mmproj:
        yield Evidence("mmproj", mmproj.name, "a projector whose metadata fits this model")


def _details(model: GGUFSet, header: GGUFHeader, tensors: tuple[GGUFTensor, ...]) -> GGUFDetails:
    return GGUFDetails(
        version=header.version,
        tensor_count=len(tensors),
        tensor_type_bytes=quant_label.bytes_by_type(tensors),
        tokenizer_model=_short(header.text("tokenizer.ggml.model")),
        tokenizer_pre=_short(header.text("tokenizer.ggml.pre")),
        pooling_type=header.number_of_architecture("pooling_type"),
        shard_count=model.shard_count,
        expert_count=header.number_of_architecture("expert_count") or 0,
        embedded_projector=_has_tower(tensors),
        metadata={k: v for k, v in header.metadata.items() if _is_short(v)},
    )


def _is_short(value: Any) -> bool:
    """Templates and licences are examined and let go: a registry keeps every model's details."""
    return not isinstance(value, str) or len(value) <= MAX_KEPT_TEXT


def _short(text: str | None) -> str | None:
    return text[:MAX_KEPT_TEXT] if text else None


def _has_tower(tensors: tuple[GGUFTensor, ...]) -> bool:
    return any(tensor.name.startswith(TOWER_PREFIXES) for tensor in tensors)


def _templates(header: GGUFHeader) -> list[str]:
    keys = ["tokenizer.chat_template"]
    named = header.metadata.get("tokenizer.chat_templates")
    if isinstance(named, list):
        keys += [f"tokenizer.chat_template.{name}" for name in named if isinstance(name, str)]
    return [text for key in keys if (text := header.text(key))]


def _quantization(header: GGUFHeader, tensors: tuple[GGUFTensor, ...]) -> tuple[Quantization, str]:
    label, source = quant_label.of_header(header, tensors)
    matrices = [tensor for tensor in tensors if len(tensor.shape) > 1]
    weights = sum(tensor.elements for tensor in matrices)
    bits = sum(tensor.elements * tensor.type.bits for tensor in matrices)
    return Quantization(
        method="gguf",
        bits=round(bits / weights, 2) if weights else None,
        mode=label,
        mixed=len({tensor.type.name for tensor in matrices}) > 1,
    ), source


def _context(header: GGUFHeader) -> tuple[int | None, int | None]:
    """Native, and extended where the file carries a RoPE scaling."""
    if header.architecture in RECURRENT:
        return None, None
    stated = header.number_of_architecture("context_length") or None
    original = header.number_of_architecture("rope.scaling.original_context_length") or None
    if stated and original and original < stated:
        return original, stated
    return stated, None


def _active(header: GGUFHeader, tensors: tuple[GGUFTensor, ...], total: int) -> int | None:
    count = header.number_of_architecture("expert_count")
    used = header.number_of_architecture("expert_used_count")
    if not count or not used or used > count:
        return None
    experts = sum(tensor.elements for tensor in tensors if EXPERT_MARK in tensor.name)
    return total - round(experts * (1 - used / count))


def _kv_bytes_per_token(header: GGUFHeader) -> int | None:
    """Over the attention layers; an upper bound where layers slide over a window."""
    layers = header.number_of_architecture("block_count")
    if header.architecture in RECURRENT:
        return 0
    if not layers or layers > MAX_LAYERS:
        return None
    if latent := header.number_of_architecture("attention.kv_lora_rank"):
        rotary = header.number_of_architecture("rope.dimension_count") or 0
        return (latent + rotary) * layers * BYTES_PER_VALUE
    heads = _kv_heads(header, layers)
    sizes = _head_sizes(header)
    if heads is None or sizes is None:
        return None
    return heads * sum(sizes) * BYTES_PER_VALUE


def _kv_heads(header: GGUFHeader, layers: int) -> int | None:
    """Key and value heads over all layers; hybrids state zero for layers without attention."""
    value = header.of_architecture("attention.head_count_kv")
    if value is None:
        value = header.of_architecture("attention.head_count")
    if isinstance(value, list):
        return sum(v for v in value[:layers] if type(v) is int and v > 0)
    interval = header.number_of_architecture("full_attention_interval")
    if interval:
        layers //= interval
    return value * layers if type(value) is int and value > 0 else None


def _head_sizes(header: GGUFHeader) -> tuple[int, int] | None:
    heads = header.of_architecture("attention.head_count")
    if isinstance(heads, list):
        heads = max((h for h in heads if type(h) is int), default=None)
    width = header.number_of_architecture("embedding_length")
    usual = width // heads if width and type(heads) is int and heads > 0 else None
    key = header.number_of_architecture("attention.key_length") or usual
    value = header.number_of_architecture("attention.value_length") or usual
    return (key, value) if key and value else None


@dataclass(frozen=True, slots=True)
class _Subject:
    header: GGUFHeader
    tensors: tuple[GGUFTensor, ...]
    mmproj: Path | None

    @property
    def architecture(self) -> str:
        return self.header.architecture or ""

    @property
    def pooling(self) -> int | None:
        return self.header.number_of_architecture("pooling_type")

    @property
    def ranks(self) -> bool:
        return self.pooling == POOLING_RANK or any(
            tensor.name in ("cls.output.weight", "cls.weight") for tensor in self.tensors
        )

    @property
    def bidirectional(self) -> bool:
        stated = self.header.of_architecture("attention.causal")
        return stated is False and self.architecture not in DIFFUSION_TEXT


@dataclass(frozen=True, slots=True)
class _Rule:
    role: Role
    source: str
    when: Callable[[_Subject], bool]


_RULES: tuple[_Rule, ...] = (
    _Rule(
        Role.DIFFUSION, "its architecture draws pictures",
        lambda s: s.architecture in DIFFUSION,
    ),
    _Rule(Role.SPEECH, "its architecture speaks", lambda s: s.architecture in SPEECH_ARCHITECTURES),
    _Rule(Role.RERANKER, "it pools to a rank, or has a head that does", lambda s: s.ranks),
    _Rule(
        Role.EMBEDDING, "its architecture is an encoder",
        lambda s: s.architecture in EMBEDDING_ARCHITECTURES,
    ),
    _Rule(
        Role.EMBEDDING, "it states a pooling type",
        lambda s: s.pooling in POOLING_MEAN_TO_LAST,
    ),
    _Rule(Role.EMBEDDING, "its attention is not causal", lambda s: s.bidirectional),
    _Rule(Role.VISION, "a projector lies beside it", lambda s: s.mmproj is not None),
    _Rule(Role.GENERATIVE, "nothing says otherwise", lambda s: True),
)  # fmt: skip


def _role(subject: _Subject) -> tuple[Role, str]:
    rule = next(rule for rule in _RULES if rule.when(subject))
    return rule.role, rule.source


def _absurd_layers(header: GGUFHeader, tensors: tuple[GGUFTensor, ...]) -> Iterator[Problem]:
    """Of a complete model. Each layer has a tensor of its own at least."""
    layers = header.number_of_architecture("block_count") or 0
    if layers > len(tensors):
        yield Problem(
            "corrupt.bounds",
            f"The header tells of {layers:,} layers and lists {len(tensors)} tensors in all. "
            "Download the file again.",
        )


def _own_problems(header: GGUFHeader, tensors: tuple[GGUFTensor, ...]) -> Iterator[Problem]:
    if header.architecture is None:
        yield Problem(
            "corrupt.header",
            "The header has no general.architecture, without which no engine can load it.",
        )
    elif header.architecture in OLLAMA_ARCHITECTURES or _has_tower(tensors):
        yield Problem(
            "conflict.layout",
            "It is in Ollama's own variant of GGUF, which other engines refuse. Use it with "
            "Ollama, or download a standard GGUF of the model.",
        )
