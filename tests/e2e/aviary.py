"""The demonstration models with room for long songs, and models that make vectors beside them: what
clients that do everything are tried on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.tiny.variants import build
from tests.truth import ggufs
from tests.truth.embedders import embedder

CONTEXT_LENGTH = 32_768
"""A song that fills it takes many seconds on every engine, so that it ends early only if it is
ended."""

EMBEDDERS = {"parrot-mlx-4bit": "vectors-mlx", "parrot-gguf": "vectors-gguf"}
"""By a talking model: the one on the same engine that makes vectors. mistral.rs has none."""


def prepare(folder: Path) -> None:
    for name, variant in (("parrot-mlx-4bit", "mlx-4bit"), ("parrot-safetensors", "safetensors")):
        config = build(variant, folder / name) / "config.json"
        settings = json.loads(config.read_text())
        config.write_text(json.dumps({**settings, "max_position_embeddings": CONTEXT_LENGTH}))
    ggufs.parrot(folder / "parrot-gguf.gguf", changes=_with_a_long_context)
    embedder(folder / "vectors-mlx")
    ggufs.network(folder / "vectors-gguf.gguf", architecture="qwen3", changes=ggufs.pools)


def _with_a_long_context(writer: Any) -> None:
    writer.add_context_length(CONTEXT_LENGTH)
