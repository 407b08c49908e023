"""Ollama's requests as OpenAI's completions. Pure.

The shapes are those of https://github.com/ollama/ollama/blob/main/docs/api.md and of its Go and
Python clients. Unknown fields are ignored, and so are the options that say how a model is loaded or
computed (`num_ctx`, `num_gpu`, `num_thread`, …): one instance answers all clients, and the daemon
decides how. The samplers that not every engine has (`mirostat`, `typical_p`, `tfs_z`,
`repeat_last_n`) are ignored, as Ollama's own engine does with most of them.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from backends.wire.request import CHAT_PATH, TEXT_PATH, thinking
from router.api.body import json_object, model_of
from router.api.typed import Typed
from router.keep_alive import KeepAlive, keep_alive

Json = dict[str, Any]

PICTURES: Mapping[bytes, str] = {
    b"\x89PNG": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
    b"BM": "image/bmp",
}
"""By how the bytes begin: Ollama's clients send pictures without their type."""

EFFORTS = ("low", "medium", "high")
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Question:
    """`body` is for the engine's `path`; None where the request is about the model's stay alone,
    which Ollama says by an empty prompt."""

    model: str
    stream: bool
    keep_alive: KeepAlive | None
    body: Json | None
    path: str = CHAT_PATH
    picture: str | None = None


def chat(body: bytes) -> Question:
    """
    Raises:
        InvalidRequestError: with the path of what is wrong.
    """
    value = json_object(body)
    asked = Typed(value)
    model, stays = model_of(value), keep_alive(value)
    if asked["messages"].missing or asked["messages"].value == []:
        return Question(model, False, stays, None)
    messages = _Messages()
    for message in asked["messages"].items():
        messages.add(message.object())
    if messages.read[-1]["role"] in ("assistant", "system"):
        raise asked["messages"].wrong(
            "must end with the user's or a tool's: no answer is begun for a model."
        )
    tools = _tools(asked["tools"])
    question = {
        "model": model,
        "messages": messages.read,
        **({"tools": tools} if tools else {}),
        **_thinking(asked["think"]),
        **_rest(asked),
    }
    return Question(model, _streamed(asked), stays, question, CHAT_PATH, messages.picture)


def generate(body: bytes) -> Question:
    """Raises as `chat` does."""
    value = json_object(body)
    asked = Typed(value)
    model, stays = model_of(value), keep_alive(value)
    if not _optional(asked["prompt"]):
        return Question(model, False, stays, None)
    _refuse(asked)
    if asked["raw"].flag():
        question = {"model": model, "prompt": asked["prompt"].text(), **_rest(asked)}
        return Question(model, _streamed(asked), stays, question, TEXT_PATH)
    messages = _Messages()
    if system := _optional(asked["system"]):
        messages.read.append({"role": "system", "content": system})
    content = messages.content(asked["prompt"], asked["images"])
    messages.read.append({"role": "user", "content": content})
    question = {
        "model": model,
        "messages": messages.read,
        **_thinking(asked["think"]),
        **_rest(asked),
    }
    return Question(model, _streamed(asked), stays, question, CHAT_PATH, messages.picture)


def _streamed(asked: Typed) -> bool:
    """Ollama streams unless it is told not to."""
    return asked["stream"].missing or asked["stream"].flag()


def _optional(text: Typed) -> str:
    return "" if text.missing else text.text()


def _refuse(asked: Typed) -> None:
    """What would change the answer, and cannot be done."""
    if asked["suffix"].value:
        raise asked["suffix"].wrong("no text is filled in between others here.")
    if asked["template"].value:
        raise asked["template"].wrong("a model is asked with its own template; see also `raw`.")
    if asked["context"].value:
        raise asked["context"].wrong(
            "nothing is kept between requests; send the whole conversation to /api/chat."
        )
    if asked["raw"].flag():
        for name in ("system", "images", "think", "logprobs"):
            if asked[name].value:
                raise asked[name].wrong("is nothing that goes with `raw`.")


# Messages


class _Messages:
    """Messages as they are read. Ollama's calls have no ids, and results name the function."""

    def __init__(self) -> None:
        self.read: list[Json] = []
        self.picture: str | None = None
        self._calls = 0
        self._open: OrderedDict[str, str] = OrderedDict()
        self._open_of: defaultdict[str, OrderedDict[str, None]] = defaultdict(OrderedDict)

    def add(self, message: Typed) -> None:
        role = message["role"].one_of(*ROLES)
        said: Json = {"role": role, "content": self.content(message["content"], message["images"])}
        if role == "assistant":
            said |= self._assistant(message)
        if role == "tool":
            said["tool_call_id"] = self._answered(message)
        self.read.append(said)

    def content(self, text: Typed, images: Typed) -> str | list[Json]:
        """A text alone where there are no pictures: not every engine takes parts."""
        words = _optional(text)
        pictures = [] if images.missing else list(images.items())
        if not pictures:
            return words
        self.picture = self.picture or pictures[0].path
        parts = [{"type": "text", "text": words}] if words else []
        return [*parts, *({"type": "image_url", "image_url": _image(one)} for one in pictures)]

    def _assistant(self, message: Typed) -> Json:
        thought, calls = _optional(message["thinking"]), message["tool_calls"]
        made = [] if calls.missing else [self._call(call.object()) for call in calls.items()]
        return {
            **({"reasoning_content": thought} if thought else {}),
            **({"tool_calls": made} if made else {}),
        }

    def _call(self, call: Typed) -> Json:
        function = call["function"].object()
        name, given = function["name"].name(), function["arguments"]
        arguments = "{}" if given.missing else json.dumps(given.object().value, ensure_ascii=False)
        self._calls += 1
        identity = _optional(call["id"]) or f"call_{self._calls}"
        self._open[identity] = name
        self._open_of[name][identity] = None
        function_called = {"name": name, "arguments": arguments}
        return {"id": identity, "type": "function", "function": function_called}

    def _answered(self, message: Typed) -> str:
        """The call that a result is of: by its id, else the first open one of its function, else
        the first open one."""
        identity = _optional(message["tool_call_id"])
        if not identity:
            name = _optional(message["tool_name"]) or _optional(message["name"])
            identity = next(iter(self._open_of.get(name) or self._open), "")
        if not identity:
            raise message["role"].wrong('a "tool" message must follow the call that it answers.')
        self._open_of[self._open.pop(identity, "")].pop(identity, None)
        return identity


def _image(picture: Typed) -> Json:
    try:
        data = binascii.a2b_base64(picture.name().encode(), strict_mode=True)
    except (ValueError, binascii.Error):
        raise picture.wrong("pictures are taken as base64 only; nothing is fetched.") from None
    kind = next((kind for begin, kind in PICTURES.items() if data.startswith(begin)), None)
    if kind is None:
        raise picture.wrong("is no PNG, JPEG, GIF, WebP or BMP.")
    return {"url": f"data:{kind};base64,{base64.b64encode(data).decode()}"}


def _tools(tools: Typed) -> list[Json]:
    return [] if tools.missing else [_tool(tool.object()) for tool in tools.items()]


def _tool(tool: Typed) -> Json:
    function = tool["function"].object()
    function["name"].name()
    if not function["parameters"].missing:
        function["parameters"].object()
    return {"type": "function", "function": function.value}


# The rest


def _thinking(think: Typed) -> Json:
    if think.missing:
        return {}
    if isinstance(think.value, str):
        effort = think.one_of(*EFFORTS)
        return {"chat_template_kwargs": thinking(effort)}
    return {"chat_template_kwargs": {"enable_thinking": think.flag()}}


def _rest(asked: Typed) -> Json:
    question = {**_sampling(asked["options"]), **_format(asked["format"])}
    if asked["logprobs"].flag():
        question["logprobs"] = True
        if not asked["top_logprobs"].missing:
            question["top_logprobs"] = asked["top_logprobs"].integer(0)
    if _streamed(asked):
        question |= {"stream": True, "stream_options": {"include_usage": True}}
    return question


def _format(wanted: Typed) -> Json:
    """The form that the answer must have: "json", or a schema."""
    if wanted.missing or wanted.value == "":
        return {}
    if isinstance(wanted.value, str):
        wanted.one_of("json")
        return {"response_format": {"type": "json_object"}}
    schema = {"name": "answer", "schema": wanted.object().value, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _sampling(options: Typed) -> Json:
    if options.missing:
        return {}
    given = ((read, options.object()[name]) for name, read in OPTIONS.items())
    return {
        name: value
        for read, option in given
        if not option.missing
        for name, value in read(option).items()
    }


def _number(name: str) -> Callable[[Typed], Json]:
    return lambda option: {name: option.number()}


def _limit(option: Typed) -> Json:
    """-1 is without a limit, -2 until the context is full."""
    tokens = option.integer(-2)
    return {"max_tokens": tokens} if tokens > 0 else {}


def _seed(option: Typed) -> Json:
    """Negative is at random."""
    seed = option.integer(-(2**63))
    return {"seed": seed} if seed >= 0 else {}


def _stop(option: Typed) -> Json:
    if isinstance(option.value, str):
        return {"stop": [option.value]} if option.value else {}
    return {"stop": [stop.name() for stop in option.items()]}


OPTIONS: Mapping[str, Callable[[Typed], Json]] = {
    "num_predict": _limit,
    "temperature": _number("temperature"),
    "top_k": lambda option: {"top_k": option.integer(-1)},
    "top_p": _number("top_p"),
    "min_p": _number("min_p"),
    "seed": _seed,
    "stop": _stop,
    "repeat_penalty": _number("repeat_penalty"),
    "presence_penalty": _number("presence_penalty"),
    "frequency_penalty": _number("frequency_penalty"),
}
"""What Ollama's `options` are in OpenAI's terms."""
