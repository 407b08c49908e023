"""From what was read of a safetensors model to what it is, with the evidence. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from detect import census as tensor_census
from detect import chat_template, context, contradictions, parameters, quantization, role
from detect.census import Census
from detect.facts import SafetensorsFacts, Understood
from detect.hf_config import Configs, text
from detect.layer_words import EMBEDDINGS, LM_HEADS
from detect.mlx_widths import find as find_widths
from detect.tensor import Column
from detect.types import (
    Architecture,
    Evidence,
    ModelInfo,
    Problem,
    Quantization,
    Role,
    SafetensorsDetails,
    WeightFormat,
)

TOKENIZER_FILES = frozenset(
    {
        "tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "vocab.txt",
        "spiece.model", "sentencepiece.bpe.model", "tokenizer.model.v3", "qwen.tiktoken",
        "tiktoken.model", "vocab.bpe", "rwkv_vocab_v20230424.txt",
    }
)  # fmt: skip
READS_TEXT = frozenset({Role.GENERATIVE, Role.VISION, Role.EMBEDDING, Role.RERANKER})
THINKING_TOKENS = ("<think>", "<longcat_think>", "<|channel>")


def classify(facts: SafetensorsFacts) -> ModelInfo:
    """One model; its `id` is still to be given."""
    model = _understand(facts)
    role_found, role_source = role.find(role.Subject(facts.configs, model.census, facts.beside))
    bits = model.quantization.bits if model.quantization else None
    count = parameters.count(model.census, facts.configs, model.widths, bits)
    window = context.length(facts.configs)
    template = chat_template.examine(facts.configs.templates)
    dtype_bytes = _dtype_bytes(facts.columns)
    return ModelInfo(
        id="",
        path=facts.path,
        files=facts.files,
        format=model.format,
        role=role_found,
        quantization=model.quantization,
        architecture=_architecture(facts.configs),
        parameters=count.total if facts.columns else None,
        active_parameters=count.active,
        weights_bytes=sum(dtype_bytes.values()),
        context_length=window.native,
        extended_context_length=window.extended,
        kv_bytes_per_token=context.kv_bytes_per_token(facts.configs),
        chat_template=template.present,
        tools=template.tools,
        thinking=template.thinking or _thinks(facts.configs),
        details=_details(facts, model, dtype_bytes),
        problems=(*facts.problems, *_own_problems(facts, role_found), *_conflicts(facts, model)),
        evidence=tuple(_evidence(facts, model, (role_found, role_source), count, window)),
    )


def _understand(facts: SafetensorsFacts) -> Understood:
    taken = tensor_census.take(facts.columns)
    configs = facts.configs
    claim = configs.quantization or configs.quantization_config
    widths = find_widths(taken, claim, configs.number("hidden_size", "n_embd", "d_model"))
    weight_format, source = quantization.weight_format(taken, facts.metadata, facts.suffixes)
    quantized = quantization.find(taken, configs, widths)
    if weight_format is WeightFormat.UQFF and quantized is None:
        # Its layers are blobs of one dimension, which no rule about matrices can match.
        quantized = Quantization(method="uqff")
    return Understood(
        configs=configs,
        census=taken,
        widths=widths,
        format=weight_format,
        format_source=source,
        quantization=quantized,
    )


def _architecture(configs: Configs) -> Architecture:
    return Architecture(
        hf_class=next((text(name) for name in configs.architectures), None),
        model_type=configs.model_type,
        text_model_type=None
        if configs.text is configs.config
        else text(configs.text.get("model_type")),
    )


def _details(
    facts: SafetensorsFacts, model: Understood, dtype_bytes: Mapping[str, int]
) -> SafetensorsDetails:
    taken = model.census
    lm_head = taken.quantized(LM_HEADS)
    tied = facts.configs.value("tie_word_embeddings")
    return SafetensorsDetails(
        tensor_count=facts.tensor_count,
        dtype_bytes=dtype_bytes,
        census=taken.counts,
        quantized_widths=model.widths.distinct,
        moe=model.moe,
        stacked_experts=taken.stacked_experts,
        channels_last_kernels=taken.channels_last_kernels,
        bare_layers=taken.bare_layers,
        quantized_router=taken.quantized_router,
        quantized_lm_head=lm_head,
        quantized_embeddings=taken.quantized(EMBEDDINGS),
        name_prefix=taken.name_prefix,
        architectures=facts.configs.architectures,
        tied_embeddings=tied if isinstance(tied, bool) else lm_head is None,
        config=facts.configs.config,
        generation_config=facts.configs.generation,
        side_config=facts.configs.side,
        files_beside=facts.beside,
        pooling=facts.configs.pooling,
    )


def _dtype_bytes(columns: Iterable[Column]) -> dict[str, int]:
    """Largest first."""
    sizes: defaultdict[str, int] = defaultdict(int)
    for column in columns:
        sizes[column.tensor.dtype] += column.nbytes
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _thinks(configs: Configs) -> bool:
    """By the tokens that the tokenizer's config adds to the vocabulary."""
    added = configs.tokenizer.get("added_tokens_decoder")
    if not isinstance(added, dict):
        return False
    contents = [t.get("content") for t in added.values() if isinstance(t, dict)]
    return any(token in contents for token in THINKING_TOKENS)


def _conflicts(facts: SafetensorsFacts, model: Understood) -> tuple[Problem, ...]:
    """Of an incomplete model the tensors are not known, so nothing can contradict them."""
    broken = any(p.code.startswith(("incomplete.", "corrupt.")) for p in facts.problems)
    return () if broken or not facts.columns else contradictions.find(model)


def _own_problems(facts: SafetensorsFacts, found: Role) -> Iterator[Problem]:
    config = facts.configs.config
    if not facts.configs.has_config:
        yield Problem("missing.config", _no_config(facts))
    if found in READS_TEXT and not _has_tokenizer(facts.beside):
        yield Problem(
            "missing.tokenizer",
            f"{_subject(facts)} has no tokenizer beside it. Download tokenizer.json from where the "
            "model came from.",
        )
    if config.get("model_file"):
        yield Problem(
            "unsafe.remote_code",
            "config.json names a Python file of its own to run (model_file); it is never run.",
        )
    if config.get("auto_map"):
        yield Problem(
            "unsafe.remote_code",
            "config.json offers Python code of its own (auto_map); it is never run, and the "
            "engine's own implementation is used where there is one.",
        )


def _no_config(facts: SafetensorsFacts) -> str:
    if "params.json" in facts.beside:
        return (
            f"{_subject(facts)} is in Mistral's own layout (params.json, no config.json). "
            "Download the Hugging Face version of the model."
        )
    return (
        f"{_subject(facts)} has no config.json beside it. Download it from where the weights came "
        "from."
    )


def _subject(facts: SafetensorsFacts) -> str:
    """The (first) file: the folder's bare name would say nothing of one that lies loose."""
    return facts.files[0].name if facts.files else str(facts.path)


def _has_tokenizer(beside: frozenset[str]) -> bool:
    return bool(TOKENIZER_FILES & beside) or any(n.endswith((".tiktoken", ".spm")) for n in beside)


def _evidence(
    facts: SafetensorsFacts,
    model: Understood,
    found_role: tuple[Role, str],
    count: parameters.Count,
    window: context.Context,
) -> Iterator[Evidence]:
    if facts.columns:
        yield Evidence("format", model.format.value, model.format_source)
        yield _quantization_evidence(model)
    if name := _architecture(facts.configs).name:
        key = "model_type" if facts.configs.model_type else "architectures"
        yield Evidence("architecture", name, f"config.json {key}")
    yield Evidence("role", found_role[0].value, found_role[1])
    if model.moe:
        yield Evidence("mixture of experts", "yes", _experts_source(model.census))
    if count.total and facts.columns:
        yield Evidence("parameters", f"{count.total:,}", count.source)
    if window.source:
        yield Evidence("context length", str(window.native or "unbounded"), window.source)
    if facts.configs.templates:
        yield Evidence("chat template", "yes", "the template beside the weights; never run here")


def _quantization_evidence(model: Understood) -> Evidence:
    if model.quantization is None:
        known = model.census.main == tensor_census.PLAIN
        value, source = ("none", "floats") if known else ("unknown", _histogram(model.census))
        return Evidence("quantization", value, source)
    widths = ", ".join(f"{b}-bit g{g}" for b, g in sorted(model.widths.distinct))
    source = f"packed and scale shapes: {widths}" if widths else "names, dtypes and shapes"
    return Evidence("quantization", model.quantization.label, f"tensors ({source})")


def _histogram(taken: Census) -> str:
    suffixes: defaultdict[str, int] = defaultdict(int)
    for parts in taken.parts.values():
        for suffix in parts:
            suffixes[suffix] += 1
    top = sorted(suffixes.items(), key=lambda item: -item[1])[:5]
    return "tensors named " + ", ".join(f"{suffix[:40]} ({n})" for suffix, n in top)


def _experts_source(taken: Census) -> str:
    return "tensors of stacked experts" if taken.stacked_experts else "tensors of experts"
