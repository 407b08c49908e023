"""Small random models that make vectors, in the layout of sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.truth import networks
from tests.truth.checkpoint import Stored, write, write_json

KINDS = "sentence_transformers.models."
PROMPTS = {"query": "Instruct: find\nQuery: ", "document": ""}
END = 2


def embedder(
    folder: Path,
    architecture: str = "qwen3",
    *,
    mode: str = "lasttoken",
    normalized: bool = True,
    bare: bool = True,
    bits: int | None = None,
    modules: tuple[str, ...] = (),
    dtype: str = "float32",
    **changes: Any,
) -> Path:
    """As Qwen3-Embedding is published: the body alone, whose tokenizer ends every text with a
    token; or whole as mlx-lm writes it, where `bits` are given."""
    settings = networks.config(architecture, **{"tie_word_embeddings": True, **changes})
    if bits is None:
        tensors = networks.tensors(settings, dtype)
        write(folder, _bare(tensors) if bare else tensors, settings)
    else:
        networks.mlx(folder, settings, bits=bits, dtype=dtype)
    end_texts(folder)
    sentence_transformers(folder, mode=mode, normalized=normalized, modules=modules)
    return folder


def _bare(tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    return {name.removeprefix("model."): one for name, one in tensors.items()}


def end_texts(folder: Path) -> None:
    """As the post-processor of Qwen3-Embedding's tokenizer does."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    name = next(t["content"] for t in tokenizer["added_tokens"] if t["id"] == END)
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": name, "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [END], "tokens": [name]}},
    }
    path.write_text(json.dumps(tokenizer))


def sentence_transformers(
    folder: Path, *, mode: str, normalized: bool, modules: tuple[str, ...] = ()
) -> None:
    kinds = ["Transformer", "Pooling", *modules, *(["Normalize"] if normalized else [])]
    paths = ["", *(f"{n}_{kind}" for n, kind in enumerate(kinds[1:], 1))]
    write_json(
        folder / "modules.json",
        [
            {"idx": n, "name": str(n), "path": path, "type": KINDS + kind}
            for n, (kind, path) in enumerate(zip(kinds, paths, strict=True))
        ],
    )
    (folder / "1_Pooling").mkdir(exist_ok=True)
    config: dict[str, Any] = {"word_embedding_dimension": networks.HIDDEN, "include_prompt": True}
    for name in ("cls_token", "mean_tokens", "max_tokens", "lasttoken"):
        config[f"pooling_mode_{name}"] = name.startswith(mode)
    write_json(folder / "1_Pooling" / "config.json", config)
    write_json(folder / "config_sentence_transformers.json", {"prompts": PROMPTS})
