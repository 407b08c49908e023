"""How answers leave: JSON, and errors translated once for every endpoint."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from backends.base import Message, Receive, Scope, Send
from backends.errors import EngineError
from router.errors import ClientGoneError, RouterError, ShuttingDownError, as_router_error

log = logging.getLogger("router")


async def send_json(
    send: Send, status: int, value: Any, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    text = json.dumps(value, ensure_ascii=False) + "\n"
    await _send_whole(send, status, b"application/json", text, headers)


async def send_text(send: Send, text: str) -> None:
    await _send_whole(send, 200, b"text/plain; charset=utf-8", text, ())


async def _send_whole(
    send: Send, status: int, kind: bytes, text: str, headers: tuple[tuple[bytes, bytes], ...]
) -> None:
    body = text.encode("utf-8", "replace")
    own = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: RouterError) -> None:
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if error.retry_after_seconds is not None:
        headers = ((b"retry-after", str(error.retry_after_seconds).encode()),)
    await send_json(send, error.status, error.body(), headers)


class ErrorBoundary:
    """The outermost app: every exception becomes a sentence in OpenAI's shape, none a traceback.

    After the first byte there is no JSON error: the response is left incomplete, which makes
    the server cut the connection, so that the client can tell.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except ClientGoneError:
            return
        except asyncio.CancelledError:
            # The daemon is made to end: whoever waits for an answer is told, not cut off.
            if not started:
                await send_error(send, ShuttingDownError("The router ends.", retry_after_seconds=5))
            raise
        except Exception as error:
            _log(scope, error, started)
            if not started:
                await send_error(send, as_router_error(error))


def _log(scope: Scope, error: Exception, started: bool) -> None:
    request = f"{scope.get('method', '')} {scope.get('path', '')}"
    if isinstance(error, EngineError):
        log.warning("%s: %s%s", request, error.message, " (stream cut)" if started else "")
    elif not isinstance(error, RouterError):
        log.error("%s: failed", request, exc_info=error)
