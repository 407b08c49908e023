"""What several engines ask of a model's headers. Pure.

`gguf_details` and `safetensors_details` are for rules behind the one that has refused the other
format.
"""

from __future__ import annotations

from backends.base import InstanceOptions
from detect.types import GGUFDetails, ModelInfo, SafetensorsDetails

TOKENIZERS = frozenset(
    ("tokenizer.json", "tokenizer.model", "tekken.json", "tiktoken.model", "vocab.json",
     "vocab.txt")
)  # fmt: skip
"""Files that a tokenizer is read from."""

OLLAMA_ARCHITECTURES = frozenset(
    ("gptoss", "qwen25vl", "mllama", "deepseekocr", "glmocr", "glm4moelite",
     "nemotron_h_omni", "olmo3")
)  # fmt: skip
"""`general.architecture` of files in Ollama's own layout, which only Ollama reads."""


def context_length(info: ModelInfo, options: InstanceOptions) -> int | None:
    """Tokens of prompt and answer together; None where neither model nor user has a bound."""
    bounds = [n for n in (info.context_length, options.context_length) if n]
    return min(bounds, default=None)


def gguf_details(info: ModelInfo) -> GGUFDetails:
    assert isinstance(info.details, GGUFDetails)
    return info.details


def safetensors_details(info: ModelInfo) -> SafetensorsDetails:
    assert isinstance(info.details, SafetensorsDetails)
    return info.details


def in_ollamas_layout(info: ModelInfo) -> bool:
    return gguf_details(info).embedded_projector or info.architecture.gguf in OLLAMA_ARCHITECTURES


def has_no_gguf_tokenizer(info: ModelInfo) -> bool:
    return gguf_details(info).tokenizer_model is None


def pre_tokenizer(info: ModelInfo) -> str | None:
    """The rule by which text is split, where the vocabulary is one of pairs of bytes."""
    details = gguf_details(info)
    return details.tokenizer_pre if details.tokenizer_model == "gpt2" else None


def has_no_pre_tokenizer(info: ModelInfo) -> bool:
    """It splits text into pairs of bytes, and does not say by which rule."""
    details = gguf_details(info)
    return details.tokenizer_model == "gpt2" and details.tokenizer_pre is None
