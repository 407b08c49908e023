"""An engine's chat completion as an answer of Anthropic's Messages API, whole or streamed. Pure.

The events and their order are those of
https://docs.claude.com/en/docs/build-with-claude/streaming.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Iterator
from typing import Any

from router.api import sse
from router.api.anthropic_error import anthropic_error
from router.errors import EngineFailedError, RouterError

Json = dict[str, Any]

STOP_REASONS = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
"""By `finish_reason`; whatever else it is, the model has ended its turn or met a stop sequence."""


def message(answer: Json, model: str) -> Json:
    """A `chat.completion` as a message."""
    choice = _first(answer.get("choices"))
    said = _object(choice.get("message"))
    content: list[Json] = []
    if thought := _text(said.get("reasoning_content")):
        content.append({"type": "thinking", "thinking": thought, "signature": signature(thought)})
    if text := _text(said.get("content")):
        content.append({"type": "text", "text": text})
    calls = said.get("tool_calls")
    content += filter(None, map(_tool_use, calls if isinstance(calls, list) else []))
    usage = _usage(answer.get("usage"))
    return {**_head(model), "content": content, **_end(choice), "usage": usage}


class MessageStream:
    """The events of one message. Only one block is open at a time."""

    content_type = b"text/event-stream; charset=utf-8"

    def __init__(self, model: str) -> None:
        self._model = model
        self._began = False
        self._index = -1
        self._open = ""
        self._call = -1
        self._thought: list[str] = []
        self._end: Json | None = None
        self._usage = _usage(None)

    def add(self, chunk: Json) -> Iterator[bytes]:
        yield from self._begin()
        if chunk.get("usage"):
            self._usage = _usage(chunk["usage"])
        choice = _first(chunk.get("choices"))
        delta = _object(choice.get("delta"))
        if thought := _text(delta.get("reasoning_content")):
            yield from self._piece("thinking", thought)
            self._thought.append(thought)
        if text := _text(delta.get("content")):
            yield from self._piece("text", text)
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            yield from self._tool(_object(call))
        if choice.get("finish_reason"):
            self._end = _end(choice)

    def finish(self) -> Iterator[bytes]:
        if self._end is None:
            raise EngineFailedError("The engine's answer broke off in the middle.")
        yield from self._begin()
        yield from self._close()
        yield _event("message_delta", delta=self._end, usage=self._usage)
        yield _event("message_stop")

    def wait(self) -> Iterator[bytes]:
        yield from self._begin()
        yield _event("ping")

    def fail(self, error: RouterError) -> Iterator[bytes]:
        yield sse.written(anthropic_error(error), "error")

    def _begin(self) -> Iterator[bytes]:
        """What the prompt has taken is known at the end only, and said there."""
        if self._began:
            return
        self._began = True
        nothing: Json = {"stop_reason": None, "stop_sequence": None}
        empty = {**_head(self._model), "content": [], **nothing, "usage": _usage(None)}
        yield _event("message_start", message=empty)

    def _piece(self, kind: str, text: str) -> Iterator[bytes]:
        if self._open != kind:
            signed = {"signature": ""} if kind == "thinking" else {}
            yield from self._start(kind, {"type": kind, kind: "", **signed})
        yield self._delta({"type": f"{kind}_delta", kind: text})

    def _tool(self, call: Json) -> Iterator[bytes]:
        """A piece of a call: the first one of each has its name."""
        index, function = call.get("index", 0), _object(call.get("function"))
        if self._open != "tool_use" or index != self._call:
            name = _text(function.get("name"))
            if not name:
                raise EngineFailedError("The engine went back to a call that had ended.")
            self._call = index
            block = {"type": "tool_use", "id": _id(call), "name": name, "input": {}}
            yield from self._start("tool_use", block)
        if piece := _text(function.get("arguments")):
            yield self._delta({"type": "input_json_delta", "partial_json": piece})

    def _start(self, kind: str, block: Json) -> Iterator[bytes]:
        yield from self._close()
        self._open = kind
        self._index += 1
        yield _event("content_block_start", index=self._index, content_block=block)

    def _close(self) -> Iterator[bytes]:
        if self._open == "thinking":
            signed = signature("".join(self._thought))
            self._thought.clear()
            yield self._delta({"type": "signature_delta", "signature": signed})
        if self._open:
            yield _event("content_block_stop", index=self._index)
        self._open = ""

    def _delta(self, delta: Json) -> bytes:
        return _event("content_block_delta", index=self._index, delta=delta)


def signature(thought: str) -> str:
    """Clients send thoughts back only if they are signed; nobody here looks at what it says."""
    return base64.b64encode(hashlib.sha256(thought.encode("utf-8", "replace")).digest()).decode()


def _event(kind: str, **fields: Any) -> bytes:
    return sse.written({"type": kind, **fields}, kind)


def _head(model: str) -> Json:
    identity = f"msg_{secrets.token_hex(12)}"
    return {"id": identity, "type": "message", "role": "assistant", "model": model}


def _end(choice: Json) -> Json:
    """`stop_reason` of a choice is vLLM's field: the stop sequence that was met."""
    met = choice.get("stop_reason")
    if choice.get("finish_reason") == "stop" and isinstance(met, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": met}
    reason = STOP_REASONS.get(str(choice.get("finish_reason")), "end_turn")
    return {"stop_reason": reason, "stop_sequence": None}


def _tool_use(call: Any) -> Json | None:
    """None for a call that was cut off: nobody should act on half of one."""
    function = _object(_object(call).get("function"))
    arguments = function.get("arguments")
    try:
        given = json.loads(arguments or "{}") if isinstance(arguments, str | None) else arguments
    except (ValueError, RecursionError):
        return None
    name = _text(function.get("name"))
    if not name or not isinstance(given, dict):
        return None
    return {"type": "tool_use", "id": _id(call), "name": name, "input": given}


def _id(call: Json) -> str:
    return _text(call.get("id")) or f"toolu_{secrets.token_hex(12)}"


def _usage(usage: Any) -> Json:
    """Anthropic counts what was read from the cache apart; to write it costs nothing here."""
    usage = _object(usage)
    cached = _count(_object(usage.get("prompt_tokens_details")).get("cached_tokens"))
    return {
        "input_tokens": max(0, _count(usage.get("prompt_tokens")) - cached),
        "output_tokens": _count(usage.get("completion_tokens")),
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": 0,
    }


def _first(choices: Any) -> Json:
    return _object(choices[0]) if isinstance(choices, list) and choices else {}


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _count(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0
