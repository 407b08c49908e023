from __future__ import annotations

from typing import Any

import pytest

from detect import census
from detect.hf_config import Configs
from detect.role import Subject, find
from detect.tensor import Tensor, columns_of
from detect.types import Role


def role(config: dict[str, Any], *beside: str, tensors: dict[str, Tensor] | None = None) -> Role:
    taken = census.take(columns_of(tensors or {}))
    return find(Subject(Configs(config=config), taken, beside))[0]


def named(architecture: str, **more: Any) -> dict[str, Any]:
    return {"architectures": [architecture], **more}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (named("Qwen3ForCausalLM"), Role.GENERATIVE),
        (named("GPT2LMHeadModel"), Role.GENERATIVE),
        (named("T5ForConditionalGeneration", model_type="t5"), Role.GENERATIVE),
        (named("Gemma3ForConditionalGeneration", vision_config={"depth": 1}), Role.VISION),
        (named("Mistral3ForConditionalGeneration", model_type="mistral3"), Role.GENERATIVE),
        (named("WhisperForConditionalGeneration", model_type="whisper"), Role.SPEECH),
        ({"n_mels": 80, "n_audio_ctx": 1500}, Role.SPEECH),
        (named("BertModel"), Role.EMBEDDING),
        (named("XLMRobertaModel"), Role.EMBEDDING),
        (named("BertForMaskedLM"), Role.EMBEDDING),
        (named("Gemma3TextModel"), Role.EMBEDDING),
        (named("BertForSequenceClassification"), Role.RERANKER),
        (named("LlamaForCausalLMEagle3"), Role.COMPANION),
        ({}, Role.GENERATIVE),
    ],
)  # fmt: skip
def test_the_architecture_tells_the_role(config: dict[str, Any], expected: Role) -> None:
    assert role(config) is expected


@pytest.mark.parametrize("file", ["modules.json", "config_sentence_transformers.json", "1_Pooling"])
def test_files_of_sentence_transformers_make_an_embedder_of_any_decoder(file: str) -> None:
    assert role(named("Qwen3ForCausalLM"), file) is Role.EMBEDDING
