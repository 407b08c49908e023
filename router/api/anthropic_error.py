"""Errors in Anthropic's shape: https://docs.claude.com/en/api/errors. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.errors import RouterError

TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""By status; of the others, `invalid_request_error` is the client's and `api_error` ours."""


def anthropic_error(error: RouterError) -> dict[str, Any]:
    usual = "invalid_request_error" if error.status < 500 else "api_error"
    kind = TYPES.get(error.status, usual)
    return {"type": "error", "error": {"type": kind, "message": error.message}}
