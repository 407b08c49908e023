"""A few cells of the matrix, each a different way to be right: `make test-truth` runs them all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.truth.models import MODELS
from tests.truth.run import Bench

CELLS = [
    ("plain f16", "mlx"),
    ("mlx 4 bit g32", "mistral.rs"),
    ("mlx, only quantization", "mistral.rs"),
    ("mlx, only quantization_config", "mlx"),
    ("mlx nvfp4", "mlx"),
    ("mlx qwen3_moe, named qwen3 (the seed)", "mistral.rs"),
    ("mlx qwen3_moe, named qwen3 (the seed)", "mlx"),
    ("plain, claims gptq", "mlx"),
    ("awq gemm", "mlx"),
    ("mlx bf16 lfm2", "mistral.rs"),
    ("gguf F16", "llama.cpp"),
    ("gguf, no pre-tokenizer", "mistral.rs"),
    ("gguf olmo2", "llama.cpp"),
    ("gguf for embeddings", "llama.cpp"),
    ("gguf for embeddings, no pooling", "llama.cpp"),
    ("gguf for reranking", "llama.cpp"),
    ("embedder qwen3", "mlx"),
    ("embedder qwen3 with Dense", "mlx"),
    ("embedder qwen3", "mistral.rs"),
]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench() as running:
        yield running


@pytest.mark.parametrize(("name", "engine"), CELLS, ids=[f"{m} on {e}" for m, e in CELLS])
def test_the_engine_does_what_its_verdict_said(
    bench: Bench, tmp_path: Path, name: str, engine: str
) -> None:
    model = MODELS[name]
    cell = bench.cell(model.make(tmp_path / "m"), engine, recites=model.recites)
    assert cell.agrees, f"{cell.verdict.reason or cell.verdict.support}; but: {cell.words}"


def test_a_cell_whose_engine_cannot_even_start_has_failed(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    cell = bench.cell(tmp_path / "m", "mlx", recites=False)
    assert (cell.works, cell.verdict.ok) == (False, False)
    assert "nothing to load" in cell.words
