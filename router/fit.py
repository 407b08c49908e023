"""Whether a model fits into the memory that all may take; by how much not, and what would. Pure."""

from __future__ import annotations

from backends.base import Footprint
from router import explain
from router.errors import ModelTooBigError

LEAST_CONTEXT = 256
"""Tokens; with less nobody would want it."""


def too_big(
    model: str, needed_bytes: int, budget_bytes: int, less_context: str = "lower --context-length"
) -> ModelTooBigError:
    """`needed_bytes` as measured or estimated; `less_context` is what to do about the context, or
    empty where that would not help."""
    excess = explain.size(needed_bytes - budget_bytes)
    ways = [f"raise --memory to {explain.size(needed_bytes)}", *filter(None, [less_context])]
    return ModelTooBigError(
        f"{model} needs about {explain.size(needed_bytes)} and all models together may take "
        f"{explain.size(budget_bytes)}: {excess} too much. What would fit: "
        f"{', '.join(ways)}, or take a smaller quantisation.",
        param="model",
    )


def less_context(budget_bytes: int, footprint: Footprint, context: int | None) -> str:
    """What to do about a context of so many tokens; empty where no context would fit."""
    tokens = fitting_context(budget_bytes, footprint, context)
    return "" if tokens is None else f"lower --context-length from {context} to {tokens}"


def fitting_context(budget_bytes: int, footprint: Footprint, context: int | None) -> int | None:
    """The most tokens with which it fits, in steps of 256; None when none would do."""
    if not context or not footprint.kv_bytes:
        return None
    left_bytes = budget_bytes - footprint.weights_bytes - footprint.overhead_bytes
    tokens = left_bytes * context // footprint.kv_bytes // LEAST_CONTEXT * LEAST_CONTEXT
    return min(tokens, context) if tokens >= LEAST_CONTEXT else None
