"""What an engine's answer says, whatever it is made of: what is missing or odd is empty. Pure."""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]


def object_in(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def json_object(text: str | bytes) -> Json | None:
    """None where it is something else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def list_in(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def text_in(value: Any) -> str:
    return value if isinstance(value, str) else ""


def count_in(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0


def first_choice(answer: Json) -> Json:
    choices = list_in(answer.get("choices"))
    return object_in(choices[0]) if choices else {}


def arguments_in(written: Any) -> Json | None:
    """The arguments of a call; None where they were cut off or are no object."""
    try:
        value = json.loads(written or "{}") if isinstance(written, str | None) else written
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
