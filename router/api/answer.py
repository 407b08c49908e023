"""How answers leave: JSON, and errors translated once for every endpoint."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from backends.asgi import send_whole
from backends.base import Message, Receive, Scope, Send
from backends.errors import EngineError
from router.api.error_shape import error_body
from router.errors import (
    ClientGoneError,
    EngineFailedError,
    RouterError,
    ShuttingDownError,
    as_router_error,
)
from router.tally import Tally

log = logging.getLogger("router")


async def send_json(
    send: Send, status: int, value: Any, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    await send_whole(send, status, b"application/json", json_bytes(value), headers)


def json_bytes(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "replace")


async def send_text(send: Send, text: str) -> None:
    kind = b"text/plain; charset=utf-8"
    await send_whole(send, 200, kind, text.encode("utf-8", "replace"))


async def send_error(send: Send, error: RouterError, path: str) -> None:
    """In the shape that clients of `path` expect."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if error.retry_after_seconds is not None:
        headers = ((b"retry-after", str(error.retry_after_seconds).encode()),)
    await send_json(send, error.status, error_body(error, path), headers)


class ErrorBoundary:
    """The outermost app: every exception becomes a sentence, none a traceback.

    After the first byte there is no JSON error: the response is left incomplete, which makes
    the server cut the connection, so that the client can tell.
    """

    def __init__(self, app: Any, tally: Tally) -> None:
        self.app = app
        self.tally = tally

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self.tally.answered(scope["path"], message["status"])
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except ClientGoneError:
            return
        except asyncio.CancelledError:
            # The daemon is made to end: whoever waits for an answer is told, not cut off.
            if not started:
                ending = ShuttingDownError("The router ends.", retry_after_seconds=5)
                await send_error(watched, ending, scope["path"])
            raise
        except Exception as error:
            _log(scope, error, started)
            translated = as_router_error(error)
            self.tally.errors[translated.code] += 1
            if not started:
                await send_error(watched, translated, scope["path"])


def _log(scope: Scope, error: Exception, started: bool) -> None:
    request = f"{scope.get('method', '')} {scope.get('path', '')}"
    if isinstance(error, EngineError | EngineFailedError):
        log.warning("%s: %s%s", request, error.message, " (stream cut)" if started else "")
    elif not isinstance(error, RouterError):
        log.error("%s: failed", request, exc_info=error)
