"""Asks as the users of LiteLLM do."""

from __future__ import annotations

import os
from typing import Any, Literal

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it is fetched when LiteLLM is imported

import litellm
from pydantic import BaseModel

from tests.e2e.clients.program import Asked, leases_left, refusal, run
from tests.tiny import dialogues as d

PATHS = {"openai": "/v1", "anthropic": "", "ollama_chat": ""}
"""LiteLLM's names of the dialects, and what is behind the daemon's address for each."""


class Size(BaseModel):
    size: Literal["small", "big"]


def complete(asked: Asked, *messages: Any, provider: str = "openai", **fields: Any) -> Any:
    return litellm.completion(
        **{
            "model": f"{provider}/{asked.model}",
            "api_base": asked.url + PATHS[provider],
            "api_key": "none",
            "max_retries": 0,
            "messages": list(messages),
            "temperature": 0,
            **fields,
        }
    )


def chat(asked: Asked, **fields: Any) -> Any:
    answer = complete(asked, d.user(asked.question), **fields)
    (choice,) = answer.choices
    return {
        "model": answer.model,
        "content": choice.message.content,
        "finish_reason": choice.finish_reason,
        "prompt_tokens": answer.usage.prompt_tokens,
    }


def stream(asked: Asked, **fields: Any) -> Any:
    fields = {"stream": True, "stream_options": {"include_usage": True}, **fields}
    chunks = list(complete(asked, d.user(asked.question), **fields))
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices]
    whole: Any = litellm.stream_chunk_builder(chunks)
    return {
        "pieces": [piece for piece in pieces if piece],
        "finish_reason": whole.choices[0].finish_reason,
        "prompt_tokens": whole.usage.prompt_tokens,
    }


def tools(asked: Asked, *, streamed: bool = False, **fields: Any) -> Any:
    question = d.user(asked.tool_question)
    fields = {"tools": [asked.tool], **fields}
    answer = complete(asked, question, stream=streamed, **fields)
    message = (
        (litellm.stream_chunk_builder(list(answer)) if streamed else answer).choices[0].message
    )
    (call,) = message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": asked.tool_result}
    final = complete(asked, question, message, result, **fields)
    return {
        "name": call.function.name,
        "arguments": call.function.arguments,
        "content": final.choices[0].message.content,
    }


def form(asked: Asked) -> Any:
    answer = complete(asked, d.user(asked.question), response_format=Size)
    return Size.model_validate_json(answer.choices[0].message.content).model_dump()


def vectors(asked: Asked) -> Any:
    found = litellm.embedding(
        model=f"openai/{asked.embedder}",
        api_base=f"{asked.url}/v1",
        api_key="none",
        max_retries=0,
        input=asked.texts,
    )
    return [item["embedding"] for item in found.data]


def errors(asked: Asked) -> Any:
    question, too_long = d.user(asked.question), d.user(asked.too_long)
    return {
        "unknown_model": refusal(lambda: complete(asked, question, model="openai/absent")),
        "wrong_field": refusal(lambda: complete(asked, question, max_tokens=-5)),
        "too_long": refusal(lambda: complete(asked, too_long)),
        "too_long_stream": refusal(lambda: complete(asked, too_long, stream=True)),
    }


def cancel(asked: Asked) -> Any:
    song = d.user(asked.endless_question)
    sung = complete(asked, song, stream=True)
    piece = next(text for chunk in sung if (text := chunk.choices[0].delta.content))
    sung.close()
    left = [leases_left(asked)]
    timeout = refusal(lambda: complete(asked, song, timeout=asked.timeout_seconds))
    left.append(leases_left(asked))
    return {"piece": piece, "timeout": timeout, "leases": left, "content": chat(asked)["content"]}


def dialect(asked: Asked, provider: str) -> Any:
    """What the daemon's other dialects say, through the same functions."""
    fields: dict[str, Any] = {"provider": provider, "max_tokens": 100}
    called = tools(asked, **fields), tools(asked, streamed=True, **fields)
    return {"chat": chat(asked, **fields), "stream": stream(asked, **fields), "tools": called}


if __name__ == "__main__":
    run(
        {
            "chat": chat,
            "stream": stream,
            "tools": tools,
            "streamed_tools": lambda asked: tools(asked, streamed=True),
            "form": form,
            "vectors": vectors,
            "errors": errors,
            "cancel": cancel,
            "anthropic": lambda asked: dialect(asked, "anthropic"),
            "ollama": lambda asked: dialect(asked, "ollama_chat"),
        }
    )
