"""How long a model stays loaded after a request, as clients say it: Ollama's `keep_alive`, LM
Studio's `ttl`. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from router.errors import InvalidRequestError

FIELDS = ("keep_alive", "ttl")

_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """`seconds` without use; None keeps it for as long as its room is not needed."""

    seconds: float | None


def keep_alive(body: Mapping[str, Any]) -> KeepAlive | None:
    """What the request says; None if nothing.

    Raises:
        InvalidRequestError: a value that is no time.
    """
    for field in FIELDS:
        if (value := body.get(field)) is not None:
            return _keep_alive(field, value)
    return None


def _keep_alive(field: str, value: Any) -> KeepAlive:
    seconds = _seconds(value)
    if seconds is None or math.isnan(seconds):
        raise InvalidRequestError(
            f'`{field}` must be seconds, or a time such as "5m"; negative keeps the model loaded.',
            param=field,
        )
    return KeepAlive(seconds if 0 <= seconds < math.inf else None)


def _seconds(value: Any) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**63 else math.inf
    if not isinstance(value, str):
        return None
    text = value.strip()
    sign, text = (-1, text[1:]) if text.startswith("-") else (1, text)
    if re.fullmatch(r"\d{1,15}(\.\d{0,9})?", text):
        return sign * float(text)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text or len(text) > 64:
        return None
    return sign * sum(float(number) * _SECONDS[unit] for number, unit in parts)
