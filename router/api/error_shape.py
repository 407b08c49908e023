"""An error as the clients of a path expect it: one table. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from router.api.anthropic_error import anthropic_error
from router.api.ollama_error import ollama_error
from router.errors import RouterError

Shape = Callable[[RouterError], dict[str, Any]]


def openai_error(error: RouterError) -> dict[str, Any]:
    return error.body()


SHAPES: Mapping[str, tuple[str, Shape]] = {
    "/v1/messages": ("AnthropicError", anthropic_error),
    "/api": ("OllamaError", ollama_error),
}
"""By how a path begins, with their names in the API's description; all others have OpenAI's."""

OPENAI: tuple[str, Shape] = ("Error", openai_error)


def error_body(error: RouterError, path: str) -> dict[str, Any]:
    _, shape = _of(path)
    return shape(error)


def error_name(path: str) -> str:
    """What the shape of the errors of a path is called."""
    name, _ = _of(path)
    return name


def _of(path: str) -> tuple[str, Shape]:
    for beginning, found in SHAPES.items():
        if path == beginning or path.startswith(f"{beginning}/"):
            return found
    return OPENAI
