"""An ASGI app that forwards one request's bytes to an engine, and the answer's bytes back."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from backends.asgi import unless_disconnected, whole_body
from backends.base import ENDLESS, Message, Patience, Receive, Scope, Send
from backends.errors import (
    EngineDiedError,
    EngineError,
    EngineGoneError,
    EngineProtocolError,
    EngineSilentError,
)

CONNECT_SECONDS = 5.0
EVENT_BOUNDARY = b"\n\n"
WRITE_SECONDS = 60.0

HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te",
     b"trailer", b"transfer-encoding", b"upgrade", b"proxy-connection")
)  # fmt: skip
KEPT_FROM_ENGINE = frozenset(
    (b"host", b"content-length", b"authorization", b"x-api-key", b"cookie", b"expect",
     b"origin", b"referer", b"forwarded")
)  # fmt: skip
KEPT_FROM_CLIENT = frozenset((b"server", b"date", b"set-cookie"))

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class UnixEndpoint:
    socket: Path

    def transport(self) -> httpx.AsyncHTTPTransport:
        return httpx.AsyncHTTPTransport(uds=str(self.socket), **_PLAIN)

    @property
    def url(self) -> str:
        return "http://localhost"


@dataclass(frozen=True, slots=True)
class TcpEndpoint:
    port: int

    def transport(self) -> httpx.AsyncHTTPTransport:
        return httpx.AsyncHTTPTransport(**_PLAIN)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


Endpoint = UnixEndpoint | TcpEndpoint

# A connection per request: no request is ever lost to one that the engine closed meanwhile. And
# no certificates: reading them all would hold the event loop up, for connections without TLS.
_PLAIN: Any = {
    "limits": httpx.Limits(max_keepalive_connections=0, max_connections=None),
    "trust_env": False,
    "verify": False,
}


class Proxy:
    """Forwards requests to the engine behind `endpoint`.

    Nothing is decoded, joined or split. A client that leaves closes the engine's connection at
    once. `patience` bounds the silence before and within an answer.

    Raises, before the first byte of an answer only:
        EngineGoneError: there is nobody to connect to.
        EngineDiedError: the connection ended without an answer.
        EngineSilentError: there was none in time.
        EngineProtocolError: the answer is not HTTP, or a redirect.
    After the first byte a stream ends with an error event and the raised error, so that the
    server cuts the connection.
    """

    def __init__(
        self, endpoint: Endpoint, *, engine: str, model: str, patience: Patience = ENDLESS
    ) -> None:
        self._endpoint = endpoint
        self._transport = endpoint.transport()
        self._engine = engine
        self._model = model
        self._patience = patience

    async def aclose(self) -> None:
        await self._transport.aclose()
        if isinstance(self._endpoint, UnixEndpoint):
            self._endpoint.socket.unlink(missing_ok=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = self._request(scope, await whole_body(receive))
        await unless_disconnected(receive, self._exchange(request, send))

    async def fetch(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Our own small question to the engine: status and body."""
        headers = {"host": "localhost", "content-type": "application/json"}
        url = self._endpoint.url + path
        request = httpx.Request(method, url, headers=headers, content=body, extensions=_timeouts())
        response = await self._transport.handle_async_request(request)
        try:
            return response.status_code, await response.aread()
        finally:
            await response.aclose()

    def _request(self, scope: Scope, body: bytes) -> httpx.Request:
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        headers = _without(scope["headers"], KEPT_FROM_ENGINE, (b"x-forwarded-", b"x-router-"))
        headers += [(b"host", b"localhost"), (b"content-length", str(len(body)).encode())]
        return httpx.Request(
            scope["method"],
            self._endpoint.url,
            headers=headers,
            content=body,
            extensions={**_timeouts(), "target": target},
        )

    async def _exchange(self, request: httpx.Request, send: Send) -> None:
        response = await self._answer(request)
        try:
            if 300 <= response.status_code < 400:
                raise self._broken("answered with a redirect")
            await send(_start(response))
            await self._forward(response, send)
        finally:
            await response.aclose()

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        try:
            async with asyncio.timeout(_bound(self._patience.first_seconds)):
                return await self._transport.handle_async_request(request)
        except httpx.ConnectError as error:
            raise EngineGoneError(
                f"{self._engine} had ended before it was asked for {self._model}; ask again.",
                engine=self._engine,
                model=self._model,
            ) from error
        except TimeoutError as error:
            raise self._silent(self._patience.first_seconds, "--first-token-seconds") from error
        except (httpx.NetworkError, httpx.TimeoutException) as error:
            raise self._died() from error
        except httpx.RemoteProtocolError as error:
            if "disconnected" in str(error):
                raise self._died() from error
            raise self._broken("answered with something that is not HTTP") from error

    async def _forward(self, response: httpx.Response, send: Send) -> None:
        end = EVENT_BOUNDARY
        try:
            async for chunk in self._chunks(response):
                end = (end + chunk)[-len(EVENT_BOUNDARY) :]
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except (httpx.TransportError, TimeoutError) as error:
            failure = self._failure(error)
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                # An event that was cut in the middle must not swallow this one.
                event = (b"" if end == EVENT_BOUNDARY else EVENT_BOUNDARY) + error_event(failure)
                await send({"type": "http.response.body", "body": event, "more_body": True})
            raise failure from error
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """The body as it arrives, undecoded. Raises TimeoutError after too long a silence."""
        assert isinstance(response.stream, httpx.AsyncByteStream)
        chunks = aiter(response.stream)
        while True:
            try:
                async with asyncio.timeout(_bound(self._patience.next_seconds)):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            if chunk:
                yield chunk

    def _failure(self, error: Exception) -> EngineDiedError:
        if isinstance(error, TimeoutError):
            return self._silent(self._patience.next_seconds, "--next-token-seconds")
        return self._died()

    def _silent(self, seconds: float, option: str) -> EngineSilentError:
        return EngineSilentError(
            f"{self._engine} said nothing for {seconds:g} s while it answered with {self._model}; "
            f"{option} allows more.",
            engine=self._engine,
            model=self._model,
        )

    def _died(self) -> EngineDiedError:
        return EngineDiedError(
            f"{self._engine} ended while it answered with {self._model}; ask again to restart it.",
            engine=self._engine,
            model=self._model,
        )

    def _broken(self, what: str) -> EngineProtocolError:
        return EngineProtocolError(
            f"{self._engine} {what}.", engine=self._engine, model=self._model
        )


def error_event(error: EngineError) -> bytes:
    """A server-sent event with OpenAI's error object: the last a cut stream shows."""
    body = {"message": error.message, "type": "server_error", "param": None, "code": error.code}
    return b"data: " + json.dumps({"error": body}).encode() + b"\n\n"


def _bound(seconds: float) -> float | None:
    return None if math.isinf(seconds) else seconds


def _timeouts() -> dict[str, dict[str, float | None]]:
    return {
        "timeout": {"connect": CONNECT_SECONDS, "write": WRITE_SECONDS, "read": None, "pool": None}
    }


def _start(response: httpx.Response) -> Message:
    headers = _without(response.headers.raw, KEPT_FROM_CLIENT, (b"access-control-",))
    return {"type": "http.response.start", "status": response.status_code, "headers": headers}


def _without(
    headers: Iterable[tuple[bytes, bytes]], names: frozenset[bytes], prefixes: tuple[bytes, ...]
) -> Headers:
    """Lower-cased headers without those named, hop-by-hop ones, and any that Connection names."""
    lowered = [(name.lower(), value) for name, value in headers]
    nominated = {
        token.strip().lower()
        for name, value in lowered
        if name == b"connection"
        for token in value.split(b",")
    }
    dropped = names | HOP_BY_HOP | nominated
    return [(n, v) for n, v in lowered if n not in dropped and not n.startswith(prefixes)]
