"""What an engine says went wrong, in this daemon's terms. Pure.

Our own engines say it so from the start. llama.cpp (`format_error_response` in tools/server) has
types of its own, a number as `code`, and no `param`; an argument of a wrong type is an error of the
server's, in the words of its JSON library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.errors import TooLongError as BackendTooLongError
from router.api.told import count_in
from router.errors import (
    EngineRefusedError,
    InvalidRequestError,
    RouterError,
    TooLongError,
    as_router_error,
)

Json = dict[str, Any]

MAX_MESSAGE = 2000
"""Characters that are shown of what it says."""

TOO_LONG = "exceed_context_size_error"
TOO_LARGE = "too large to process"
"""With status 500, of a text that does not fit into one batch."""

WRONG_TYPE = "[json.exception."
FIELD = re.compile(r"Field '(\w{1,40})': ")

PHRASES: Mapping[str, str | None] = {
    WRONG_TYPE: None,
    "Failed to parse tools": "tools",
    "Failed to parse messages": "messages",
    "must contain 'content'": "messages",
    "unsupported content[].type": "messages",
    "input is not supported - hint": "messages",
    "Prompt contains invalid tokens": "prompt",
}
"""What it says of a request that is wrong, some of it with status 500, and the field that it is
about."""

CODES: Mapping[int, str] = {
    400: InvalidRequestError.code,
    422: InvalidRequestError.code,
    501: "unsupported_by_engine",
    503: "engine_busy",
}
"""By status; of others it is that the engine refused."""


@dataclass(frozen=True, slots=True)
class Blame:
    """The field of the text that may be too long, and the model that it may be too long for."""

    param: str | None = None
    model: str = "the model"


UNKNOWN = Blame()


def engine_error(answer: Json | None, status: int, blame: Blame = UNKNOWN) -> RouterError:
    """The error in an engine's `answer`: its own words, bounded, if it has some."""
    told = (answer or {}).get("error")
    told = told if isinstance(told, dict) else {"message": told}
    message, code, named = (_text(told.get(name)) for name in ("message", "code", "param"))
    message = message[:MAX_MESSAGE] if message else "The engine failed."
    if told.get("type") == TOO_LONG:
        sizes = count_in(told.get("n_prompt_tokens")), count_in(told.get("n_ctx"))
        return as_router_error(
            BackendTooLongError.prompt(
                sizes[0], blame.model, sizes[1], param=blame.param or "input"
            )
        )
    if status >= 500 and TOO_LARGE in message and blame.param:
        return TooLongError(f"`{blame.param}`: {message.rstrip('.')}.", param=blame.param)
    if (about := _about(message, status)) is not None:
        status, named = 400, named or about[0]
    return EngineRefusedError(message, status=status, code=code or CODES.get(status), param=named)


def _about(message: str, status: int) -> tuple[str | None] | None:
    """The field of a request that is wrong, as far as llama.cpp names it; None: nothing is known
    to be wrong with the request."""
    if status not in (400, 500):
        return None
    if field := FIELD.match(message):
        return (field[1],)
    return next(((param,) for phrase, param in PHRASES.items() if phrase in message), None)


def in_our_terms(body: bytes, status: int, blame: Blame) -> tuple[RouterError, bytes] | None:
    """The error in the `body` of an answer, and that body anew. None: it says it in our terms
    already, or is no JSON object with an error, and stays as it is."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict) or "error" not in answer or _ours(answer["error"]):
        return None
    error = engine_error(answer, status, blame)
    return error, json.dumps(error.body(), ensure_ascii=False).encode("utf-8", "replace")


def _ours(error: Any) -> bool:
    if not isinstance(error, dict) or "param" not in error:
        return False
    return all(isinstance(error.get(name), str) for name in ("message", "type", "code"))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
