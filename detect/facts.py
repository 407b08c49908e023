"""Safetensors facts: as read from one folder, and as understood. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from detect.census import Census
from detect.hf_config import Configs
from detect.mlx_widths import Widths
from detect.tensor import Column
from detect.types import Problem, Quantization, WeightFormat


class SafetensorsFacts(Struct, frozen=True, kw_only=True):
    """All that is read of one model. What it is follows from this and nothing else."""

    path: Path
    files: tuple[Path, ...]
    columns: tuple[Column, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    configs: Configs = field(default_factory=Configs)
    beside: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()

    @property
    def tensor_count(self) -> int:
        return sum(len(column.names) for column in self.columns)

    @property
    def suffixes(self) -> frozenset[str]:
        return frozenset(file.suffix for file in self.files)


class Understood(Struct, frozen=True, kw_only=True):
    """The facts with the census taken: what the contradictions are looked for in."""

    configs: Configs
    census: Census
    widths: Widths
    format: WeightFormat
    format_source: str
    quantization: Quantization | None

    @property
    def moe(self) -> bool:
        return self.census.experts
