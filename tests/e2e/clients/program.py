"""A program that asks the daemon with somebody's client, in a process of its own: clients take
seconds to import, and leave sockets and threads behind.

What to ask comes as JSON from stdin, and what each step got with each model goes as JSON to stdout,
for the test to judge. `npm/ask.mjs` does the same.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

REST_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """`embedder` makes vectors on the engine of `model`; it is `model` itself where none does."""

    url: str
    model: str
    embedder: str
    texts: list[str]
    question: str
    tool: dict[str, Any]
    tool_question: str
    tool_result: str
    too_long: str
    endless_question: str
    timeout_seconds: float


def run(steps: Mapping[str, Callable[[Asked], Any]]) -> None:
    """Do all steps with all models; a step that raises has told its error."""
    given = json.load(sys.stdin)
    models: dict[str, str] = given.pop("models")
    with contextlib.redirect_stdout(sys.stderr):
        told = {
            model: {
                name: _told(step, Asked(model=model, embedder=embedder, **given))
                for name, step in steps.items()
            }
            for model, embedder in models.items()
        }
    json.dump(told, sys.stdout)


def _told(step: Callable[[Asked], Any], asked: Asked) -> Any:
    try:
        return step(asked)
    except Exception as error:
        return {"error": described(error)}


def refusal(ask: Callable[[], Any]) -> dict[str, Any]:
    """The error that asking raises."""
    try:
        answer = ask()
    except Exception as error:
        return described(error)
    raise AssertionError(f"It was answered: {answer!r}")


def described(error: Exception) -> dict[str, Any]:
    """`kinds` are its class and those above it."""
    return {
        "kinds": [kind.__name__ for kind in type(error).__mro__],
        "status": getattr(error, "status_code", None),
        "message": str(error),
    }


def leases_left(asked: Asked) -> int:
    """How many requests of the model go on although their client has left them."""
    deadline = time.monotonic() + REST_SECONDS
    while (left := _leases(asked)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _leases(asked: Asked) -> int:
    status = httpx.get(f"{asked.url}/router/status", trust_env=False, timeout=60).json()
    return sum(one["leases"] for one in status["instances"] if one["model"] == asked.model)
