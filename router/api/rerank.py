"""Requests to rank documents, as clients of Jina, Cohere and llama.cpp send them, and what
llama.cpp leaves out of its answers. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Any

from backends.errors import BadRequestError
from backends.wire.request import Fields, Json, json_body
from router.api.engine_error import Blame
from router.api.members import edited
from router.api.mending import Mending

MAX_DOCUMENTS = 2048
"""As many as texts to embed at once."""


@dataclass(frozen=True, slots=True)
class RerankRequest:
    documents: tuple[str, ...]
    name: str = "documents"
    """`texts` in requests to the server of Hugging Face, which are answered as it does."""
    with_documents: bool = False
    """Whether the answer has them, too."""
    plain: bool = True
    """Whether the body says it as llama.cpp takes it."""


def parse(raw: bytes) -> RerankRequest:
    """
    Raises:
        BadRequestError: naming the field that is wrong.
    """
    return read(json_body(raw))


def read(body: Json) -> RerankRequest:
    """As `parse`, of a body that is JSON already."""
    fields = Fields(body)
    if not isinstance(fields.body.get("query"), str):
        raise _wrong("query", "must be text")
    fields.integer("top_n", low=1)
    given, name = fields.body.get("documents"), "documents"
    if given is None and "texts" in fields.body:
        given, name = fields.body["texts"], "texts"
    if not isinstance(given, list) or not given:
        raise _wrong(name, "must be a list with at least one document")
    if len(given) > MAX_DOCUMENTS:
        raise _wrong(name, f"has {len(given)} documents; {MAX_DOCUMENTS} are the most")
    documents = tuple(_text(one, f"{name}[{i}]") for i, one in enumerate(given))
    return RerankRequest(
        documents=documents,
        name=name,
        with_documents=fields.boolean("return_documents") and name == "documents",
        plain=all(isinstance(one, str) for one in given),
    )


def mending(raw: bytes) -> Mending:
    """As llama.cpp takes it, which knows documents as texts only and never gives them back."""
    request = parse(raw)
    body = raw
    if not request.plain:
        body = edited(raw, {"documents", "texts"}, {request.name: request.documents})
    mend = partial(_with_documents, request=request) if request.with_documents else None
    return Mending(body=body, blame=Blame(request.name), mend=mend)


def _with_documents(answer: bytes, request: RerankRequest) -> bytes:
    """Each result with its document, as Jina and Cohere answer."""
    body = json.loads(answer)
    for result in body["results"]:
        result["document"] = {"text": request.documents[result["index"]]}
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def _text(value: Any, where: str) -> str:
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise _wrong(where, "must be text, or an object with `text`")
    return text


def _wrong(name: str, what: str) -> BadRequestError:
    return BadRequestError(f"`{name}` {what}.", param=name)
