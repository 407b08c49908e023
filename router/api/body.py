"""A request's body: read once, bounded in size and time, looked at, and passed on as it came."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backends.base import Message, Receive, Scope
from backends.wire.request import check_encodable
from router.errors import BodyTooLargeError, ClientGoneError, InvalidRequestError
from router.keep_alive import KeepAlive, keep_alive

BODY_SECONDS = 60.0

Asks = Callable[[dict[str, Any]], frozenset[str]]
"""Of a body: what it asks for that not every engine has, by the names of `backends.wire.features`.
Raises `BadRequestError` for what none would take."""


async def read_body(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """The whole body.

    Raises:
        BodyTooLargeError: by its Content-Length before a byte is read, or once it grows past it.
        InvalidRequestError: not declared as JSON, or not there within `BODY_SECONDS`.
        ClientGoneError: the client left before it was complete.
    """
    _check_type(scope)
    _check_declared(scope, limit_bytes)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read(receive, limit_bytes)
    except TimeoutError:
        raise InvalidRequestError(
            f"The request body did not arrive within {BODY_SECONDS:g} s."
        ) from None


async def _read(receive: Receive, limit_bytes: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        body += message.get("body", b"")
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
        if not message.get("more_body", False):
            return bytes(body)


def _check_type(scope: Scope) -> None:
    """Engines disagree about bodies that are declared as something else; silence is fine."""
    for name, value in scope["headers"]:
        kind = value.partition(b";")[0].strip().lower()
        if name == b"content-type" and kind != b"application/json":
            raise InvalidRequestError(
                f"The Content-Type must be application/json, not {kind[:100].decode('latin-1')!r}."
            )


def _check_declared(scope: Scope, limit_bytes: int) -> None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit_bytes:
            raise _too_large(limit_bytes)


def _too_large(limit_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"The request body is larger than {limit_bytes} bytes; --max-body raises the limit."
    )


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once more, and then what the client does next."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again


@dataclass(frozen=True, slots=True)
class Asked:
    """What the router itself reads of a request: `fields` are the names of all that it has,
    `features` what it asks for that not every engine has, `picture` is where its first picture
    stands."""

    model: str
    stream: bool
    keep_alive: KeepAlive | None
    fields: frozenset[str]
    picture: str | None = None
    features: frozenset[str] = frozenset()

    @property
    def leaving(self) -> bool:
        """Whether its model is to be unloaded when it has been answered."""
        return self.keep_alive == KeepAlive(0.0)


def asked(body: bytes, required: str, asks: Asks) -> Asked:
    """Of a JSON body that also has the field `required`, and of which `asks` tells the features.

    Raises:
        InvalidRequestError: not a JSON object, or a field that is missing or of a wrong type.
        BadRequestError: `asks` found something wrong.
    """
    value = json_object(body)
    model = model_of(value)
    if not isinstance(value.get("stream"), bool | None):
        raise InvalidRequestError("`stream` must be true or false.", param="stream")
    _check_required(value, required)
    picture = _picture(value["messages"]) if required == "messages" else None
    stream, stays = bool(value.get("stream")), keep_alive(value)
    return Asked(model, stream, stays, frozenset(value), picture, asks(value))


def json_object(body: bytes) -> dict[str, Any]:
    """
    Raises:
        InvalidRequestError: it is none, is nested too deeply, or has a key twice.
    """
    value = _load(body)
    if not isinstance(value, dict):
        raise InvalidRequestError("The request body must be a JSON object.")
    return value


def model_of(value: dict[str, Any]) -> str:
    """The model that a request asks for.

    Raises:
        InvalidRequestError: it does not say.
    """
    model = value.get("model")
    if not isinstance(model, str) or not model:
        found = "is missing" if "model" not in value else "must be a non-empty string"
        raise InvalidRequestError(
            f"`model` {found}: name one of those that GET /v1/models lists.", param="model"
        )
    return model


def _check_required(value: dict[str, Any], required: str) -> None:
    if required not in value:
        raise InvalidRequestError(f"`{required}` is missing.", param=required)
    content = value[required]
    if required == "messages":
        if not isinstance(content, list) or not all(isinstance(m, dict) for m in content):
            raise InvalidRequestError("`messages` must be a list of objects.", param="messages")
        if not content:
            raise InvalidRequestError("`messages` must not be empty.", param="messages")
        _check_media(content)
    elif not isinstance(content, str | list):
        raise InvalidRequestError(f"`{required}` must be a string or a list.", param=required)


def _check_media(messages: list[dict[str, Any]]) -> None:
    """An engine would fetch what a URL names, from the network or this machine's services."""
    for i, message in enumerate(messages):
        parts = message.get("content")
        for j, part in enumerate(parts if isinstance(parts, list) else ()):
            for key, value in part.items() if isinstance(part, dict) else ():
                url = value.get("url") if isinstance(value, dict) else value
                if key.endswith("_url") and not str(url).startswith("data:"):
                    raise InvalidRequestError(
                        "Pictures and sounds are taken as `data:` URLs only; nothing is fetched.",
                        param=f"messages[{i}].content[{j}].{key}",
                    )


def _picture(messages: list[dict[str, Any]]) -> str | None:
    for i, message in enumerate(messages):
        parts = message.get("content")
        for j, part in enumerate(parts if isinstance(parts, list) else ()):
            if isinstance(part, dict) and part.get("type") == "image_url":
                return f"messages[{i}].content[{j}]"
    return None


def _load(body: bytes) -> Any:
    try:
        value = json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
        check_encodable(body, value)
        return value
    except RecursionError:
        raise InvalidRequestError("The request body is nested too deeply.") from None
    except UnicodeDecodeError:
        raise InvalidRequestError("The request body is not UTF-8.") from None
    except UnicodeEncodeError:
        raise InvalidRequestError(
            "The request body is not JSON: a character is half a surrogate pair."
        ) from None
    except json.JSONDecodeError as error:
        raise InvalidRequestError(
            f"The request body is not JSON: {error.msg} at line {error.lineno}, "
            f"column {error.colno}."
        ) from None
    except ValueError as error:
        raise InvalidRequestError(f"The request body is not JSON: {error}.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Engines disagree about which of two equal keys counts: refuse them."""
    value = dict(pairs)
    if len(value) != len(pairs):
        ((double, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise InvalidRequestError(f"The key {double!r} stands twice in one object.", param=double)
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")
