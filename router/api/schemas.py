"""The bodies of requests and answers in JSON Schema, for the API's description. Pure.

Only what is looked at is described; all objects may have more. Limits are those of the code that
checks them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backends.wire.embeddings import MAX_INPUTS
from backends.wire.request import MAX_BIAS, MAX_CHOICES, MAX_LIKELIEST, MAX_STOPS, ROLES
from router.api.rerank import MAX_DOCUMENTS

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
NAME: Json = {"type": "string", "minLength": 1}
FLAG: Json = {"type": ["boolean", "null"]}
OBJECT: Json = {"type": "object"}
TIME: Json = {"type": "string", "format": "date-time"}
MODEL: Json = {**NAME, "description": "An id or an alias that GET /v1/models lists."}
KEEP_ALIVE: Json = {
    "type": ["number", "string", "null"],
    "description": "How long the model stays loaded afterwards: seconds, or a text like `10m`; "
    "negative for ever.",
}


def a(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}


def whole(low: int | None = None, high: int | None = None) -> Json:
    bounds = {"minimum": low, "maximum": high}
    return {"type": ["integer", "null"], **{k: v for k, v in bounds.items() if v is not None}}


def number(low: float, high: float) -> Json:
    return {"type": ["number", "null"], "minimum": low, "maximum": high}


def array(items: Json, low: int = 0, high: int | None = None) -> Json:
    most = {} if high is None else {"maxItems": high}
    return {"type": "array", "items": items, "minItems": low, **most}


def record(required: Sequence[str] = (), **fields: Json) -> Json:
    needed = {"required": list(required)} if required else {}
    return {"type": "object", **needed, "properties": fields}


def either(*schemas: Json) -> Json:
    return {"anyOf": list(schemas)}


def _always(**fields: Json) -> Json:
    """An object that has all of these."""
    return record(tuple(fields), **fields)


SAMPLING: Mapping[str, Json] = {
    "temperature": number(0, 100),
    "top_p": number(0, 1),
    "top_k": whole(-1, 2**31 - 1),
    "min_p": number(0, 1),
    "seed": whole(),
    "repetition_penalty": number(0.01, 10),
    "presence_penalty": number(-2, 2),
    "frequency_penalty": number(-2, 2),
    "logit_bias": {
        "type": ["object", "null"],
        "propertyNames": {"pattern": "^[0-9]{1,9}$"},
        "additionalProperties": {"type": "number", "minimum": -MAX_BIAS, "maximum": MAX_BIAS},
    },
}
GENERATION: Mapping[str, Json] = {
    **SAMPLING,
    "max_tokens": whole(1),
    "max_completion_tokens": whole(1),
    "stop": either(TEXT, array(TEXT, high=MAX_STOPS), {"type": "null"}),
    "n": whole(1, MAX_CHOICES),
    "stream": FLAG,
    "stream_options": {"type": ["object", "null"], "properties": {"include_usage": FLAG}},
    "keep_alive": KEEP_ALIVE,
    "grammar": {**TEXT, "description": "In llama.cpp's GBNF."},
    "json_schema": OBJECT,
}
TOOL = _always(
    type={"const": "function"},
    function=record(("name",), name=TEXT, description={}, parameters={}),
)
TOOL_CHOICE = either(
    {"enum": ["auto", "none", "required"]},
    _always(type={"const": "function"}, function=_always(name=NAME)),
)
RESPONSE_FORMAT = either(
    _always(type={"enum": ["text", "json_object"]}),
    _always(type={"const": "json_schema"}, json_schema=record(("schema",), schema=OBJECT)),
)
PART = either(
    _always(type={"const": "text"}, text=TEXT),
    _always(
        type={"const": "image_url"},
        image_url=_always(url={"type": "string", "pattern": "^data:"}),
    ),
)
CALL = _always(id=TEXT, type={"const": "function"}, function=_always(name=NAME, arguments=TEXT))
USAGE = _always(
    prompt_tokens=whole(0),
    completion_tokens=whole(0),
    total_tokens=whole(0),
)
COUNTED = record(("prompt_tokens",), prompt_tokens=whole(0), total_tokens=whole(0))

REQUESTS: Mapping[str, Json] = {
    "ChatMessage": record(
        ("role",),
        role={"enum": sorted(ROLES)},
        content=either(TEXT, array(PART), {"type": "null"}),
        tool_calls=array(CALL),
        tool_call_id=TEXT,
        reasoning_content=TEXT,
    ),
    "ChatRequest": record(
        ("model", "messages"),
        model=MODEL,
        messages=array(a("ChatMessage"), low=1),
        **GENERATION,
        logprobs=FLAG,
        top_logprobs=whole(0, MAX_LIKELIEST),
        tools=either(array(TOOL), {"type": "null"}),
        tool_choice=TOOL_CHOICE,
        parallel_tool_calls=FLAG,
        response_format=RESPONSE_FORMAT,
        chat_template_kwargs=OBJECT,
    ),
    "CompletionRequest": record(
        ("model", "prompt"),
        model=MODEL,
        prompt=either(
            TEXT, array(TEXT, low=1, high=1), array({"type": "integer", "minimum": 0}, low=1)
        ),
        **GENERATION,
        logprobs=whole(0, MAX_LIKELIEST),
    ),
    "EmbeddingRequest": record(
        ("model", "input"),
        model=MODEL,
        input=either(NAME, array(NAME, low=1, high=MAX_INPUTS)),
        encoding_format={"enum": ["float", "base64"]},
        dimensions=whole(1),
        keep_alive=KEEP_ALIVE,
    ),
    "RerankRequest": record(
        ("model", "query", "documents"),
        model=MODEL,
        query=NAME,
        documents=array(either(NAME, _always(text=NAME)), low=1, high=MAX_DOCUMENTS),
        top_n=whole(1),
        return_documents=FLAG,
        keep_alive=KEEP_ALIVE,
    ),
    "AnthropicRequest": record(
        ("model", "messages", "max_tokens"),
        model=MODEL,
        messages=array(a("AnthropicMessage"), low=1),
        max_tokens={"type": "integer", "minimum": 1},
        system=either(TEXT, array(_always(type={"const": "text"}, text=TEXT))),
        stop_sequences=array(TEXT),
        stream=FLAG,
        temperature=number(0, 1),
        top_p=number(0, 1),
        top_k=whole(0, 2**31 - 1),
        tools=array(record(("name", "input_schema"), name=NAME, input_schema=OBJECT)),
        tool_choice=record(("type",), type={"enum": ["auto", "any", "none", "tool"]}, name=NAME),
        thinking=record(("type",), type={"enum": ["enabled", "adaptive", "disabled"]}),
        keep_alive=KEEP_ALIVE,
    ),
    "AnthropicMessage": _always(
        role={"enum": ["user", "assistant", "system"]},
        content=either(TEXT, array(record(("type",), type=NAME), low=1)),
    ),
    "AnthropicCountRequest": record(
        ("model", "messages"), model=MODEL, messages=array(a("AnthropicMessage"), low=1)
    ),
    "ResponseRequest": record(
        ("model", "input"),
        model=MODEL,
        input=either(NAME, array(OBJECT, low=1)),
        instructions={"type": ["string", "null"]},
        previous_response_id={"type": ["string", "null"]},
        store=FLAG,
        stream=FLAG,
        max_output_tokens=whole(1),
        temperature=number(0, 100),
        top_p=number(0, 1),
        tools=array(record(("type", "name"), type={"const": "function"}, name=NAME)),
        tool_choice=either({"enum": ["auto", "none", "required"]}, OBJECT),
        parallel_tool_calls=FLAG,
        text=record(format=record(("type",), type=NAME)),
        reasoning=record(effort={"type": ["string", "null"]}),
        metadata={"type": ["object", "null"], "additionalProperties": TEXT},
        keep_alive=KEEP_ALIVE,
    ),
    "OllamaChatRequest": record(
        ("model", "messages"),
        model=MODEL,
        messages=array(
            record(
                ("role",),
                role={"enum": ["system", "user", "assistant", "tool"]},
                content=TEXT,
                images=array(TEXT),
            )
        ),
        tools=array(TOOL),
        format=either({"enum": ["json", ""]}, OBJECT),
        think={"enum": [True, False, "low", "medium", "high"]},
        options=OBJECT,
        stream=FLAG,
        keep_alive=KEEP_ALIVE,
    ),
    "OllamaGenerateRequest": record(
        ("model",),
        model=MODEL,
        prompt=TEXT,
        system=TEXT,
        raw=FLAG,
        format=either({"enum": ["json", ""]}, OBJECT),
        options=OBJECT,
        stream=FLAG,
        keep_alive=KEEP_ALIVE,
    ),
    "OllamaEmbedRequest": record(
        ("model", "input"),
        model=MODEL,
        input=either(TEXT, array(TEXT)),
        dimensions=whole(1),
        keep_alive=KEEP_ALIVE,
    ),
    "OllamaEmbeddingsRequest": record(
        ("model", "prompt"), model=MODEL, prompt=TEXT, keep_alive=KEEP_ALIVE
    ),
    "OllamaShowRequest": record(("model",), model=MODEL),
    "TokenizeRequest": record(("model", "content"), model=MODEL, content=TEXT),
    "DetokenizeRequest": record(
        ("model", "tokens"), model=MODEL, tokens=array({"type": "integer", "minimum": 0})
    ),
    "TemplateRequest": record(
        ("model", "messages"), model=MODEL, messages=array(a("ChatMessage"), low=1)
    ),
    "InfillRequest": record(
        ("model", "input_prefix"), model=MODEL, input_prefix=TEXT, input_suffix=TEXT
    ),
}


def _completion(kind: str, name: str, said: Json, *, ends: Sequence[str]) -> Json:
    """What an engine says stands under `name` in each choice."""
    choice = _always(index=whole(0), **{name: said}, finish_reason={"enum": list(ends)})
    return _always(
        id=TEXT,
        object={"const": kind},
        created=whole(0),
        model=TEXT,
        choices=array(choice, low=1),
        usage=USAGE,
    )


ANSWERS: Mapping[str, Json] = {
    "ChatCompletion": _completion(
        "chat.completion",
        "message",
        record(
            ("role",),
            role={"const": "assistant"},
            content={"type": ["string", "null"]},
            reasoning_content={"type": ["string", "null"]},
            tool_calls=array(CALL),
        ),
        ends=("stop", "length", "tool_calls"),
    ),
    "Completion": _completion("text_completion", "text", TEXT, ends=("stop", "length")),
    "Embeddings": _always(
        object={"const": "list"},
        model=TEXT,
        data=array(
            _always(
                object={"const": "embedding"},
                index=whole(0),
                embedding=either(array({"type": "number"}), TEXT),
            )
        ),
        usage=COUNTED,
    ),
    "Ranks": either(
        record(
            ("results",),
            results=array(
                record(
                    ("index", "relevance_score"), index=whole(0), relevance_score={"type": "number"}
                )
            ),
        ),
        array(_always(index=whole(0), score={"type": "number"})),
    ),
    "AnthropicAnswer": record(
        ("id", "type", "role", "model", "content", "stop_reason", "usage"),
        id=TEXT,
        type={"const": "message"},
        role={"const": "assistant"},
        model=TEXT,
        content=array(record(("type",), type={"enum": ["text", "tool_use", "thinking"]})),
        stop_reason={"enum": ["end_turn", "max_tokens", "stop_sequence", "tool_use"]},
        usage=_always(input_tokens=whole(0), output_tokens=whole(0)),
    ),
    "AnthropicCount": _always(input_tokens=whole(0)),
    "Response": record(
        ("id", "object", "status", "model", "output"),
        id=TEXT,
        object={"const": "response"},
        status={"enum": ["completed", "incomplete", "failed", "in_progress"]},
        model=TEXT,
        output=array(record(("type",), type=TEXT)),
    ),
    "DeletedResponse": _always(id=TEXT, object=TEXT, deleted={"const": True}),
    "OllamaChatAnswer": record(
        ("model", "created_at", "message", "done"),
        model=TEXT,
        created_at=TIME,
        message=record(("role",), role={"const": "assistant"}, content=TEXT),
        done={"type": "boolean"},
    ),
    "OllamaGenerateAnswer": record(
        ("model", "created_at", "response", "done"),
        model=TEXT,
        created_at=TIME,
        response=TEXT,
        done={"type": "boolean"},
    ),
    "OllamaEmbedAnswer": record(
        ("model", "embeddings"), model=TEXT, embeddings=array(array({"type": "number"}))
    ),
    "OllamaEmbeddingsAnswer": _always(embedding=array({"type": "number"})),
    "OllamaModels": _always(models=array(record(("name", "model"), name=TEXT, model=TEXT))),
    "OllamaModel": record(("details", "model_info"), details=OBJECT, model_info=OBJECT),
    "OllamaVersion": _always(version=TEXT),
    "Model": record(
        ("id", "object", "created", "owned_by"),
        id=TEXT,
        object={"const": "model"},
        created=whole(0),
        owned_by=TEXT,
    ),
    "Models": _always(object={"const": "list"}, data=array(a("Model"))),
    "Tokens": _always(tokens=array({})),
    "Content": _always(content=TEXT),
    "Prompt": _always(prompt=TEXT),
    "Infilled": record(("content",), content=TEXT),
    "Verdict": record(
        ("engine", "ok"),
        engine={"enum": ["mlx", "llama.cpp", "mistral.rs"]},
        ok={"type": "boolean"},
        code={"type": ["string", "null"]},
        reason={"type": ["string", "null"]},
        remedy={"type": ["string", "null"]},
    ),
    "InspectedModel": record(
        ("id", "path", "format", "verdicts", "engine"),
        id=TEXT,
        path=TEXT,
        format=TEXT,
        verdicts=array(a("Verdict")),
        engine={"type": ["string", "null"]},
    ),
    "InspectedModels": _always(
        models=array(a("InspectedModel")),
        skipped=array(record(("path", "code", "reason"), path=TEXT, code=TEXT, reason=TEXT)),
    ),
    "ModelState": _always(model=TEXT, state={"enum": ["ready", "unloading"]}),
    "Status": record(
        ("pid", "budget_bytes", "reserved_bytes", "instances", "waiting", "failing"),
        pid=whole(1),
        budget_bytes=whole(0),
        reserved_bytes=whole(0),
        lost_bytes=whole(0),
        instances=array(record(("model", "engine", "state"), model=TEXT, engine=TEXT, state=TEXT)),
        waiting=array(record(("model",), model=TEXT)),
        failing=array(record(("model",), model=TEXT)),
    ),
    "Health": _always(status={"enum": ["alive", "ready"]}),
}

ERRORS: Mapping[str, Json] = {
    "Error": _always(
        error=record(
            ("message", "type", "param", "code"),
            message=NAME,
            type=NAME,
            param={"type": ["string", "null"]},
            code={"type": ["string", "null"]},
        )
    ),
    "AnthropicError": record(
        ("type", "error"), type={"const": "error"}, error=_always(type=NAME, message=NAME)
    ),
    "OllamaError": _always(error=NAME),
}
