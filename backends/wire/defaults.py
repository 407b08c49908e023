"""What a request that says nothing about sampling gets, whichever engine we serve ourselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.wire.json_file import json_object


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """`generation_config.json`, else llama.cpp's values: the same silence means the same on
    every engine."""

    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.05
    repetition_penalty: float = 1.0


def defaults_of_folder(folder: Path) -> SamplingDefaults:
    return sampling_defaults(json_object(folder / "generation_config.json"))


def sampling_defaults(generation_config: Mapping[str, Any]) -> SamplingDefaults:
    # It holds for greedy answers, too, and so stands apart from what is taken together.
    penalty = _number(generation_config, "repetition_penalty", 1.0, low=0.01, high=10)
    if generation_config.get("do_sample") is False:
        return SamplingDefaults(temperature=0.0, repetition_penalty=penalty)
    temperature = _number(generation_config, "temperature", -1.0, high=100)
    if temperature < 0:
        return SamplingDefaults(repetition_penalty=penalty)
    return SamplingDefaults(
        repetition_penalty=penalty,
        temperature=temperature,
        top_p=_number(generation_config, "top_p", 1.0, high=1) or 1.0,
        top_k=int(_number(generation_config, "top_k", 0, high=2**31 - 1)),
        min_p=_number(generation_config, "min_p", 0.0, high=1),
    )


def _number(
    config: Mapping[str, Any], name: str, instead: float, *, low: float = 0, high: float
) -> float:
    """What the file says, as far as it makes sense: nobody has checked it."""
    match config.get(name):
        case bool():
            return instead
        case int() | float() as value if low <= value <= high:
            return float(value)
    return instead
