"""What an engine gets of a request, and what is made of its answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from backends.asgi import parsed
from backends.wire.features import LLAMA_CPP
from backends.wire.request import thinking
from router.api.body import Asked
from router.api.members import edited
from router.api.mending import Mending
from router.api.one_call import FirstCallEvents, first_call
from router.api.task import Task
from router.entry import ModelEntry
from router.keep_alive import FIELDS as KEEP_ALIVE_FIELDS

Json = dict[str, Any]

SAME_AS: Mapping[str, tuple[str, ...]] = {
    "max_tokens": ("max_completion_tokens", "n_predict"),
    "repeat_penalty": ("repetition_penalty",),
}
"""Other names that clients have for the same."""

Retelling = Callable[[Json], Json]
"""Of a body: the fields that say the same in the engine's own words. None: without that field."""


def _one_tool(body: Json) -> Json:
    name = body["tool_choice"]["function"]["name"]
    only = [tool for tool in body["tools"] if tool["function"]["name"] == name]
    return {"tools": only[:1], "tool_choice": "required", "parallel_tool_calls": False}


def _no_tools(body: Json) -> Json:
    return {"tools": None, "tool_choice": None}


def _stops(body: Json) -> Json:
    return {"stop": [text for text in body["stop"] if text]}


def _penalty(body: Json) -> Json:
    return {"repetition_penalty": None, "repeat_penalty": body["repetition_penalty"]}


def _effort(body: Json) -> Json:
    given = body.get("chat_template_kwargs") or {}
    arguments = {**thinking(body["reasoning_effort"]), **given}
    return {"reasoning_effort": None, "chat_template_kwargs": arguments}


def _schema(body: Json) -> Json:
    form = body["response_format"]
    holder = form["json_schema"] if form["type"] == "json_schema" else form
    schema = holder.get("schema")
    told = {"type": "object"} if schema is None else schema
    return {"response_format": None, "json_schema": told}


RETOLD: Mapping[tuple[str, str], Retelling] = {
    # llama.cpp 11549 takes a function's name for `auto`, writes tools into the prompt that are not
    # to be called, ends an answer at an empty stop text, and does not know the others.
    (LLAMA_CPP, "tool_choice (a function)"): _one_tool,
    (LLAMA_CPP, "tool_choice (none)"): _no_tools,
    (LLAMA_CPP, "stop (an empty text)"): _stops,
    (LLAMA_CPP, "repetition_penalty"): _penalty,
    (LLAMA_CPP, "reasoning_effort"): _effort,
    (LLAMA_CPP, "response_format (of a text)"): _schema,
}
"""By engine and by what a request asks for, as `backends.wire.features` names it."""


ONE_CALL = frozenset(
    {(LLAMA_CPP, "tool_choice (a function)"), (LLAMA_CPP, "parallel_tool_calls (false)")}
)
"""What is held by leaving out what follows the first call, by engine and by what a request asks
for: llama.cpp 11549 lets a model call again."""


async def for_engine(body: bytes, request: Asked, entry: ModelEntry, task: Task) -> Mending:
    """The body as the client wrote it, but for what only the router understands, what the engine
    has other words for, and what the user wants to have where the client says nothing."""
    question = await _question(body, request, entry, defaults=task.writes)
    mending = await parsed(question, task.mending)
    mending = replace(mending, blame=replace(mending.blame, model=entry.id))
    if ONE_CALL.isdisjoint((entry.choice.engine, name) for name in request.features):
        return mending
    return replace(mending, mend=first_call, events=FirstCallEvents)


async def _question(body: bytes, request: Asked, entry: ModelEntry, *, defaults: bool) -> bytes:
    engine = entry.choice.engine or ""
    retold = [RETOLD[engine, name] for name in request.features if (engine, name) in RETOLD]
    ours = request.fields.intersection(KEEP_ALIVE_FIELDS)
    missing = {
        name: value
        for name, value in entry.settings.sampling.items()
        if defaults and not request.fields & {name, *SAME_AS.get(name, ())}
    }
    if not ours and not missing and not retold:
        return body
    return await parsed(body, partial(_edited, without=ours, extra=missing, retold=retold))


def _edited(body: bytes, without: frozenset[str], extra: Json, retold: list[Retelling]) -> bytes:
    value = json.loads(body) if retold else {}
    told: Json = {}
    for retell in retold:
        told |= retell(value)
    said = {name: value for name, value in told.items() if value is not None}
    return edited(body, without | told.keys(), {**extra, **said})
