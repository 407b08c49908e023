"""Networks without their head: what is taken of them is what the head would have been given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backends.mlx import library


def load_body(folder: Path) -> Any:
    """As mlx-lm loads the whole model, lazily. Files of embedders name their tensors as the body
    alone does, and have no head, or one that nobody asks.

    Raises:
        ValueError, OSError: mlx-lm's own reason why it cannot be loaded.
    """
    network, _ = library.load("mlx_lm.utils").load_model(
        folder,
        lazy=True,
        # So that no head is built where one can do without.
        model_config={"tie_word_embeddings": True},
        get_model_classes=_classes,
        # Custom code in a model's folder is never run.
        trust_remote_code=False,
    )
    return network


def _classes(config: dict[str, Any]) -> tuple[Any, Any]:
    model, arguments = library.load("mlx_lm.utils")._get_classes(config)

    def sanitize(self: Any, weights: dict[str, Any]) -> dict[str, Any]:
        named = {_in_model(name): weight for name, weight in weights.items()}
        sane = model.sanitize(self, named) if hasattr(model, "sanitize") else named
        return {n: w for n, w in sane.items() if "lm_head" in self or not n.startswith("lm_head.")}

    return type("Body", (model,), {"sanitize": sanitize}), arguments


def _in_model(name: str) -> str:
    return name if name.startswith(("model.", "lm_head.")) else f"model.{name}"
