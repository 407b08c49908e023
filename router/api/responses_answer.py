"""An engine's chat completion as one of OpenAI's Responses, whole or streamed. Pure, but for ids
and the time.

The events and their order are those of
https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from router.api import sse
from router.api.told import arguments_in, count_in, first_choice, list_in, object_in, text_in
from router.errors import EngineFailedError, RouterError

Json = dict[str, Any]

PARTS: Mapping[str, Json] = {
    "message": {"type": "output_text", "text": "", "annotations": [], "logprobs": []},
    "reasoning": {"type": "reasoning_text", "text": ""},
}
"""The one part of an item that is text, while it is empty."""

ITEMS: Mapping[str, Json] = {
    "message": {"type": "message", "role": "assistant", "content": []},
    "reasoning": {"type": "reasoning", "summary": [], "content": []},
}
PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
KEEP_ALIVE = b": keep-alive\n\n"


def whole(answer: Json, head: Json, done: Callable[[Json], None]) -> Json:
    """A `chat.completion` as a response."""
    choice = first_choice(answer)
    said = object_in(choice.get("message"))
    calls = [object_in(call) for call in list_in(said.get("tool_calls"))]
    named = [call for call in calls if text_in(object_in(call.get("function")).get("name"))]
    numbered = [{**call, "index": i} for i, call in enumerate(named)]
    delta = {**said, "tool_calls": numbered}
    reason = text_in(choice.get("finish_reason")) or "stop"
    chunk = {"choices": [{"delta": delta, "finish_reason": reason}], "usage": answer.get("usage")}
    stream = ResponseStream(head, done)
    for _ in (*stream.add(chunk), *stream.finish()):
        pass
    return stream.response


class ResponseStream:
    """The events of one response. Only its last item is open; `head` is what it tells of its
    request, and `done` is told when it has ended well."""

    content_type = b"text/event-stream; charset=utf-8"

    def __init__(self, head: Json, done: Callable[[Json], None]) -> None:
        self.response: Json = {
            "id": f"resp_{secrets.token_hex(24)}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            **head,
            "output": [],
            "usage": None,
        }
        self._done = done
        self._number = 0
        self._items: list[Json] = []
        self._open = False
        self._call: Any = None
        self._pieces: list[str] = []
        self._reason: str | None = None
        self._usage: Any = None

    def add(self, chunk: Json) -> Iterator[bytes]:
        yield from self._begin()
        self._usage = chunk.get("usage") or self._usage
        choice = first_choice(chunk)
        delta = object_in(choice.get("delta"))
        if thought := text_in(delta.get("reasoning_content")):
            yield from self._piece("reasoning", thought)
        if text := text_in(delta.get("content")):
            yield from self._piece("message", text)
        for call in list_in(delta.get("tool_calls")):
            yield from self._called(object_in(call))
        if reason := text_in(choice.get("finish_reason")):
            self._reason = reason

    def finish(self) -> Iterator[bytes]:
        if self._reason is None:
            raise EngineFailedError("The engine's answer broke off in the middle.")
        yield from self._begin()
        why = INCOMPLETE.get(self._reason)
        status = "incomplete" if why else "completed"
        yield from self._close(status)
        details = {"reason": why} if why else None
        ended = {"output": self._items, "usage": _usage(self._usage)}
        self.response |= {"status": status, "incomplete_details": details, **ended}
        self._done(self.response)
        yield self._event(f"response.{status}", response=self.response)

    def wait(self) -> Iterator[bytes]:
        yield from self._begin()
        yield KEEP_ALIVE

    def fail(self, error: RouterError) -> Iterator[bytes]:
        output = self._items[:-1] if self._open else self._items
        said = {"code": error.code, "message": error.message}
        failed = {**self.response, "status": "failed", "error": said, "output": output}
        yield self._event("response.failed", response=failed)

    def _begin(self) -> Iterator[bytes]:
        if self._number == 0:
            yield self._event("response.created", response=self.response)
            yield self._event("response.in_progress", response=self.response)

    def _piece(self, kind: str, text: str) -> Iterator[bytes]:
        part = PARTS[kind]
        if not self._open or self._items[-1]["type"] != kind:
            yield from self._start({"id": _id(kind), **ITEMS[kind]})
            yield self._event("response.content_part.added", **self._part(), part=part)
        self._pieces.append(text)
        extra: Json = {"logprobs": []} if "logprobs" in part else {}
        yield self._event(f"response.{part['type']}.delta", **self._part(), delta=text, **extra)

    def _called(self, call: Json) -> Iterator[bytes]:
        """A piece of a call: the first one of each has its name."""
        index, function = call.get("index", 0), object_in(call.get("function"))
        is_open = self._open and self._items[-1]["type"] == "function_call"
        if not is_open or index != self._call:
            name = text_in(function.get("name"))
            if not name:
                raise EngineFailedError("The engine went back to a call that had ended.")
            self._call = index
            identity = text_in(call.get("id")) or f"call_{secrets.token_hex(12)}"
            about = {"type": "function_call", "call_id": identity, "name": name, "arguments": ""}
            yield from self._start({"id": _id("function_call"), **about})
        if piece := text_in(function.get("arguments")):
            self._pieces.append(piece)
            kind = "response.function_call_arguments.delta"
            yield self._event(kind, **self._where(), delta=piece)

    def _start(self, item: Json) -> Iterator[bytes]:
        yield from self._close("completed")
        item["status"] = "in_progress"
        self._items.append(item)
        self._open = True
        yield self._event("response.output_item.added", output_index=self._last, item=item)

    def _close(self, status: str) -> Iterator[bytes]:
        if not self._open:
            return
        item, text = self._items[-1], "".join(self._pieces)
        self._pieces.clear()
        self._open = False
        if item["type"] == "function_call":
            yield from self._end_call(item, text or "{}", status)
        else:
            yield from self._end_text(item, text, status)
        yield self._event("response.output_item.done", output_index=self._last, item=item)

    def _end_call(self, item: Json, arguments: str, status: str) -> Iterator[bytes]:
        """Nobody should act on half a call."""
        whole = arguments_in(arguments) is not None
        item |= {"arguments": arguments, "status": status if whole else "incomplete"}
        kind = "response.function_call_arguments.done"
        yield self._event(kind, **self._where(), name=item["name"], arguments=arguments)

    def _end_text(self, item: Json, text: str, status: str) -> Iterator[bytes]:
        part = {**PARTS[item["type"]], "text": text}
        item |= {"content": [part], "status": status}
        extra: Json = {"logprobs": []} if "logprobs" in part else {}
        yield self._event(f"response.{part['type']}.done", **self._part(), text=text, **extra)
        yield self._event("response.content_part.done", **self._part(), part=part)

    @property
    def _last(self) -> int:
        return len(self._items) - 1

    def _where(self) -> Json:
        return {"item_id": self._items[-1]["id"], "output_index": self._last}

    def _part(self) -> Json:
        return {**self._where(), "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return sse.written(event, kind)


def _id(kind: str) -> str:
    return f"{PREFIXES[kind]}_{secrets.token_hex(24)}"


def _usage(usage: Any) -> Json:
    """How many of the answer's tokens were thoughts is counted by no engine."""
    usage = object_in(usage)
    prompt, answer = count_in(usage.get("prompt_tokens")), count_in(usage.get("completion_tokens"))
    cached = count_in(object_in(usage.get("prompt_tokens_details")).get("cached_tokens"))
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": answer,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + answer,
    }
