"""The three installed engines, and how tests speak of their verdicts."""

from __future__ import annotations

from pathlib import Path

from backends.base import Backend, Support, Verdict
from backends.llama_cpp import LlamaCppBackend
from backends.mistral_rs.backend import MistralRsBackend
from backends.mlx.backend import MLXBackend


def installed(cache: Path) -> tuple[Backend, ...]:
    return (
        MLXBackend("cpu"),
        LlamaCppBackend(binary=None, cache_dir=cache),
        MistralRsBackend(binary=None, cache_dir=cache),
    )


def short(verdict: Verdict) -> str:
    """The code of a no, else `yes` or `limited`."""
    return verdict.code if verdict.support is Support.NO else verdict.support.value
