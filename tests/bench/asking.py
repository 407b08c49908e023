"""A chat request with next to nothing around it, over TCP or a Unix socket."""

from __future__ import annotations

import http.client
import json
import socket
import time
import urllib.parse
from pathlib import Path
from typing import Any

from tests.tiny.dialogues import QUESTION

SECONDS = 120.0


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(str(self._path))


def connection(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=SECONDS)


def first_token(to: http.client.HTTPConnection, model: str) -> None:
    """Return when the first token is here."""
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": model, "messages": messages, "stream": True, "max_tokens": 1, "temperature": 0}
    answer = _asked(to, "POST", "/v1/chat/completions", body)
    for line in answer:
        if line.startswith(b"data: {") and _says_something(json.loads(line[6:])):
            return
    raise RuntimeError(f"{model} said nothing")


def get_seconds(to: http.client.HTTPConnection, path: str) -> float:
    began = time.perf_counter()
    _asked(to, "GET", path).read()
    return time.perf_counter() - began


def post(to: http.client.HTTPConnection, path: str) -> None:
    _asked(to, "POST", path, {}).read()


def status(to: http.client.HTTPConnection) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(_asked(to, "GET", "/router/status").read())
    return value


def _asked(
    to: http.client.HTTPConnection, method: str, path: str, body: Any = None
) -> http.client.HTTPResponse:
    content = None if body is None else json.dumps(body)
    to.request(method, path, content, {"content-type": "application/json"})
    answer = to.getresponse()
    if answer.status != 200:
        raise RuntimeError(f"{method} {path}: {answer.status} {answer.read()[:300]!r}")
    return answer


def _says_something(event: dict[str, Any]) -> bool:
    return any(choice["delta"].get("content") for choice in event["choices"])
