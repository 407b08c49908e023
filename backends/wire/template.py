"""Chat templates for the engines whose own rendering loses something: as transformers does it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backends.errors import BadRequestError
from backends.wire import sandbox
from backends.wire.request import GenerationRequest, Json

OURS = frozenset({"messages", "tools", "add_generation_prompt"})
"""What a request's `chat_template_kwargs` may not set."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """One model's templates by name, and the special tokens (`bos_token`, …) they may mention.

    Templates come with the model and are not trusted: they run in a sandbox without access to
    anything but the request.
    """

    templates: Mapping[str, str]
    tokens: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return "\n".join(self.templates.values())

    def render(self, request: GenerationRequest) -> str:
        """
        Raises:
            BadRequestError: there is no template, or it refuses these messages.
        """
        arguments = {**request.template_arguments}
        if own := OURS.intersection(arguments):
            name = f"chat_template_kwargs.{min(own)}"
            raise BadRequestError(f"`{name}` cannot be set by a request.", param=name)
        source = self._source(tools=bool(request.tools))
        if source is None:
            raise BadRequestError(
                "This model has no chat template: it continues text. Use /v1/completions.",
                param="messages",
            )
        values = {
            **self.tokens,
            **arguments,
            "tools": list(request.tools) or None,
            "add_generation_prompt": True,
        }
        return rendered(
            request.messages,
            lambda messages: sandbox.render(
                source, {**values, "messages": without_nulls(messages)}
            ),
        )

    def _source(self, *, tools: bool) -> str | None:
        names: Sequence[str] = ("tool_use", "default") if tools else ("default",)
        return next((self.templates[name] for name in names if name in self.templates), None)


def rendered(messages: Sequence[Json], render: Callable[[list[Json]], str]) -> str:
    """What `render` makes of the messages; it may raise anything.

    Most templates take the arguments of a call as an object and as a text. Some refuse one of them:
    DeepSeek's first adds them to a text, Qwen3-Coder's and GLM's go through what is in an object.
    Those that do get no JSON get none, since nothing of it can be written in their notation.

    Raises:
        BadRequestError: with the template's own words.
    """
    ways = [list(messages)]
    for change in (_as_text, _as_object):
        changed = [_with_arguments(message, change) for message in messages]
        if changed not in ways:
            ways.append(changed)
    refusals = []
    for way in ways:
        try:
            return render(way)
        except Exception as error:
            # Templates are programs of strangers: whatever they raise is about this request.
            refusals.append(error)
    raise BadRequestError(
        f"The model's chat template refused the messages: {refusals[0]}", param="messages"
    ) from refusals[0]


def _with_arguments(message: Json, change: Callable[[Any], Any]) -> Json:
    calls = message.get("tool_calls")
    if not calls:
        return message
    return {**message, "tool_calls": [_with_changed(call, change) for call in calls]}


def _with_changed(call: Json, change: Callable[[Any], Any]) -> Json:
    function = call["function"]
    return {**call, "function": {**function, "arguments": change(function["arguments"])}}


def _as_text(arguments: Any) -> Any:
    if isinstance(arguments, str):
        return arguments
    return json.dumps(arguments, ensure_ascii=False)


def _as_object(arguments: Any) -> Any:
    return {} if isinstance(arguments, str) else arguments


def without_nulls(messages: Sequence[Json]) -> list[Json]:
    """Templates know what is missing, and write out what is None."""
    return [{k: v for k, v in message.items() if v is not None} for message in messages]


def named(value: Any) -> dict[str, str]:
    """The templates in a `chat_template` entry: one text, or a list of `{name, template}`."""
    if isinstance(value, str) and value:
        return {"default": value}
    entries: list[Any] = value if isinstance(value, list) else []
    found: list[Json] = [entry for entry in entries if isinstance(entry, dict)]
    return {
        str(entry.get("name", "default")): entry["template"]
        for entry in found
        if isinstance(entry.get("template"), str)
    }
