"""An error as the clients of a path expect it: one table. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from router.api.anthropic_error import anthropic_error
from router.api.ollama_error import ollama_error
from router.errors import RouterError

SHAPES: Mapping[str, Callable[[RouterError], dict[str, Any]]] = {
    "/v1/messages": anthropic_error,
    "/api": ollama_error,
}
"""By how a path begins; all others have OpenAI's."""


def error_body(error: RouterError, path: str) -> dict[str, Any]:
    for beginning, shape in SHAPES.items():
        if path == beginning or path.startswith(f"{beginning}/"):
            return shape(error)
    return error.body()
