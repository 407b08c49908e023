"""Sentences about a model for people: what it is, why not, what to do. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from backends.base import Verdict
from detect.types import GGUFDetails, ModelInfo, WeightFormat

FORMAT_NAMES = {
    WeightFormat.MLX: "an MLX model",
    WeightFormat.GGUF: "a GGUF model",
    WeightFormat.SAFETENSORS: "a safetensors model",
}


def size(count: int) -> str:
    """Bytes for people, in binary units: `793.1 KiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def parameters(count: int | None) -> str:
    """Parameters for people: `30.5B`, `0.4M`."""
    if count is None:
        return "unknown"
    for scale, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= scale * 0.1:
            return f"{count / scale:.1f}{unit}"
    return str(count)


def quantization(info: ModelInfo) -> str:
    return info.quantization.label if info.quantization else "none"


def subject(info: ModelInfo) -> str:
    """What it is, in one clause: ``an MLX model, 4-bit affine g32, architecture llama, 0.4M …``."""
    parts = [FORMAT_NAMES.get(info.format, f"a model in {info.format} format")]
    if info.quantization:
        parts.append(info.quantization.label)
    if info.architecture.name:
        parts.append(f"architecture {info.architecture.name}")
    if info.parameters:
        parts.append(f"{parameters(info.parameters)} parameters")
    if isinstance(info.details, GGUFDetails) and info.details.shard_count > 1:
        parts.append(f"{info.details.shard_count} shards")
    return ", ".join(parts)


def sentence(info: ModelInfo, verdicts: Sequence[Verdict]) -> str:
    """What it is; why not, per engine, one clause each; what to do."""
    problem = info.fatal_problem
    if problem is not None:
        return f"{info.id} is {subject(info)}. It cannot be used: {problem.message}"
    able = [v.engine for v in verdicts if v.ok]
    runs = f"Runs on: {', '.join(able)}." if able else "No engine here can run it."
    refusals = [f"{v.engine}: {_closed(v.reason)}" for v in verdicts if not v.ok]
    remedies = dict.fromkeys(_closed(v.remedy) for v in verdicts if not v.ok and v.remedy)
    advice = () if able else tuple(remedies)
    return " ".join([f"{info.id} is {subject(info)}.", runs, *refusals, *advice])


def _closed(clause: str) -> str:
    return clause if clause.endswith((".", "!", "?", "`")) else clause + "."
