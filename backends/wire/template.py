"""Chat templates for the engines whose own rendering loses something: as transformers does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        try:
            return sandbox.render(
                source,
                {
                    **self.tokens,
                    **arguments,
                    "messages": without_nulls(request.messages),
                    "tools": list(request.tools) or None,
                    "add_generation_prompt": True,
                },
            )
        except Exception as error:
            # Templates are programs of strangers: whatever they raise is about this request.
            raise BadRequestError(
                f"The model's chat template refused the messages: {error}", param="messages"
            ) from error

    def _source(self, *, tools: bool) -> str | None:
        names: Sequence[str] = ("tool_use", "default") if tools else ("default",)
        return next((self.templates[name] for name in names if name in self.templates), None)


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
