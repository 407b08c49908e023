"""Which engine gets a model that several can run. Pure.

The order per class of model and platform is data (`docs/adr/0004-engine-preference.md`); a
choice by the user goes before it, where that engine's verdict allows.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from backends.base import Support, Verdict
from detect.types import ModelInfo, SafetensorsDetails, WeightFormat


class ModelClass(StrEnum):
    MLX = "mlx"
    GGUF = "gguf"
    PLAIN = "safetensors"
    PLAIN_MOE = "safetensors-moe"
    QUANTIZED = "safetensors-quantized"


MLX, LLAMA_CPP, MISTRAL_RS = "mlx", "llama.cpp", "mistral.rs"

ORDER: Mapping[ModelClass, tuple[str, ...]] = {
    ModelClass.MLX: (MLX, MISTRAL_RS),
    ModelClass.GGUF: (LLAMA_CPP, MISTRAL_RS),
    ModelClass.PLAIN: (MLX, MISTRAL_RS),
    ModelClass.PLAIN_MOE: (MISTRAL_RS, MLX),
    ModelClass.QUANTIZED: (MLX, MISTRAL_RS),
}

ORDER_ON_MACOS: Mapping[ModelClass, tuple[str, ...]] = {
    **ORDER,
    ModelClass.PLAIN_MOE: (MLX, MISTRAL_RS),
}


@dataclass(frozen=True, slots=True)
class Wishes:
    """Engines that the user wants: for models, by id or alias, and first for classes of models."""

    models: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)

    def for_model(self, info: ModelInfo) -> str | None:
        names = (info.id, *info.aliases)
        return next((self.models[name] for name in names if name in self.models), None)

    def for_class(self, info: ModelInfo) -> str | None:
        return self.classes.get(model_class(info))


NO_WISHES = Wishes()


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine chosen, or None, and why: one clause. `refused` is the one that the user wanted
    and that cannot run it."""

    engine: str | None
    why: str
    refused: str | None = None


def model_class(info: ModelInfo) -> ModelClass:
    if info.format is WeightFormat.MLX:
        return ModelClass.MLX
    if info.format is WeightFormat.GGUF:
        return ModelClass.GGUF
    if info.quantization is not None:
        return ModelClass.QUANTIZED
    moe = isinstance(info.details, SafetensorsDetails) and info.details.moe
    return ModelClass.PLAIN_MOE if moe else ModelClass.PLAIN


def choose(
    info: ModelInfo,
    verdicts: Sequence[Verdict],
    wishes: Wishes = NO_WISHES,
    platform: str = sys.platform,
) -> Choice:
    """The wanted engine if it can, else the first yes in order, else the first with limits."""
    wanted = wishes.for_model(info)
    able = {verdict.engine: verdict for verdict in verdicts if verdict.ok}
    if not able:
        return Choice(None, "no engine can run it")
    if wanted in able:
        return Choice(wanted, "chosen by you")
    refused = f"you chose {wanted}, which cannot run it; " if wanted else ""
    order = _order(info, wishes, platform)
    engine = min(able, key=lambda name: _rank(order, able[name]))
    whose = "your first choice" if engine == wishes.for_class(info) else "first choice"
    why = f"{refused}{whose} for {model_class(info)} models here"
    return Choice(engine, why, wanted)


def _order(info: ModelInfo, wishes: Wishes, platform: str) -> tuple[str, ...]:
    table = ORDER_ON_MACOS if platform == "darwin" else ORDER
    usual = table[model_class(info)]
    first = wishes.for_class(info)
    return usual if first is None else (first, *usual)


def _rank(order: Sequence[str], verdict: Verdict) -> tuple[bool, int]:
    limited = verdict.support is Support.LIMITED
    position = order.index(verdict.engine) if verdict.engine in order else len(order)
    return limited, position
