"""The API's description as an OpenAPI document: every path with what it takes and answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from backends.base import Receive, Scope, Send
from router.api import schemas
from router.api.answer import send_json
from router.api.error_shape import error_name
from router.api.fluency import (
    COUNT_TOKENS,
    MESSAGES,
    OLLAMA_CHAT,
    OLLAMA_EMBED,
    OLLAMA_EMBEDDINGS,
    OLLAMA_GENERATE,
    RESPONSES,
)
from router.version import version

Json = dict[str, Any]

PATH = "/openapi.json"
JSON, EVENTS, LINES, PLAIN = (
    "application/json",
    "text/event-stream",
    "application/x-ndjson",
    "text/plain",
)
PARAMETER = re.compile(r"\{(\w+)\}")

GATED = (401, 403)
NAMED = (404,)
READ = (400, 413)
LOADED = (422, 429, 502, 503)
ANSWERED = (500, 501, 504)

REASONS: Mapping[int, str] = {
    400: "The request is not what the endpoint takes; the field is named.",
    401: "No key, or a wrong one.",
    403: "A Host or an Origin that may not use this daemon.",
    404: "There is no such model, response or path.",
    409: "The model is used and cannot be unloaded.",
    413: "The body is larger than --max-body.",
    422: "No engine can run the model, or it needs more memory than there is; says why.",
    429: "Too many requests wait already.",
    500: "The router or the engine failed.",
    501: "The engine that runs the model cannot do this.",
    502: "The engine did not start, or failed.",
    503: "Not now: no memory in time, an engine that is missing, or the daemon ends.",
    504: "The engine did not answer in time.",
}
"""Of every status that is an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`request` and `answer` are names of schemas; `stream` is the type of an answer in pieces."""

    method: str
    path: str
    tag: str
    summary: str
    answer: str = ""
    request: str = ""
    stream: str = ""
    media: str = JSON
    errors: Sequence[int] = ()


def _generates(path: str, tag: str, summary: str, request: str, answer: str, stream: str = EVENTS,
               errors: Sequence[int] = ()) -> Operation:  # fmt: skip
    return Operation(
        method="post", path=path, tag=tag, summary=summary, request=request, answer=answer,
        stream=stream, errors=(*READ, *NAMED, *LOADED, *ANSWERED, *errors),
    )  # fmt: skip


def _looks(path: str, tag: str, summary: str, answer: str, **more: Any) -> Operation:
    return Operation(method="get", path=path, tag=tag, summary=summary, answer=answer, **more)


OPERATIONS: Sequence[Operation] = (
    _generates("/v1/chat/completions", "OpenAI", "Answer a chat", "ChatRequest", "ChatCompletion"),
    _generates("/v1/completions", "OpenAI", "Continue a text", "CompletionRequest", "Completion"),
    _generates("/v1/embeddings", "OpenAI", "Make vectors of texts", "EmbeddingRequest",
               "Embeddings", stream=""),
    _generates(RESPONSES, "OpenAI", "Answer, and keep the answer", "ResponseRequest", "Response"),
    _looks(f"{RESPONSES}/{{response}}", "OpenAI", "Show an answer that is kept", "Response",
           errors=NAMED),
    Operation(method="delete", path=f"{RESPONSES}/{{response}}", tag="OpenAI",
              summary="Forget an answer that is kept", answer="DeletedResponse", errors=NAMED),
    _looks("/v1/models", "OpenAI", "List the models that can be asked", "Models"),
    _looks("/v1/models/{model}", "OpenAI", "Show one of them", "Model",
           errors=(*NAMED, 422, 503)),
    _generates("/v1/rerank", "Ranks", "Rank documents", "RerankRequest", "Ranks", stream=""),
    _generates("/rerank", "Ranks", "Rank documents", "RerankRequest", "Ranks", stream=""),
    _generates(MESSAGES, "Anthropic", "Answer a chat", "AnthropicRequest", "AnthropicAnswer"),
    _generates(COUNT_TOKENS, "Anthropic", "Count a chat's tokens", "AnthropicCountRequest",
               "AnthropicCount", stream=""),
    _generates(OLLAMA_CHAT, "Ollama", "Answer a chat", "OllamaChatRequest", "OllamaChatAnswer",
               stream=LINES),
    _generates(OLLAMA_GENERATE, "Ollama", "Answer or continue a text", "OllamaGenerateRequest",
               "OllamaGenerateAnswer", stream=LINES),
    _generates(OLLAMA_EMBED, "Ollama", "Make vectors of texts", "OllamaEmbedRequest",
               "OllamaEmbedAnswer", stream=""),
    _generates(OLLAMA_EMBEDDINGS, "Ollama", "Make a vector of a text", "OllamaEmbeddingsRequest",
               "OllamaEmbeddingsAnswer", stream=""),
    _looks("/api/version", "Ollama", "The version of Ollama whose API this is", "OllamaVersion"),
    _looks("/api/tags", "Ollama", "List the models that can be asked", "OllamaModels"),
    _looks("/api/ps", "Ollama", "List the models that are loaded", "OllamaModels"),
    Operation(method="post", path="/api/show", tag="Ollama", summary="Show a model",
              request="OllamaShowRequest", answer="OllamaModel",
              errors=(*READ, *NAMED, 422, 503)),
    _generates("/tokenize", "llama.cpp", "Tokens of a text", "TokenizeRequest", "Tokens",
               stream=""),
    _generates("/detokenize", "llama.cpp", "Text of tokens", "DetokenizeRequest", "Content",
               stream=""),
    _generates("/apply-template", "llama.cpp", "A chat as the model reads it", "TemplateRequest",
               "Prompt", stream=""),
    _generates("/infill", "llama.cpp", "Fill a gap in a text", "InfillRequest", "Infilled"),
    _looks("/router/models", "Router", "All models, with every engine's verdict",
           "InspectedModels"),
    _looks("/router/models/{model}", "Router", "One model, with every engine's verdict",
           "InspectedModel", errors=NAMED),
    Operation(method="post", path="/router/models/{model}/load", tag="Router",
              summary="Load a model", answer="ModelState",
              errors=(*NAMED, *LOADED, *ANSWERED)),
    Operation(method="post", path="/router/models/{model}/unload", tag="Router",
              summary="Unload a model that nobody uses", answer="ModelState",
              errors=(*NAMED, 409)),
    _looks("/router/status", "Router", "What is loaded, and who waits for what", "Status"),
    _looks("/metrics", "Router", "Counters and gauges for Prometheus", "", media=PLAIN),
    _looks("/", "Router", "For people who open the address", "", media=PLAIN),
    _looks("/health", "Router", "Whether the daemon lives", "Health"),
    _looks("/livez", "Router", "Whether the daemon lives", "Health"),
    _looks("/readyz", "Router", "Whether it takes requests", "Health", errors=(503,)),
    _looks(PATH, "Router", "This document", ""),
)  # fmt: skip


class OpenAPI:
    """`GET /openapi.json`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, 200, document())


@cache
def document() -> Json:
    paths: dict[str, Json] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "router",
            "version": version(),
            "description": "One endpoint for every local model, whichever engine runs it.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": {**schemas.REQUESTS, **schemas.ANSWERS, **schemas.ERRORS},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{}, {"bearer": []}, {"header": []}],
    }


def _described(operation: Operation) -> Json:
    return {
        "operationId": _identifier(operation),
        "tags": [operation.tag],
        "summary": operation.summary,
        **_parameters(operation.path),
        **_body(operation.request),
        "responses": dict(_answers(operation)),
    }


def _identifier(operation: Operation) -> str:
    words = re.findall(r"\w+", operation.path)
    return "_".join([operation.method, *words]) if words else f"{operation.method}_root"


def _parameters(path: str) -> Json:
    found = [
        {"name": name, "in": "path", "required": True, "schema": schemas.NAME}
        for name in PARAMETER.findall(path)
    ]
    return {"parameters": found} if found else {}


def _body(request: str) -> Json:
    if not request:
        return {}
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schemas.a(request)}}}}


def _answers(operation: Operation) -> Iterator[tuple[str, Json]]:
    schema = schemas.a(operation.answer) if operation.answer else {}
    content: Json = {operation.media: {"schema": schema}}
    if operation.stream:
        content[operation.stream] = {"schema": {}}
    yield "200", {"description": operation.summary, "content": content}
    error = {"schema": schemas.a(error_name(operation.path))}
    for status in sorted({*GATED, *operation.errors}):
        yield str(status), {"description": REASONS[status], "content": {JSON: error}}
