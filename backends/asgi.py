"""The few things that every ASGI app here does: read a body, notice who leaves, answer whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from backends.base import Receive, Send

T = TypeVar("T")

LARGE_BYTES = 2**20
"""Some 70 ms of parsing."""


async def whole_body(receive: Receive) -> bytes:
    """The body, already bounded by the router."""
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def parsed(body: bytes, parse: Callable[[bytes], T]) -> T:
    """`parse(body)`, in a thread where it would hold up the event loop."""
    return await asyncio.to_thread(parse, body) if len(body) > LARGE_BYTES else parse(body)


async def disconnected(receive: Receive) -> None:
    """Return when the client has left. Call it only after the body was read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_disconnected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do `work`, or cancel it as soon as the client has left; then nobody is left to tell."""
    task = asyncio.create_task(work)
    leaving = asyncio.create_task(disconnected(receive))
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def send_whole(
    send: Send,
    status: int,
    content_type: bytes,
    body: bytes,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    own = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body})
