"""The application: paths to endpoints, behind the gate and the error boundary."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from router.api import anthropic, ollama, ollama_embed, openapi
from router.api.admin import (
    AllModels,
    Livez,
    LoadModel,
    Readyz,
    Status,
    UnloadModel,
    Welcome,
)
from router.api.admission import Admission
from router.api.answer import ErrorBoundary
from router.api.conversations import Conversations
from router.api.cors import Cors
from router.api.error_shape import error_body
from router.api.fluency import (
    COUNT_TOKENS,
    MESSAGES,
    OLLAMA_CHAT,
    OLLAMA_EMBED,
    OLLAMA_EMBEDDINGS,
    OLLAMA_GENERATE,
    RESPONSES,
)
from router.api.gate import Gate
from router.api.metrics import Metrics
from router.api.ollama_models import Loaded, Show, Tags, Version
from router.api.openai import Completions, Models
from router.api.responses import KeptResponse, Responses
from router.api.task import EMBEDDINGS, TASKS
from router.api.translation import Translated
from router.catalog import Catalog
from router.configuration import Configuration
from router.errors import MethodNotAllowedError, RouterError, UnknownPathError
from router.pool import Pool
from router.tally import Tally


def create_app(configuration: Configuration, catalog: Catalog, pool: Pool) -> Starlette:
    admission = Admission(configuration, catalog, pool)
    says = Translated(configuration, admission, MESSAGES, anthropic.messages)
    counts = Translated(configuration, admission, COUNT_TOKENS, anthropic.count_tokens)
    chats = Translated(configuration, admission, OLLAMA_CHAT, ollama.chat)
    generates = Translated(configuration, admission, OLLAMA_GENERATE, ollama.generate)
    embeds = Translated(configuration, admission, OLLAMA_EMBED, ollama_embed.embed, EMBEDDINGS)
    embeds_one = Translated(
        configuration, admission, OLLAMA_EMBEDDINGS, ollama_embed.embeddings, EMBEDDINGS
    )
    conversations = Conversations()
    responds = Translated(configuration, admission, RESPONSES, Responses(conversations))
    kept = KeptResponse(conversations)
    models, all_models = Models(catalog), AllModels(catalog)
    routes = [
        *(
            Route(task.path, Completions(configuration, admission, task), methods=["POST"])
            for task in TASKS
        ),
        Route(MESSAGES, says, methods=["POST"]),
        Route(COUNT_TOKENS, counts, methods=["POST"]),
        Route(RESPONSES, responds, methods=["POST"]),
        Route(f"{RESPONSES}/{{response}}", kept, methods=["GET", "DELETE"]),
        Route(OLLAMA_CHAT, chats, methods=["POST"]),
        Route(OLLAMA_GENERATE, generates, methods=["POST"]),
        Route(OLLAMA_EMBED, embeds, methods=["POST"]),
        Route(OLLAMA_EMBEDDINGS, embeds_one, methods=["POST"]),
        Route("/api/version", Version(), methods=["GET"]),
        Route("/api/tags", Tags(catalog), methods=["GET"]),
        Route("/api/show", Show(configuration, catalog, pool), methods=["POST"]),
        Route("/api/ps", Loaded(catalog, pool), methods=["GET"]),
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/models/{model:path}", models, methods=["GET"]),
        Route("/", Welcome(catalog), methods=["GET"]),
        Route("/health", Livez(), methods=["GET"]),
        Route("/livez", Livez(), methods=["GET"]),
        Route("/readyz", Readyz(pool), methods=["GET"]),
        Route("/router/models", all_models, methods=["GET"]),
        Route("/router/models/{model:path}/load", LoadModel(catalog, pool), methods=["POST"]),
        Route("/router/models/{model:path}/unload", UnloadModel(catalog, pool), methods=["POST"]),
        Route("/router/models/{model:path}", all_models, methods=["GET"]),
        Route("/router/status", Status(pool), methods=["GET"]),
        Route("/metrics", Metrics(pool), methods=["GET"]),
        Route(openapi.PATH, openapi.OpenAPI(), methods=["GET"]),
    ]
    app = Starlette(
        routes=routes,
        middleware=_middleware(configuration, pool.tally),
        exception_handlers={404: _unknown_path, 405: _wrong_method},
    )
    app.router.redirect_slashes = False
    return app


def _middleware(configuration: Configuration, tally: Tally) -> list[Middleware]:
    """Outermost first: CORS, as a preflight carries no key and a page may read its errors."""
    return [
        Middleware(Cors, configuration),
        Middleware(ErrorBoundary, tally),
        Middleware(Gate, configuration),
    ]


async def _unknown_path(request: Request, error: Exception) -> Response:
    return _response(
        request,
        UnknownPathError(
            f"There is nothing at {request.url.path[:200]}; this daemon serves "
            "/v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings, /v1/rerank, "
            "/v1/messages, /v1/models, /api/chat and /api/generate."
        ),
    )


async def _wrong_method(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _response(
        request,
        MethodNotAllowedError(f"{request.url.path[:200]} does not take {request.method[:20]}."),
        error.headers,
    )


def _response(
    request: Request, error: RouterError, headers: Mapping[str, str] | None = None
) -> Response:
    body = error_body(error, request.url.path)
    return JSONResponse(body, status_code=error.status, headers=headers)
