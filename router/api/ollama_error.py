"""Errors in Ollama's shape: https://github.com/ollama/ollama/blob/main/docs/api.md. Pure."""

from __future__ import annotations

from typing import Any

from router.errors import RouterError


def ollama_error(error: RouterError) -> dict[str, Any]:
    return {"error": error.message}
