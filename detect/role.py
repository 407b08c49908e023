"""What a safetensors model is for. Pure: `RULES` is the table, the first that applies decides."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from msgspec import Struct

from detect.census import Census
from detect.hf_config import Configs
from detect.types import Role

SENTENCE_TRANSFORMERS = frozenset(
    {"modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "1_Pooling"}
)
COMPANION = re.compile(r"Eagle3?|DFlash|DSpark|Assistant|Speculator|Medusa|MTPModel", re.I)
SPEECH = re.compile(
    r"whisper|wav2vec|hubert|seamless|speecht5|parler|\bbark|vits|moonshine|parakeet|"
    r"csm|kokoro|\bdia\b|dia_|encodec|musicgen",
    re.I,
)
ENCODER_DECODERS = frozenset(
    {"t5", "mt5", "umt5", "bart", "mbart", "pegasus", "marian", "m2m_100", "longt5", "led"}
)
GENERATES = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "ForCausalLMWithMTP")
DIFFUSION = ("model.diffusion_model.", "double_blocks.", "transformer_blocks.")
VISION_CONFIGS = ("vision_config", "audio_config", "vision_tower", "mm_vision_tower")


class Subject(Struct, frozen=True):
    """What the rules look at."""

    configs: Configs
    census: Census
    beside: Collection[str]

    @property
    def hf_class(self) -> str:
        return next(iter(self.configs.architectures), "")

    @property
    def model_type(self) -> str:
        return self.configs.model_type or ""

    @property
    def sees(self) -> bool:
        return self.census.towers or any(self.configs.config.get(k) for k in VISION_CONFIGS)


@dataclass(frozen=True, slots=True)
class Rule:
    role: Role
    source: str
    when: Callable[[Subject], bool]


RULES: tuple[Rule, ...] = (
    Rule(
        Role.EMBEDDING,
        "it comes with files of sentence-transformers",
        lambda s: not SENTENCE_TRANSFORMERS.isdisjoint(s.beside),
    ),
    Rule(
        Role.COMPANION,
        "its architecture drafts for another model",
        lambda s: COMPANION.search(s.hf_class) is not None,
    ),
    Rule(
        Role.SPEECH,
        "its architecture is one for speech",
        lambda s: bool(SPEECH.search(s.hf_class) or SPEECH.search(s.model_type)),
    ),
    Rule(
        Role.SPEECH,
        "config.json has the dimensions of Whisper",
        lambda s: "n_mels" in s.configs.config and "n_audio_ctx" in s.configs.config,
    ),
    Rule(
        Role.DIFFUSION,
        "its tensors are those of a diffusion model",
        lambda s: any(alike.prefix.startswith(DIFFUSION) for alike in s.census.layers),
    ),
    Rule(
        Role.RERANKER,
        "its architecture classifies sequences",
        lambda s: s.hf_class.endswith("ForSequenceClassification"),
    ),
    Rule(
        Role.GENERATIVE,
        "an encoder and a decoder, for text",
        lambda s: s.model_type in ENCODER_DECODERS,
    ),
    Rule(
        Role.VISION,
        "it has a tower or a config for images or sound",
        lambda s: s.sees and s.hf_class.endswith(GENERATES),
    ),
    Rule(
        Role.GENERATIVE,
        "its architecture writes text",
        lambda s: s.hf_class.endswith(GENERATES),
    ),
    Rule(
        Role.EMBEDDING,
        "its architecture has no head that writes text",
        lambda s: s.hf_class.endswith(("Model", "ForMaskedLM")),
    ),
)


def find(subject: Subject) -> tuple[Role, str]:
    """The role and what shows it; a model that names no architecture is taken to write text."""
    for rule in RULES:
        if rule.when(subject):
            return rule.role, rule.source
    if subject.sees:
        return Role.VISION, "it has a tower or a config for images or sound"
    return Role.GENERATIVE, "nothing says otherwise"
