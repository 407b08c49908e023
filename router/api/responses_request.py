"""Requests for OpenAI's Responses as chat completions. Pure.

The shapes are those of https://platform.openai.com/docs/api-reference/responses/create. Unknown
fields are ignored, and so is what is about OpenAI's servers alone (`service_tier`, `truncation`,
`prompt_cache_key`, `include` of what can be read there only).
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backends.wire.request import thinking
from router.api.body import json_object, model_of
from router.api.conversations import Conversation
from router.api.told import arguments_in
from router.api.typed import Typed
from router.keep_alive import KeepAlive, keep_alive

Json = dict[str, Any]
Past = Callable[[str], Conversation]
"""The conversation up to the response of an id; raises RouterError where there is none."""

NOTHING = Conversation({}, (), 0)

BETWEEN_PARTS = "\n\n"
EFFORTS = ("minimal", "low", "medium", "high", "xhigh")
MAX_METADATA = 16

ELSEWHERE: Mapping[str, str] = {
    "background": "answers are not made in the background here.",
    "conversation": "conversations are not kept; use `previous_response_id`.",
    "prompt": "there are no stored prompts here; send the text.",
    "top_logprobs": "is told at /v1/chat/completions only.",
}
"""What would change the answer, and is not done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """`body` is the chat completion; `items` all that was said so far, of about `nbytes`, and
    `head` what the response tells of the request."""

    model: str
    stream: bool
    keep_alive: KeepAlive | None
    picture: str | None
    body: Json
    items: tuple[Json, ...]
    nbytes: int
    head: Json

    @property
    def store(self) -> bool:
        return bool(self.head["store"])


def question(body: bytes, past: Past) -> Question:
    """
    Raises:
        InvalidRequestError: with the path of what is wrong.
        RouterError: whatever `past` raises.
        ValueError, RecursionError: something that can be read and not written.
    """
    value = json_object(body)
    model = model_of(value)
    asked = Typed(value)
    _refuse(asked)
    identity = asked["previous_response_id"]
    before = NOTHING if identity.missing else past(identity.name())
    items = _Items()
    if not asked["instructions"].missing:
        items.say("system", asked["instructions"].text())
    for item in Typed(list(before.items), "previous_response_id").items():
        items.add(item)
    added = _input(asked["input"])
    for item in added.items():
        items.add(item)
    messages = list(_turns(items.messages))
    if not messages or messages[-1]["role"] in ("assistant", "system"):
        raise asked["input"].wrong(
            "must end with something that the user or a tool says: no answer is begun for a model."
        )
    stream, tools = asked["stream"].flag(), _tools(asked["tools"])
    translated = {
        "model": model,
        "messages": messages,
        **_calling(asked, tools),
        **_thinking(asked["reasoning"]),
        **_sampling(asked),
        **_format(asked["text"]),
        **({"stream": True, "stream_options": {"include_usage": True}} if stream else {}),
    }
    return Question(
        model=model,
        stream=stream,
        keep_alive=keep_alive(value),
        picture=items.picture,
        body=translated,
        items=(*before.items, *added.value),
        nbytes=before.nbytes + len(body),
        head=_head(asked, model),
    )


def _refuse(asked: Typed) -> None:
    for name, why in ELSEWHERE.items():
        if asked[name].value:
            raise asked[name].wrong(why)
    for wanted in [] if asked["include"].missing else asked["include"].items():
        if wanted.text() == "message.output_text.logprobs":
            raise wanted.wrong(ELSEWHERE["top_logprobs"])


def _input(given: Typed) -> Typed:
    """A list of items; a text is what the user says."""
    if isinstance(given.value, str):
        return Typed([{"role": "user", "content": given.name()}], given.path)
    return given


# Items


class _Items:
    """Items as messages, as they are read."""

    def __init__(self) -> None:
        self.messages: list[Json] = []
        self.picture: str | None = None
        self._calls: set[str] = set()

    def add(self, item: Typed) -> None:
        kind = "message" if item.object()["type"].missing else item["type"].text()
        read = ITEMS.get(kind)
        if read is None:
            raise item["type"].wrong(f"no model here reads this; known are {', '.join(ITEMS)}.")
        read(self, item)

    def say(self, role: str, content: Any, **more: Any) -> None:
        self.messages.append({"role": role, "content": content, **more})

    def message(self, item: Typed) -> None:
        role = item["role"].one_of("user", "assistant", "system", "developer")
        content = self._content(item["content"])
        self.say("system" if role == "developer" else role, content)

    def call(self, item: Typed) -> None:
        """Arguments may have been cut off: agents send such a call again, with what was wrong.
        Of the engines, llama.cpp fails at what is no JSON."""
        identity, arguments = item["call_id"].name(), item["arguments"].text()
        self._calls.add(identity)
        whole = arguments and arguments_in(arguments) is not None
        function = {"name": item["name"].name(), "arguments": arguments if whole else "{}"}
        call = {"id": identity, "type": "function", "function": function}
        self.say("assistant", "", tool_calls=[call])

    def result(self, item: Typed) -> None:
        identity = item["call_id"].name()
        if identity not in self._calls:
            raise item["call_id"].wrong("is the id of no call before it.")
        self.say("tool", self._content(item["output"]), tool_call_id=identity)

    def thought(self, item: Typed) -> None:
        """What is encrypted only OpenAI can read."""
        whole = [] if item["content"].missing else list(item["content"].items())
        short = [] if item["summary"].missing else list(item["summary"].items())
        texts = [part.object()["text"].text() for part in whole or short]
        if texts:
            self.say("assistant", "", reasoning_content=BETWEEN_PARTS.join(texts))

    def _content(self, content: Typed) -> str | list[Json]:
        """One text where there are only texts: not every engine takes parts."""
        if isinstance(content.value, str):
            return content.value
        parts = [self._part(part.object()) for part in content.items()]
        if all(part["type"] == "text" for part in parts):
            return BETWEEN_PARTS.join(part["text"] for part in parts)
        return parts

    def _part(self, part: Typed) -> Json:
        match part["type"].name():
            case "input_text" | "output_text" | "text":
                return {"type": "text", "text": part["text"].text()}
            case "refusal":
                return {"type": "text", "text": part["refusal"].text()}
            case "input_image":
                return self._image(part)
            case _:
                raise part["type"].wrong("no model here reads this.")

    def _image(self, part: Typed) -> Json:
        url = part["image_url"].name()
        if not url.startswith("data:"):
            raise part["image_url"].wrong("pictures are `data:` URLs only; nothing is fetched.")
        self.picture = self.picture or part.path
        return {"type": "image_url", "image_url": {"url": url}}


ITEMS: Mapping[str, Callable[[_Items, Typed], None]] = {
    "message": _Items.message,
    "function_call": _Items.call,
    "function_call_output": _Items.result,
    "reasoning": _Items.thought,
}


def _turns(messages: Iterable[Json]) -> Iterator[Json]:
    """Messages of one role in a row are one: a thought, a text and calls are one turn's items, and
    templates refuse two turns of one role."""
    for role, turn in itertools.groupby(messages, key=lambda message: message["role"]):
        if role == "tool":
            yield from turn
        else:
            yield _turn(role, list(turn))


def _turn(role: str, messages: list[Json]) -> Json:
    thoughts = [
        message["reasoning_content"] for message in messages if "reasoning_content" in message
    ]
    calls = [call for message in messages for call in message.get("tool_calls", ())]
    return {
        "role": role,
        "content": _contents([message["content"] for message in messages]),
        **({"reasoning_content": BETWEEN_PARTS.join(thoughts)} if thoughts else {}),
        **({"tool_calls": calls} if calls else {}),
    }


def _contents(contents: list[str | list[Json]]) -> str | list[Json]:
    if all(isinstance(content, str) for content in contents):
        return BETWEEN_PARTS.join(str(content) for content in contents if content)
    return [part for content in contents for part in _parts(content)]


def _parts(content: str | list[Json]) -> list[Json]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []


# Tools


def _tools(tools: Typed) -> list[Json]:
    if tools.missing:
        return []
    read = [_tool(tool.object()) for tool in tools.items()]
    for name, count in Counter(tool["function"]["name"] for tool in read).items():
        if count > 1:
            raise tools.wrong(f"{count} of them have the name {name[:100]!r}.")
    return read


def _tool(tool: Typed) -> Json:
    if tool["type"].name() != "function":
        raise tool["type"].wrong("only functions are here: nothing is run for a model.")
    function: Json = {"name": tool["name"].name()}
    if not tool["description"].missing:
        function["description"] = tool["description"].text()
    if not tool["parameters"].missing:
        function["parameters"] = tool["parameters"].object().value
    return {"type": "function", "function": function}


def _calling(asked: Typed, tools: list[Json]) -> Json:
    """The tools are left out if none may be called: not every engine keeps that otherwise."""
    choice = asked["tool_choice"]
    single = not asked["parallel_tool_calls"].missing and not asked["parallel_tool_calls"].flag()
    wanted: Any = "auto" if choice.missing else _choice(choice, tools)
    if not tools or wanted == "none":
        return {}
    return {
        "tools": tools,
        **({} if wanted == "auto" else {"tool_choice": wanted}),
        **({"parallel_tool_calls": False} if single else {}),
    }


def _choice(choice: Typed, tools: list[Json]) -> Any:
    if isinstance(choice.value, str):
        wanted = choice.one_of("auto", "none", "required")
        if wanted == "required" and not tools:
            raise choice.wrong("needs `tools`.")
        return wanted
    choice.object()["type"].one_of("function")
    name = choice["name"].name()
    if name not in (tool["function"]["name"] for tool in tools):
        raise choice["name"].wrong("is the name of none of the `tools`.")
    return {"type": "function", "function": {"name": name}}


# The rest


def _thinking(reasoning: Typed) -> Json:
    if reasoning.missing or reasoning.object()["effort"].missing:
        return {}
    effort = reasoning["effort"].one_of("none", *EFFORTS)
    return {"chat_template_kwargs": thinking(effort)}


def _sampling(asked: Typed) -> Json:
    sampling: Json = {
        name: asked[name].number() for name in ("temperature", "top_p") if not asked[name].missing
    }
    if not asked["max_output_tokens"].missing:
        sampling["max_tokens"] = asked["max_output_tokens"].integer(1)
    return sampling


def _format(text: Typed) -> Json:
    """The form that the answer must have."""
    if text.missing or text.object()["format"].missing:
        return {}
    wanted = text["format"].object()
    match wanted["type"].one_of("text", "json_object", "json_schema"):
        case "text":
            return {}
        case "json_object":
            return {"response_format": {"type": "json_object"}}
    strict = not wanted["strict"].missing and wanted["strict"].flag()
    schema = {
        "name": wanted["name"].name(),
        "schema": wanted["schema"].object().value,
        "strict": strict,
    }
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _head(asked: Typed, model: str) -> Json:
    """What a response tells of its request. Raises ValueError or RecursionError for what can be
    read and not written."""
    value: Json = asked.value
    head = {
        "model": model,
        "instructions": value.get("instructions"),
        "max_output_tokens": value.get("max_output_tokens"),
        "metadata": _metadata(asked["metadata"]),
        "parallel_tool_calls": asked["parallel_tool_calls"].missing
        or asked["parallel_tool_calls"].flag(),
        "previous_response_id": value.get("previous_response_id"),
        "reasoning": value.get("reasoning") or {"effort": None, "summary": None},
        "store": asked["store"].missing or asked["store"].flag(),
        "temperature": value.get("temperature"),
        "text": value.get("text") or {"format": {"type": "text"}},
        "tool_choice": value.get("tool_choice") or "auto",
        "tools": value.get("tools") or [],
        "top_p": value.get("top_p"),
        "truncation": "disabled",
    }
    json.dumps(head, allow_nan=False)
    return head


def _metadata(metadata: Typed) -> Json:
    if metadata.missing:
        return {}
    told: Json = metadata.object().value
    if len(told) > MAX_METADATA:
        raise metadata.wrong(f"may have at most {MAX_METADATA} entries.")
    _all_texts(metadata, told)
    return told


def _all_texts(metadata: Typed, names: Iterable[str]) -> None:
    for name in names:
        metadata[name].text()
