"""Who may use the daemon: Host, Origin and key are checked before anything else is read."""

from __future__ import annotations

import hmac
from typing import Any
from urllib.parse import urlsplit

from backends.base import Receive, Scope, Send
from router.api.answer import send_error
from router.configuration import Configuration
from router.errors import ForbiddenError, RouterError, UnauthorizedError
from router.settings import Settings, is_loopback

OPEN_PATHS = frozenset({"/health", "/livez", "/readyz"})


class Gate:
    """Refuses what a web page could do behind its visitor's back, and callers without the key.

    On a loopback address the Host header must name this machine, or DNS rebinding would let any
    page read answers. A foreign Origin is refused, too: a text/plain POST needs no preflight.
    """

    def __init__(self, app: Any, configuration: Configuration) -> None:
        self.app = app
        self.configuration = configuration

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            error = _refusal(scope, self.configuration.settings)
            if error is not None:
                await send_error(send, error, scope["path"])
                return
        await self.app(scope, receive, send)


def _refusal(scope: Scope, settings: Settings) -> RouterError | None:
    headers: dict[bytes, bytes] = dict(scope["headers"])
    host = headers.get(b"host", b"").decode("latin-1")
    if is_loopback(settings.host) and not _is_ours(host, settings):
        return ForbiddenError(
            f"This daemon answers to localhost only, not to the Host {host[:100]!r}; "
            "--allow-host adds a name."
        )
    origin = headers.get(b"origin", b"").decode("latin-1")
    if origin and not _may_call(origin, settings):
        return ForbiddenError(
            f"Pages of {origin[:100]!r} may not call this daemon; --allow-origin adds one."
        )
    if scope["path"] not in OPEN_PATHS and not _knows_key(headers, settings):
        return UnauthorizedError(
            "A valid key is needed: send it as `Authorization: Bearer …` or `x-api-key`."
        )
    return None


def _is_ours(host: str, settings: Settings) -> bool:
    name = _host_name(f"//{host}")
    return is_loopback(name) or name.casefold() in _hosts(settings)


def _may_call(origin: str, settings: Settings) -> bool:
    if origin in settings.allow_origin:
        return True
    name = _host_name(origin)
    return is_loopback(settings.host) and (is_loopback(name) or name in _hosts(settings))


def _hosts(settings: Settings) -> list[str]:
    return [name.casefold() for name in settings.allow_host]


def _knows_key(headers: dict[bytes, bytes], settings: Settings) -> bool:
    if not settings.api_key:
        return True
    key = settings.api_key.encode()
    scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
    sent = bearer.strip() if scheme.lower() == b"bearer" else b""
    as_bearer = hmac.compare_digest(sent, key)
    as_header = hmac.compare_digest(headers.get(b"x-api-key", b""), key)
    return as_bearer or as_header


def _host_name(url: str) -> str:
    """Lower-cased and without its port; empty when `url` is malformed."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
