"""Anthropic's Messages requests as OpenAI's chat completions. Pure.

The shapes are those of https://docs.claude.com/en/api/messages. Unknown fields are ignored, and so
are `metadata`, `cache_control` and all else that is about Anthropic's servers alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from router.api.body import json_object, model_of
from router.api.typed import Typed
from router.errors import InvalidRequestError
from router.keep_alive import KeepAlive, keep_alive

Json = dict[str, Any]

BILLING = re.compile(r"^x-anthropic-billing-header:[^\n]*(\n|\Z)", re.MULTILINE)
"""What Claude Code tells Anthropic in its system prompt: it differs with every request, and no
prefix after it would ever be found again."""

BETWEEN_BLOCKS = "\n\n"
"""Engines join parts of a text differently; joined here, they mean the same on all of them."""

MEDIA_TYPE = re.compile(r"image/[a-z0-9.+-]{1,40}")
THINKING = {"enabled": True, "adaptive": True, "between_tools": True, "disabled": False}


@dataclass(frozen=True, slots=True)
class Question:
    """`body` is the chat completion, and `picture` the path of the first picture in the request."""

    body: Json
    model: str
    stream: bool
    keep_alive: KeepAlive | None
    picture: str | None


def question(body: bytes, *, counting: bool = False) -> Question:
    """`counting` is for a request that wants to know no more than how long its prompt is.

    Raises:
        InvalidRequestError: with the path of what is wrong.
        ValueError: a number that JSON has no word for, such as 1e999.
    """
    value = json_object(body)
    model = model_of(value)
    asked = Typed(value)
    turns = list(_turns(asked["messages"]))
    pictures = (block.path for turn in turns for block in _pictures(turn.blocks))
    stays, picture = keep_alive(value), next(pictures, None)
    if not counting and turns[-1].role != "user":
        raise turns[-1].wrong(
            "the last message must be the user's: no answer is begun for a model."
        )
    tools = _tools(asked)
    translated: Json = {
        "model": model,
        "messages": [*_system(asked["system"]), *_messages(turns)],
        **({"tools": tools} if tools else {}),
        **_thinking(asked["thinking"]),
    }
    choice = _tool_choice(asked["tool_choice"], tools)
    if counting:
        return Question(translated, model, False, stays, picture)
    stream = asked["stream"].flag()
    translated |= choice | _sampling(asked) | _format(asked)
    translated["max_tokens"] = asked["max_tokens"].integer(1)
    if stream:
        translated |= {"stream": True, "stream_options": {"include_usage": True}}
    return Question(translated, model, stream, stays, picture)


# Messages


@dataclass(frozen=True, slots=True)
class _Turn:
    role: str
    blocks: list[Typed]
    path: str

    def wrong(self, what: str) -> InvalidRequestError:
        return Typed(None, self.path).wrong(what)


def _turns(messages: Typed) -> Iterator[_Turn]:
    """Messages of one role in a row are one: Anthropic does it, and templates refuse them."""
    turn: _Turn | None = None
    for message in messages.items():
        role = message.object()["role"].one_of("user", "assistant", "system")
        blocks = list(_blocks(message["content"]))
        if role == "user" and not blocks:
            raise message["content"].wrong("must not be empty.")
        if role == "system":
            role, blocks = "user", [_reminder(block) for block in blocks]
        if turn and turn.role == role:
            turn.blocks.extend(blocks)
            continue
        if turn:
            yield turn
        turn = _Turn(role, blocks, message.path)
    if turn is None:
        raise messages.wrong("must have at least one message.")
    yield turn


def _reminder(block: Typed) -> Typed:
    """Templates refuse a system's message that is not the first; coding agents mark such words in
    a user's turn like this."""
    text = f"<system-reminder>\n{_text(block)}\n</system-reminder>"
    return Typed({"type": "text", "text": text}, block.path)


def _blocks(content: Typed) -> Iterator[Typed]:
    """The blocks of a content, which may be a text alone. Each has a `type`."""
    if isinstance(content.value, str):
        if content.value:
            yield Typed({"type": "text", "text": content.value}, content.path)
        return
    for block in content.items():
        block.object()["type"].name()
        yield block


def _pictures(blocks: Iterable[Typed]) -> Iterator[Typed]:
    for block in blocks:
        if block.value["type"] == "image":
            yield block
        elif block.value["type"] == "tool_result" and isinstance(block.value.get("content"), list):
            yield from _pictures(_blocks(block["content"]))


def _system(system: Typed) -> Iterator[Json]:
    if system.missing:
        return
    texts = [BILLING.sub("", _text(block)) for block in _blocks(system)]
    if text := BETWEEN_BLOCKS.join(filter(None, texts)):
        yield {"role": "system", "content": text}


def _text(block: Typed) -> str:
    block["type"].one_of("text")
    return block["text"].text()


def _messages(turns: Iterable[_Turn]) -> Iterator[Json]:
    for turn in turns:
        yield from _user(turn.blocks) if turn.role == "user" else _assistant(turn.blocks)


def _user(blocks: list[Typed]) -> Iterator[Json]:
    """Results first: templates expect them right behind the calls, as Anthropic does."""
    results = [block for block in blocks if block.value["type"] == "tool_result"]
    others = [block for block in blocks if block.value["type"] != "tool_result"]
    for block in results:
        yield {
            "role": "tool",
            "tool_call_id": block["tool_use_id"].name(),
            "content": _result(block),
        }
    if others:
        yield {"role": "user", "content": _content(others)}


def _result(block: Typed) -> str | list[Json]:
    content = "" if block["content"].missing else _content(list(_blocks(block["content"])))
    if block["is_error"].flag() and isinstance(content, str):
        # No template has a word for it.
        return content if content.lower().startswith("error") else f"Error: {content}"
    return content


def _content(blocks: list[Typed]) -> str | list[Json]:
    """One text where there are only texts: not every engine takes parts."""
    parts = [_part(block) for block in blocks]
    if all(part["type"] == "text" for part in parts):
        return BETWEEN_BLOCKS.join(part["text"] for part in parts if part["text"])
    return parts


def _part(block: Typed) -> Json:
    read = PARTS.get(block.value["type"])
    if read is None:
        known = ", ".join(PARTS)
        raise block["type"].wrong(f"no model here reads this; known are {known}, tool_result.")
    return read(block)


def _text_part(block: Typed) -> Json:
    return {"type": "text", "text": block["text"].text()}


def _image_part(block: Typed) -> Json:
    source = block["source"].object()
    if source["type"].name() != "base64":
        raise source["type"].wrong(
            'pictures are taken as "base64" data only; nothing is fetched and nothing is stored.'
        )
    if not MEDIA_TYPE.fullmatch(source["media_type"].text()):
        raise source["media_type"].wrong('must be the type of a picture, such as "image/png".')
    url = f"data:{source['media_type'].text()};base64,{source['data'].name()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _document_part(block: Typed) -> Json:
    source = block["source"].object()
    if source["type"].name() != "text":
        raise source["type"].wrong('documents are taken as "text" only: no model here reads files.')
    return {"type": "text", "text": source["data"].text()}


def _search_result_part(block: Typed) -> Json:
    texts = [_text(part) for part in _blocks(block["content"])]
    return {"type": "text", "text": BETWEEN_BLOCKS.join([block["title"].text(), *texts])}


def _tool_reference_part(block: Typed) -> Json:
    return {"type": "text", "text": f"The tool {block['tool_name'].name()} can be called."}


PARTS: Mapping[str, Callable[[Typed], Json]] = {
    "text": _text_part,
    "image": _image_part,
    "document": _document_part,
    "search_result": _search_result_part,
    "tool_reference": _tool_reference_part,
}


def _assistant(blocks: list[Typed]) -> Iterator[Json]:
    thoughts, texts, calls = [], [], []
    for block in blocks:
        match block.value["type"]:
            case "text":
                texts.append(block["text"].text())
            case "thinking":
                thoughts.append(block["thinking"].text())
            case "redacted_thinking":
                pass  # Only Anthropic can read it.
            case "tool_use":
                calls.append(_call(block))
            case _:
                raise block["type"].wrong("is nothing that an assistant's message may have here.")
    yield {
        "role": "assistant",
        "content": BETWEEN_BLOCKS.join(filter(None, texts)),
        **({"reasoning_content": BETWEEN_BLOCKS.join(thoughts)} if thoughts else {}),
        **({"tool_calls": calls} if calls else {}),
    }


def _call(block: Typed) -> Json:
    arguments = json.dumps(block["input"].object().value, ensure_ascii=False, allow_nan=False)
    function = {"name": block["name"].name(), "arguments": arguments}
    return {"id": block["id"].name(), "type": "function", "function": function}


# Tools


def _tools(asked: Typed) -> list[Json]:
    """In their order. None, if none may be called: not every engine keeps that otherwise."""
    if asked["tools"].missing:
        return []
    tools = [_tool(tool.object()) for tool in asked["tools"].items()]
    names = [tool["function"]["name"] for tool in tools]
    if double := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise asked["tools"].wrong(f"two of them have the name {double[:100]!r}.")
    choice = asked["tool_choice"].value
    return [] if isinstance(choice, dict) and choice.get("type") == "none" else tools


def _tool(tool: Typed) -> Json:
    if tool.value.get("type") not in (None, "custom"):
        raise tool["type"].wrong(
            "tools of Anthropic's own are not here; declare the tool with an `input_schema`."
        )
    function: Json = {"name": tool["name"].name()}
    if not tool["description"].missing:
        function["description"] = tool["description"].text()
    function["parameters"] = tool["input_schema"].object().value
    return {"type": "function", "function": function}


def _tool_choice(choice: Typed, tools: list[Json]) -> Json:
    if choice.missing:
        return {}
    kind = choice.object()["type"].one_of("auto", "any", "tool", "none")
    if kind == "none":
        return {}
    if not tools:
        raise choice.wrong("needs `tools`.")
    single = choice["disable_parallel_tool_use"].flag()
    return {
        "tool_choice": _named(choice["name"], tools) if kind == "tool" else CHOICES[kind],
        **({"parallel_tool_calls": False} if single else {}),
    }


CHOICES = {"auto": "auto", "any": "required"}


def _named(name: Typed, tools: list[Json]) -> Json:
    if name.name() not in (tool["function"]["name"] for tool in tools):
        raise name.wrong("is the name of none of the `tools`.")
    return {"type": "function", "function": {"name": name.value}}


# The rest


def _thinking(thinking: Typed) -> Json:
    """Templates that know the switch have it by this name; llama.cpp keeps the budget, too."""
    if thinking.missing:
        return {}
    enabled = THINKING[thinking.object()["type"].one_of(*THINKING)]
    budget = thinking["budget_tokens"]
    kept = {} if budget.missing else {"thinking_budget_tokens": budget.integer(0)}
    return {"chat_template_kwargs": {"enable_thinking": enabled}, **(kept if enabled else {})}


def _sampling(asked: Typed) -> Json:
    sampling: Json = {
        name: asked[name].number() for name in ("temperature", "top_p") if not asked[name].missing
    }
    if not asked["top_k"].missing:
        sampling["top_k"] = asked["top_k"].integer(0)
    if not asked["stop_sequences"].missing:
        sampling["stop"] = [stop.name() for stop in asked["stop_sequences"].items()]
    return sampling


def _format(asked: Typed) -> Json:
    """The form that the answer must have."""
    config = asked["output_config"]
    wanted = asked["output_format"] if config.missing else config.object()["format"]
    if wanted.missing:
        return {}
    wanted.object()["type"].one_of("json_schema")
    schema = {"name": "answer", "schema": wanted["schema"].object().value, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}
