"""The verdicts of the three installed engines on models of every kind: which code, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from backends.base import Backend, Support
from backends.llama_cpp import LlamaCppBackend
from backends.mistral_rs.backend import MistralRsBackend
from backends.mlx.backend import MLXBackend
from detect.scan import inspect_path
from detect.types import ModelInfo
from tests.detect import raw_gguf
from tests.detect import raw_safetensors as raw
from tests.engines import short

Make = Callable[[Path], Path]

YES, LIMITED = "yes", "limited"
FORMAT, QUANT, ARCH = "unsupported.format", "unsupported.quant", "unsupported.arch"
PLATFORM, CONFLICT, LAYOUT = (
    "unsupported.quant_on_platform", "conflict.config_vs_tensors", "conflict.layout"
)  # fmt: skip
TOKENIZER, ROLE = "missing.tokenizer", "unsupported.role"


def dense(quantize: Any = None, config: Mapping[str, Any] = raw.CONFIG, **changes: Any) -> Make:
    def make(folder: Path) -> Path:
        tensors = raw.dense(quantize=quantize, embeddings=quantize, **changes)
        return raw.write_model(folder, tensors, config)

    return make


def tensors(given: Mapping[str, raw.Spec], config: Mapping[str, Any], **files: Any) -> Make:
    return lambda folder: raw.write_model(folder, given, config, **files)


def gguf(
    kind: int = raw_gguf.Q4_K,
    architecture: str = "llama",
    without: str | None = None,
    pre: str = "qwen2",
    **changes: Any,
) -> Make:
    def make(folder: Path) -> Path:
        folder.mkdir()
        facts = {**raw_gguf.llama(architecture, **changes), "tokenizer.ggml.pre": pre}
        metadata = {key: value for key, value in facts.items() if key != without}
        model = raw_gguf.RawGGUF(metadata=metadata, tensors=raw_gguf.weights(kind))
        return model.write(folder / "m.gguf")

    return make


def claim(**quantization: Any) -> dict[str, Any]:
    return {**raw.CONFIG, "quantization_config": quantization}


def mlx(config: Mapping[str, Any] = raw.CONFIG, **quantization: Any) -> dict[str, Any]:
    return {**config, "quantization": quantization, "quantization_config": quantization}


Q8_K, IQ4_XS = 15, 23
FOUR_BIT = raw.mlx(4, 64)
FOUR: dict[str, Any] = {"bits": 4, "group_size": 64}

SEED = tensors(
    raw.mixture(quantize=FOUR_BIT, router=FOUR_BIT, stacked=True), mlx(raw.MOE_CONFIG, **FOUR)
)

TABLE: list[tuple[str, Make, str, str, str]] = [
    # what, how it is made, mlx, llama.cpp, mistral.rs
    ("plain", dense(), YES, FORMAT, YES),
    ("mlx 4 bit", dense(FOUR_BIT, mlx(**FOUR)), YES, FORMAT, YES),
    ("mlx 5 bit", dense(raw.mlx(5, 64), mlx(bits=5, group_size=64)), YES, FORMAT, QUANT),
    ("mlx mxfp4", dense(raw.mlx(4, 32, "mxfp4"), mlx(bits=4, group_size=32, mode="mxfp4")),
     YES, FORMAT, QUANT),
    ("mlx nvfp4", dense(raw.mlx(4, 16, "nvfp4"), mlx(bits=4, group_size=16, mode="nvfp4")),
     YES, FORMAT, QUANT),
    ("mlx, one key", dense(FOUR_BIT, {**raw.CONFIG, "quantization": FOUR}), YES, FORMAT, CONFLICT),
    ("mlx, no key", dense(FOUR_BIT), CONFLICT, FORMAT, CONFLICT),
    ("mlx, plain head",
     tensors(raw.dense(quantize=FOUR_BIT) | raw.plain("lm_head", raw.VOCABULARY, raw.HIDDEN),
             mlx(**FOUR)), YES, FORMAT, QUANT),
    ("mlx mixture: the seed", SEED, YES, FORMAT, LAYOUT),
    ("mlx mixture, 16 bit",
     tensors(raw.mixture(stacked=True), raw.MOE_CONFIG), PLATFORM, FORMAT, LAYOUT),
    ("plain mixture", tensors(raw.mixture(), raw.MOE_CONFIG), PLATFORM, FORMAT, YES),
    ("gptq", dense(raw.gptq(), claim(quant_method="gptq", bits=4)), QUANT, FORMAT, PLATFORM),
    ("awq", dense(raw.awq, claim(quant_method="awq", bits=4)), YES, FORMAT, PLATFORM),
    ("bnb 8 bit", dense(raw.bnb_8bit, claim(quant_method="bitsandbytes")), QUANT, FORMAT, QUANT),
    ("fp8 block", dense(raw.fp8_block, claim(quant_method="fp8")), QUANT, FORMAT, YES),
    ("fp8 without scales", dense(raw.fp8_raw), QUANT, FORMAT, CONFLICT),
    ("hqq", dense(raw.hqq, claim(quant_method="hqq")), QUANT, FORMAT, QUANT),
    ("plain that claims gptq", dense(None, claim(quant_method="gptq", bits=4)),
     CONFLICT, FORMAT, YES),
    ("plain that claims hqq", dense(None, claim(quant_method="hqq")), YES, FORMAT, CONFLICT),
    ("plain that claims no method", dense(None, claim(bits=4, group_size=64)),
     CONFLICT, FORMAT, CONFLICT),
    ("plain that claims ct fp8",
     dense(None, claim(quant_method="compressed-tensors", format="float-quantized")),
     CONFLICT, FORMAT, CONFLICT),
    ("plain beside a claim of ModelOpt",
     tensors(raw.dense(), raw.CONFIG, hf_quant_config={"quantization": {}}),
     CONFLICT, FORMAT, CONFLICT),
    ("strange class",
     dense(None, {**raw.CONFIG, "model_type": "quux", "architectures": ["QuuxForCausalLM"]}),
     ARCH, FORMAT, ARCH),
    ("no class", dense(None, {**raw.CONFIG, "architectures": []}), YES, FORMAT, CONFLICT),
    ("no tokenizer", tensors(raw.dense(), raw.CONFIG, tokenizer=False),
     TOKENIZER, FORMAT, TOKENIZER),
    ("nested names", dense(None, prefix="language_model."), LAYOUT, FORMAT, LAYOUT),
    ("nested as newer vision models are",
     dense(None, {**raw.CONFIG, "model_type": "qwen3_vl", "vision_config": {"depth": 1},
                  "architectures": ["Qwen3VLForConditionalGeneration"]}, prefix="model.language_"),
     LIMITED, FORMAT, LIMITED),
    ("nested deeper than gemma3 knows",
     dense(None, {**raw.CONFIG, "model_type": "gemma3", "vision_config": {"depth": 1},
                  "architectures": ["Gemma3ForConditionalGeneration"]}, prefix="model.language_"),
     LAYOUT, FORMAT, LAYOUT),
    ("two activations",
     dense(None, {**raw.CONFIG, "model_type": "gemma", "architectures": ["GemmaForCausalLM"],
                  "hidden_act": "gelu", "hidden_activation": "gelu"}), YES, FORMAT, CONFLICT),
    ("model.fp16.safetensors",
     tensors(raw.dense(), raw.CONFIG, name="model.fp16.safetensors"), YES, FORMAT, LAYOUT),
    ("olmo, which needs more than mlx-lm",
     dense(None, {**raw.CONFIG, "model_type": "olmo", "architectures": ["OlmoForCausalLM"]}),
     ARCH, FORMAT, ARCH),
    ("mlx, channels last",
     tensors(raw.dense() | {"model.layers.0.conv.conv.weight": ("BF16", (128, 3, 1))},
             {**raw.CONFIG, "model_type": "lfm2", "architectures": ["Lfm2ForCausalLM"]},
             metadata={"format": "mlx"}), YES, FORMAT, LAYOUT),
    ("mlx, only quantization_config", dense(FOUR_BIT, claim(**FOUR)), CONFLICT, FORMAT, YES),
    ("mlx, other widths claimed",
     dense(FOUR_BIT, mlx(bits=8, group_size=64)), YES, FORMAT, CONFLICT),
    ("mlx phi3",
     dense(FOUR_BIT, {**mlx(**FOUR), "model_type": "phi3", "architectures": ["Phi3ForCausalLM"]}),
     YES, FORMAT, QUANT),
    ("awq, silent", dense(raw.awq), CONFLICT, FORMAT, CONFLICT),
    ("bnb fp4",
     dense(raw.bnb_4bit, claim(quant_method="bitsandbytes", bnb_4bit_quant_type="fp4")),
     QUANT, FORMAT, QUANT),
    ("fp8 per channel", dense(raw.fp8_channel, claim(quant_method="fp8")), QUANT, FORMAT, QUANT),
    ("ct fp8, plain head",
     tensors(raw.dense(quantize=raw.fp8_channel),
             claim(quant_method="compressed-tensors", format="float-quantized")),
     QUANT, FORMAT, CONFLICT),
    ("ct fp8, plain head excluded",
     tensors(raw.dense(quantize=raw.fp8_channel),
             claim(quant_method="compressed-tensors", format="float-quantized",
                   ignore=["re:.*lm_head"])), QUANT, FORMAT, YES),
    ("bitnet", dense(raw.bitnet, claim(quant_method="bitnet")), PLATFORM, FORMAT, QUANT),
    ("generation config that is a list",
     tensors(raw.dense(), raw.CONFIG, generation_config=[]), CONFLICT, FORMAT, YES),
    ("generation config that ends answers with a text",
     tensors(raw.dense(), raw.CONFIG, generation_config={"eos_token_id": "</s>"}),
     CONFLICT, FORMAT, YES),
    ("generation config that ends answers with lists",
     tensors(raw.dense(), raw.CONFIG, generation_config={"eos_token_id": [[1]]}),
     CONFLICT, FORMAT, YES),
    ("generation config of wrong types elsewhere",
     tensors(raw.dense(), raw.CONFIG, generation_config={"temperature": "hot", "eos_token_id": 2}),
     YES, FORMAT, YES),
    ("gguf", gguf(), FORMAT, YES, YES),
    ("gguf IQ4_XS", gguf(IQ4_XS), FORMAT, YES, QUANT),
    ("gguf olmo2", gguf(architecture="olmo2"), FORMAT, YES, ARCH),
    ("gguf fooarch", gguf(architecture="fooarch"), FORMAT, ARCH, ARCH),
    ("gguf of Ollama", gguf(architecture="gptoss"), FORMAT, ARCH, ARCH),
    ("gguf qwen2vl", gguf(architecture="qwen2vl"), FORMAT, YES, "missing.mmproj"),
    ("gguf, no tokenizer", gguf(without="tokenizer.ggml.model"), FORMAT, TOKENIZER, TOKENIZER),
    ("gguf, no pre-tokenizer", gguf(without="tokenizer.ggml.pre"), FORMAT, LIMITED, TOKENIZER),
    ("gguf, unknown pre-tokenizer", gguf(pre="quux"), FORMAT, TOKENIZER, TOKENIZER),
    ("gguf Q8_K", gguf(Q8_K), FORMAT, QUANT, YES),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "expected"), [(row[1], row[2:]) for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_each_engine_judges(
    engines: tuple[Backend, ...], tmp_path: Path, make: Make, expected: tuple[str, ...]
) -> None:
    info = inspect_path(make(tmp_path / "m"))
    verdicts = [engine.verdict(info) for engine in engines]
    assert tuple(map(short, verdicts)) == expected, [v.reason for v in verdicts]


@pytest.mark.parametrize("make", [row[1] for row in TABLE], ids=[row[0] for row in TABLE])
def test_every_refusal_is_a_clause_of_people(
    engines: tuple[Backend, ...], tmp_path: Path, make: Make
) -> None:
    """No raw error of an engine, no line breaks, no path of the machine."""
    info = inspect_path(make(tmp_path / "m"))
    for verdict in (engine.verdict(info) for engine in engines):
        said = f"{verdict.reason} {verdict.remedy}"
        assert verdict.support is Support.YES or len(verdict.reason) > 10
        assert "cannot find tensor" not in said
        assert "\n" not in said
        assert str(tmp_path) not in said
        assert not verdict.reason.endswith(".")


def test_what_an_engine_could_run_but_is_not_installed_says_how_to_install(
    tmp_path: Path,
) -> None:
    llama = LlamaCppBackend(binary=tmp_path / "nowhere", cache_dir=tmp_path)
    mistral = MistralRsBackend(binary=tmp_path / "nowhere", cache_dir=tmp_path)
    info = inspect_path(gguf()(tmp_path / "m"))
    for engine in (llama, mistral):
        verdict = engine.verdict(info)
        assert verdict.code == "backend.absent"
        assert "does not exist" in verdict.reason
        assert verdict.remedy
    plain = inspect_path(dense()(tmp_path / "plain"))
    assert llama.verdict(plain).code == FORMAT


def test_the_devices_differ_where_the_formats_do(tmp_path: Path) -> None:
    mixture = inspect_path(tensors(raw.mixture(), raw.MOE_CONFIG)(tmp_path / "moe"))
    assert MLXBackend("metal").verdict(mixture).ok
    assert not MLXBackend("cpu").verdict(mixture).ok


def test_broken_files_are_refused_by_every_engine_with_the_detectors_sentence(
    engines: tuple[Backend, ...], tmp_path: Path
) -> None:
    folder = dense()(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    info: ModelInfo = inspect_path(folder)
    for verdict in (engine.verdict(info) for engine in engines):
        assert verdict.code == "incomplete.lfs_pointer"
        assert "git lfs pull" in verdict.reason


@pytest.mark.parametrize(
    "make",
    [
        dense(None, {**raw.CONFIG, "num_hidden_layers": 10_000_000}),
        dense(FOUR_BIT, {**mlx(**FOUR), "num_hidden_layers": 10_000_000}),
        gguf(block_count=10_000_000),
    ],
    ids=["safetensors", "mlx", "gguf"],
)
def test_a_claim_of_ten_million_layers_is_refused_by_every_engine(
    engines: tuple[Backend, ...], tmp_path: Path, make: Make
) -> None:
    info = inspect_path(make(tmp_path / "m"))
    for verdict in (engine.verdict(info) for engine in engines):
        assert verdict.code == "corrupt.bounds"
        assert "10,000,000 layers" in verdict.reason
