"""What may be set for one model on the MLX engine."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """`context_length` bounds prompt and answer together, in tokens; None leaves both unbounded.

    States of prompts are kept in `prefix_bytes` of memory and, where `disk_folder` is given, in
    `disk_bytes` there.
    """

    context_length: int | None = None
    max_rows: int = 4
    prefix_bytes: int = 2**30
    disk_folder: Path | None = None
    disk_bytes: int = 0
    adapter: Path | None = None
    """A folder with `adapters.safetensors`, as mlx-lm's LoRA training writes it."""
    draft: Path | None = None
    """A folder with a smaller model of the same vocabulary, whose guesses this one checks."""
    kv_bits: int | None = None
    """4 or 8: keys and values take less memory, and requests are answered one after another."""

    def to_json(self) -> str:
        """For a worker's command line."""
        return json.dumps(
            {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        given = json.loads(text)
        paths = {name: Path(given[name]) for name in PATHS if given.get(name)}
        return cls(**{**given, **paths})


PATHS = ("disk_folder", "adapter", "draft")
