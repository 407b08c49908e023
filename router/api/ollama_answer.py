"""An engine's completion as an answer of Ollama's `/api/chat` or `/api/generate`. Pure, but for the
time.

The objects are those of https://github.com/ollama/ollama/blob/main/docs/api.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from router.api.ollama_error import ollama_error
from router.api.stopwatch import Stopwatch
from router.api.told import arguments_in, count_in, first_choice, list_in, object_in, text_in
from router.errors import EngineFailedError, RouterError

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Voice:
    """How one answer is told: as the message of a chat, or as a response to a prompt."""

    model: str
    chat: bool

    def said(self, text: str, thought: str = "", calls: list[Json] | None = None) -> Json:
        thinking = {"thinking": thought} if thought else {}
        if not self.chat:
            return {**self._head(), "response": text, **thinking}
        called = {"tool_calls": calls} if calls else {}
        message = {"role": "assistant", "content": text, **thinking, **called}
        return {**self._head(), "message": message}

    def _head(self) -> Json:
        return {"model": self.model, "created_at": timestamp(datetime.now(UTC))}


def timestamp(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def whole(answer: Json, voice: Voice, watch: Stopwatch) -> Json:
    choice = first_choice(answer)
    said = object_in(choice.get("message"))
    told = voice.said(
        text_in(said.get("content")) or text_in(choice.get("text")),
        text_in(said.get("reasoning_content")),
        [call for one in list_in(said.get("tool_calls")) if (call := _call(object_in(one)))],
    )
    return {**told, **_likelihoods(choice), **_end(choice, answer, watch)}


class LineStream:
    """The lines of one answer. A call is told when it is complete, as Ollama does."""

    content_type = b"application/x-ndjson"

    def __init__(self, voice: Voice, watch: Stopwatch) -> None:
        self._voice = voice
        self._watch = watch
        self._index: Any = None
        self._call: Json | None = None
        self._arguments: list[str] = []
        self._end: Json | None = None
        self._counts: Json = {}

    def add(self, chunk: Json) -> Iterator[bytes]:
        self._counts |= {name: chunk[name] for name in ("usage", "timings") if chunk.get(name)}
        choice = first_choice(chunk)
        delta = object_in(choice.get("delta"))
        text = text_in(delta.get("content")) or text_in(choice.get("text"))
        thought = text_in(delta.get("reasoning_content"))
        if text or thought:
            self._watch.spoke()
            said = {**self._voice.said(text, thought), **_likelihoods(choice)}
            yield _line({**said, "done": False})
        for call in list_in(delta.get("tool_calls")):
            self._watch.spoke()
            yield from self._piece(object_in(call))
        if choice.get("finish_reason"):
            yield from self._called()
            self._end = choice

    def finish(self) -> Iterator[bytes]:
        if self._end is None:
            raise EngineFailedError("The engine's answer broke off in the middle.")
        yield _line({**self._voice.said(""), **_end(self._end, self._counts, self._watch)})

    def wait(self) -> Iterator[bytes]:
        """Ollama has nothing for it, and its clients wait."""
        yield from ()

    def fail(self, error: RouterError) -> Iterator[bytes]:
        yield _line(ollama_error(error))

    def _piece(self, call: Json) -> Iterator[bytes]:
        """The first piece of each call has its name."""
        index, function = call.get("index", 0), object_in(call.get("function"))
        if self._call is None or index != self._index:
            yield from self._called()
            if not text_in(function.get("name")):
                raise EngineFailedError("The engine went back to a call that had ended.")
            self._index, self._call = index, call
        self._arguments.append(text_in(function.get("arguments")))

    def _called(self) -> Iterator[bytes]:
        if self._call is None:
            return
        function = {**object_in(self._call["function"]), "arguments": "".join(self._arguments)}
        call = _call({**self._call, "function": function})
        self._call, self._arguments = None, []
        if call is not None:
            yield _line({**self._voice.said("", calls=[call]), "done": False})


def _line(value: Json) -> bytes:
    """JSON has no line end of its own in it."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _call(call: Json) -> Json | None:
    """None for a call that was cut off: nobody should act on half of one."""
    function = object_in(call.get("function"))
    name, arguments = text_in(function.get("name")), arguments_in(function.get("arguments"))
    if not name or arguments is None:
        return None
    identity = {"id": call["id"]} if text_in(call.get("id")) else {}
    return {**identity, "function": {"name": name, "arguments": arguments}}


def _likelihoods(choice: Json) -> Json:
    """Ollama has OpenAI's objects for them."""
    told = list_in(object_in(choice.get("logprobs")).get("content"))
    return {"logprobs": told} if told else {}


def _end(choice: Json, answer: Json, watch: Stopwatch) -> Json:
    usage = object_in(answer.get("usage"))
    return {
        "done": True,
        "done_reason": "length" if choice.get("finish_reason") == "length" else "stop",
        **watch.durations(object_in(answer.get("timings"))),
        "prompt_eval_count": count_in(usage.get("prompt_tokens")),
        "eval_count": count_in(usage.get("completion_tokens")),
    }
