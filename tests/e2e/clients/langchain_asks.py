"""Asks as the users of LangChain's OpenAI client do."""

from __future__ import annotations

import json
from typing import Any, Literal

import tiktoken
import tiktoken.registry
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from tests.e2e.clients.program import Asked, leases_left, refusal, run


class Size(BaseModel):
    """How big it is."""

    size: Literal["small", "big"]


def client(asked: Asked, **fields: Any) -> ChatOpenAI:
    return ChatOpenAI(
        **{
            "model": asked.model,
            "base_url": f"{asked.url}/v1",
            "api_key": SecretStr("none"),
            "max_retries": 0,
            "temperature": 0,
            **fields,
        }
    )


def chat(asked: Asked) -> Any:
    answer = client(asked).invoke(asked.question)
    assert answer.usage_metadata
    return {
        "model": answer.response_metadata["model_name"],
        "content": answer.content,
        "finish_reason": answer.response_metadata["finish_reason"],
        "prompt_tokens": answer.usage_metadata["input_tokens"],
    }


def stream(asked: Asked) -> Any:
    whole, *rest = chunks = list(client(asked, stream_usage=True).stream(asked.question))
    for chunk in rest:
        whole += chunk
    assert isinstance(whole, AIMessage)
    assert whole.usage_metadata
    return {
        "pieces": [chunk.content for chunk in chunks if chunk.content],
        "finish_reason": whole.response_metadata["finish_reason"],
        "prompt_tokens": whole.usage_metadata["input_tokens"],
    }


def tools(asked: Asked, *, streamed: bool = False) -> Any:
    able = client(asked, streaming=streamed).bind_tools([asked.tool])
    question = HumanMessage(asked.tool_question)
    answer = able.invoke([question])
    (call,) = answer.tool_calls
    result = ToolMessage(asked.tool_result, tool_call_id=call["id"])
    return {
        "name": call["name"],
        "arguments": json.dumps(call["args"]),
        "content": able.invoke([question, answer, result]).content,
    }


def form(asked: Asked) -> Any:
    size = client(asked).with_structured_output(Size).invoke(asked.question)
    assert isinstance(size, Size)
    return size.model_dump()


def embeddings(asked: Asked, **fields: Any) -> OpenAIEmbeddings:
    return OpenAIEmbeddings(
        model=asked.embedder,
        base_url=f"{asked.url}/v1",
        api_key=SecretStr("none"),
        max_retries=0,
        **fields,
    )


def vectors(asked: Asked) -> Any:
    """As texts, which is what other models than OpenAI's want."""
    return embeddings(asked, check_embedding_ctx_length=False).embed_documents(asked.texts)


def vectors_of_ids(asked: Asked, first: int = 0) -> Any:
    """As LangChain does it unless told otherwise: as ids of OpenAI's vocabulary. That one would be
    downloaded; here it is the 256 bytes, from the id `first` on."""
    ranks = {bytes([byte]): first + byte for byte in range(256)}
    tiktoken.registry.ENCODINGS["cl100k_base"] = tiktoken.Encoding(
        "cl100k_base", pat_str="(?s:.)", mergeable_ranks=ranks, special_tokens={}
    )
    return embeddings(asked).embed_documents(asked.texts)


def errors(asked: Asked) -> Any:
    return {
        "unknown_model": refusal(lambda: client(asked, model="absent").invoke("a")),
        "wrong_field": refusal(lambda: client(asked, max_tokens=-5).invoke("a")),
        "too_long": refusal(lambda: client(asked).invoke(asked.too_long)),
        "too_long_stream": refusal(lambda: list(client(asked).stream(asked.too_long))),
    }


def cancel(asked: Asked) -> Any:
    sung = client(asked).stream(asked.endless_question)
    piece = next(chunk.content for chunk in sung if chunk.content)
    sung.close()  # type: ignore[attr-defined]
    left = [leases_left(asked)]
    hasty = client(asked, timeout=asked.timeout_seconds)
    timeout = refusal(lambda: hasty.invoke(asked.endless_question))
    left.append(leases_left(asked))
    return {"piece": piece, "timeout": timeout, "leases": left, "content": chat(asked)["content"]}


if __name__ == "__main__":
    run(
        {
            "chat": chat,
            "stream": stream,
            "tools": tools,
            "streamed_tools": lambda asked: tools(asked, streamed=True),
            "form": form,
            "vectors": vectors,
            "vectors_of_ids": vectors_of_ids,
            "vectors_of_foreign_ids": lambda asked: vectors_of_ids(asked, first=100_000),
            "errors": errors,
            "cancel": cancel,
        }
    )
