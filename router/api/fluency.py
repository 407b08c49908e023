"""Which engine speaks which endpoint itself, and which needs a translation: one table. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

MESSAGES, COUNT_TOKENS = "/v1/messages", "/v1/messages/count_tokens"
RESPONSES = "/v1/responses"
OLLAMA_EMBED, OLLAMA_EMBEDDINGS = "/api/embed", "/api/embeddings"
OLLAMA_CHAT, OLLAMA_GENERATE = "/api/chat", "/api/generate"


class Fluency(StrEnum):
    NATIVE = "native"
    """The request's bytes go to the engine, and its bytes to the client."""
    TRANSLATED = "translated"
    """The engine is asked in OpenAI's terms."""
    NONE = "none"
    """Neither: a 501 that names the engine."""


FLUENCY: Mapping[tuple[str, str], Fluency] = {
    # llama.cpp 11549 has these two itself. An empty `messages` ends its process, it takes any role
    # and calls tools in spite of `tool_choice: none`, gives `end_turn` where a stop sequence was
    # met, begins a tool's block without `input`, sends no ping, and its errors are OpenAI's.
    (MESSAGES, "llama.cpp"): Fluency.TRANSLATED,
    (COUNT_TOKENS, "llama.cpp"): Fluency.TRANSLATED,
    # mlx and the mistralrs wheel 0.9.5 are served by our own app, which has what is asked for.
    (MESSAGES, "mlx"): Fluency.TRANSLATED,
    (COUNT_TOKENS, "mlx"): Fluency.TRANSLATED,
    (MESSAGES, "mistral.rs"): Fluency.TRANSLATED,
    (COUNT_TOKENS, "mistral.rs"): Fluency.TRANSLATED,
    **{
        (endpoint, engine): Fluency.TRANSLATED
        for endpoint in (OLLAMA_EMBED, OLLAMA_EMBEDDINGS)
        for engine in ("mlx", "llama.cpp")
    },
    # llama.cpp 11549 has responses itself, and refuses `previous_response_id`.
    **{
        (endpoint, engine): Fluency.TRANSLATED
        for endpoint in (RESPONSES, OLLAMA_CHAT, OLLAMA_GENERATE)
        for engine in ("mlx", "llama.cpp", "mistral.rs")
    },
}
"""By endpoint and engine, as measured of the versions that are pinned. A build that lacks what a
translation asks it for says so itself, and its 404 becomes a 501."""


def fluency(endpoint: str, engine: str) -> Fluency:
    """Of an engine that the table does not know, OpenAI's chat completions are all that is sure."""
    return FLUENCY.get((endpoint, engine), Fluency.TRANSLATED)
