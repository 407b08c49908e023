"""The two ends of an ASGI app for tests that need no server: what it reads, what it has sent."""

from __future__ import annotations

import asyncio
from typing import Any

from backends.base import Message


class Exchange:
    """One request, read in `parts`; the client leaves when `leave` is called."""

    def __init__(self, *parts: bytes) -> None:
        last = len(parts) - 1
        self._messages = [
            {"type": "http.request", "body": part, "more_body": index < last}
            for index, part in enumerate(parts or (b"",))
        ]
        self._left = asyncio.Event()
        self.sent: list[Message] = []

    def leave(self) -> None:
        self._left.set()

    async def receive(self) -> Message:
        if self._messages:
            return self._messages.pop(0)
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def complete(self) -> bool:
        last = self.sent[-1] if self.sent else {"type": ""}
        return last["type"] == "http.response.body" and not last.get("more_body", False)


def scope(method: str, path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
    }
