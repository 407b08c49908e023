"""One request as a client sees it, who may leave at any moment, and how it ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import httpx

from tests.fake_engine.engine import SENTENCE as FAKE_SENTENCE
from tests.tiny.dialogues import QUESTION, SENTENCE

PATH = "/v1/chat/completions"
ANSWER_SECONDS = 120.0
"""Longest silence; who waits longer was forgotten."""

SENTENCES = (SENTENCE, FAKE_SENTENCE)


class End(StrEnum):
    ANSWERED = "answered"
    REFUSED = "refused with a named error"
    CUT = "cut, and told so"
    LEFT = "left"
    UNEXPLAINED = "UNEXPLAINED"


@dataclass(frozen=True, slots=True)
class Visit:
    """`first_at` is when the first byte came; None if none did."""

    model: str
    end: End
    detail: str
    asked_at: float
    first_at: float | None
    ended_at: float

    def __str__(self) -> str:
        return f"{self.model}: {self.detail}"


def question(model: str, *, stream: bool, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": QUESTION}]
    return {"model": model, "messages": messages, "temperature": 0, "stream": stream, **fields}


def client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=ANSWER_SECONDS, trust_env=False, verify=False)


async def visit(
    api: httpx.AsyncClient, body: dict[str, Any], leaves_after_seconds: float | None
) -> Visit:
    asking = _Asking(api, body)
    asked_at = time.monotonic()
    try:
        async with asyncio.timeout(leaves_after_seconds):
            end, detail = await asking.ended()
    except TimeoutError:
        end, detail = End.LEFT, "left"
    return Visit(body["model"], end, detail, asked_at, asking.first_at, time.monotonic())


class _Asking:
    def __init__(self, api: httpx.AsyncClient, body: dict[str, Any]) -> None:
        self.first_at: float | None = None
        self._api = api
        self._body = body
        self._content = bytearray()

    async def ended(self) -> tuple[End, str]:
        status = 0
        try:
            async with self._api.stream("POST", PATH, json=self._body) as response:
                status = response.status_code
                async for chunk in response.aiter_raw():
                    self.first_at = self.first_at or time.monotonic()
                    self._content += chunk
        except httpx.TransportError as error:
            return self._broken(status, type(error).__name__)
        return self._whole(status)

    def _broken(self, status: int, what: str) -> tuple[End, str]:
        """Nobody may be cut off without a word; an answer in one piece has no room for it."""
        if status != 200:
            return End.UNEXPLAINED, f"{what} before an answer"
        if not self._body["stream"]:
            return End.CUT, what
        codes = [event["error"]["code"] for event in self._events() if "error" in event]
        return (End.CUT, str(codes[0])) if codes else (End.UNEXPLAINED, f"{what} in a stream")

    def _whole(self, status: int) -> tuple[End, str]:
        if status != 200:
            return _refusal(status, bytes(self._content))
        said = self._streamed() if self._body["stream"] else _message(bytes(self._content))
        right = said.strip() in SENTENCES
        return (End.ANSWERED, "") if right else (End.UNEXPLAINED, f"said {said[:60]!r}")

    def _streamed(self) -> str:
        """What was said, if it was said to its end."""
        if not self._content.endswith(b"data: [DONE]\n\n"):
            return "half a stream"
        deltas = [c["delta"] for event in self._events() for c in event.get("choices", [])]
        return "".join(delta.get("content") or "" for delta in deltas)

    def _events(self) -> Iterator[dict[str, Any]]:
        for line in bytes(self._content).split(b"\n"):
            if line.startswith(b"data: {"):
                try:
                    yield json.loads(line.removeprefix(b"data: "))
                except ValueError:
                    continue  # it was cut here


def _message(content: bytes) -> str:
    try:
        return str(json.loads(content)["choices"][0]["message"]["content"])
    except (ValueError, LookupError):
        return content[:60].decode("utf-8", "replace")


def _refusal(status: int, content: bytes) -> tuple[End, str]:
    """By a code; but no request here is a wrong one, and the router's own failure is no reason."""
    try:
        error = json.loads(content)["error"]
        code, message = str(error["code"]), error["message"]
    except (ValueError, LookupError, TypeError):
        return End.UNEXPLAINED, f"status {status} without a name"
    if status in (400, 500):
        return End.UNEXPLAINED, f"{status} {code}: {message}"
    return End.REFUSED, f"{status} {code}"
