"""How a model writes what is not plain text: reasoning and tool calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backends.wire.answer_parser import AnswerParser, Parser, ReasoningFormat
from backends.wire.calls import ToolFormat, Tools
from backends.wire.harmony import HarmonyParser
from backends.wire.json_calls import deepseek, hermes, llama3, mistral
from backends.wire.request import GenerationRequest
from backends.wire.xml_calls import qwen3_coder

Format = Callable[[Tools], ToolFormat]

HARMONY = ("<|start|>", "<|channel|>", "<|message|>")

MARKERS: tuple[tuple[tuple[str, ...], Format], ...] = (
    (("<｜tool▁call▁begin｜>",), deepseek),
    (("<tool_call>\n<function=",), qwen3_coder),
    (("<tool_call>\\n<function=",), qwen3_coder),
    (("[TOOL_CALLS]",), mistral),
    (("<|start_header_id|>ipython<|end_header_id|>",), llama3),
    (("<|python_tag|>", '"parameters"'), llama3),
    (("<tool_call>",), hermes),
)
"""What a chat template says that teaches a model to write calls in one way: the first whose texts
are all in it."""

OTHERS = ("<arg_key>", "<minimax:tool_call>", "<function=")
"""Ways that have `<tool_call>` or the like in common with one above and are not it."""

THOUGHTS = tuple(
    ReasoningFormat(start, end)
    for start, end in (
        ("<think>", "</think>"),
        ("[THINK]", "[/THINK]"),
        ("<seed:think>", "</seed:think>"),
    )
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """`tools` gives the format of a request's tools; None: the model calls none."""

    reasoning: ReasoningFormat | None = None
    tools: Format | None = None
    harmony: bool = False

    @property
    def calls(self) -> bool:
        """Whether the model calls tools in a way that we read."""
        return self.harmony or self.tools is not None

    def parser(self, request: GenerationRequest, prompt_end: str) -> Parser:
        """Of the answer to a prompt that ends like this."""
        if not request.chat:
            return AnswerParser()
        if self.harmony:
            return HarmonyParser(request.tools)
        reasoning = self.reasoning
        opened = reasoning is not None and prompt_end.rstrip().endswith(reasoning.start)
        return AnswerParser(
            tools=self.tools(request.tools) if self.tools and request.tools else None,
            reasoning=reasoning,
            reasoning_open=opened,
        )


def dialect_of(template: str) -> Dialect:
    """Told from the chat template's text alone."""
    if all(marker in template for marker in HARMONY):
        return Dialect(harmony=True)
    return Dialect(reasoning_of(template), format_of(template))


def reasoning_of(template: str) -> ReasoningFormat | None:
    return next((thought for thought in THOUGHTS if thought.end in template), None)


def format_of(template: str) -> Format | None:
    for markers, known in MARKERS:
        if all(marker in template for marker in markers):
            return None if known is hermes and any(o in template for o in OTHERS) else known
    return None
