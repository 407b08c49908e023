"""OpenAI's requests for embeddings, and their answers, for the engines that we serve ourselves."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from backends.errors import BadRequestError
from backends.wire.request import Fields, Json, json_body

EMBEDDINGS_PATH = "/v1/embeddings"

MAX_INPUTS = 2048
"""OpenAI's own limit."""

FORMATS = ("float", "base64")

Input = str | tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """Texts, or the ids of their tokens; at least one."""

    inputs: tuple[Input, ...]
    dimensions: int | None = None
    """Of the vectors; None: as many as the model has."""
    base64: bool = False
    """Little-endian 32-bit floats, as OpenAI's clients ask for them unless told otherwise."""
    prompt_name: str | None = None
    """One of the model's own prompts, to be put before every text; not of OpenAI."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector per input, in their order: 32-bit floats, little-endian."""

    vectors: Sequence[bytes]
    prompt_tokens: int


def parse(raw: bytes) -> EmbeddingRequest:
    """Unknown fields are ignored.

    Raises:
        BadRequestError: naming the field that is wrong.
    """
    return read(json_body(raw))


def read(body: Json) -> EmbeddingRequest:
    """As `parse`, of a body that is JSON already."""
    fields = Fields(body)
    wanted = fields.body.get("encoding_format")
    if wanted is not None and wanted not in FORMATS:
        raise _wrong("encoding_format", f"must be one of {', '.join(FORMATS)}")
    prompt_name = fields.body.get("prompt_name")
    if not isinstance(prompt_name, str | None):
        raise _wrong("prompt_name", "must be text")
    return EmbeddingRequest(
        inputs=tuple(_inputs(fields.body.get("input"))),
        dimensions=fields.integer("dimensions", low=1, high=2**31 - 1),
        base64=wanted == "base64",
        prompt_name=prompt_name,
    )


def _inputs(value: Any) -> Iterator[Input]:
    if isinstance(value, str):
        yield value
        return
    if not isinstance(value, list):
        raise _wrong("input", "must be text, token ids, or a list of either")
    if not value:
        raise _wrong("input", "is an empty list")
    if type(value[0]) is int:
        yield _ids(value, "input")
        return
    if len(value) > MAX_INPUTS:
        raise _wrong("input", f"has {len(value)} texts; {MAX_INPUTS} are the most")
    for i, one in enumerate(value):
        if type(one) is not type(value[0]) or not isinstance(one, str | list):
            raise _wrong(f"input[{i}]", "must be text or a list of token ids, all of one kind")
        yield one if isinstance(one, str) else _ids(one, f"input[{i}]")


def _ids(value: list[Any], param: str) -> tuple[int, ...]:
    if not value:
        raise _wrong(param, "is an empty list")
    wrong = next((i for i, token in enumerate(value) if type(token) is not int), None)
    if wrong is not None:
        raise _wrong(f"{param}[{wrong}]", "must be a token id, a whole number")
    return tuple(value)


def answer(request: EmbeddingRequest, model: str, found: Embeddings) -> bytes:
    """The body, written by hand: of a thousand vectors it is long."""
    head = f'{{"object":"list","model":{json.dumps(model)},"data":['
    items = (
        f'{{"object":"embedding","index":{i},"embedding":{_vector(vector, request.base64)}}}'
        for i, vector in enumerate(found.vectors)
    )
    tokens = found.prompt_tokens
    usage = f'"usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}'
    return f"{head}{','.join(items)}],{usage}}}".encode()


def _vector(vector: bytes, as_base64: bool) -> str:
    """Nine digits tell any two 32-bit floats apart."""
    if as_base64:
        return f'"{base64.b64encode(vector).decode()}"'
    numbers = struct.unpack(f"<{len(vector) // 4}f", vector)
    return f"[{','.join([f'{number:.9g}' for number in numbers])}]"


def _wrong(name: str, what: str) -> BadRequestError:
    return BadRequestError(f"`{name}` {what}.", param=name)
