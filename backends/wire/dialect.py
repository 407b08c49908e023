"""How a model writes what is not plain text: reasoning and tool calls."""

from __future__ import annotations

from dataclasses import dataclass, replace

from backends.wire.answer_parser import AnswerParser, Parser, ReasoningFormat
from backends.wire.call_grammar import CallFormat
from backends.wire.constraint import Constraint
from backends.wire.harmony import HarmonyParser
from backends.wire.notation import (
    DEEPSEEK,
    DEEPSEEK_FENCED,
    HARMONY_CALLS,
    HERMES,
    LLAMA3,
    MISTRAL,
    MISTRAL_LIST,
    MISTRAL_WITH_ID,
    QWEN3_CODER,
    Notation,
)
from backends.wire.request import GenerationRequest

HARMONY = ("<|start|>", "<|channel|>", "<|message|>")

MARKERS: tuple[tuple[tuple[str, ...], Notation], ...] = (
    (("<｜tool▁call▁begin｜>", "```json"), DEEPSEEK_FENCED),
    (("<｜tool▁call▁begin｜>",), DEEPSEEK),
    (("<tool_call>\n<function=",), QWEN3_CODER),
    (("<tool_call>\\n<function=",), QWEN3_CODER),
    (("[TOOL_CALLS]", "[CALL_ID]"), MISTRAL_WITH_ID),
    (("[TOOL_CALLS]", "[ARGS]"), MISTRAL),
    (("[TOOL_CALLS]",), MISTRAL_LIST),
    (("<|start_header_id|>ipython<|end_header_id|>",), LLAMA3),
    (("<|python_tag|>", '"parameters"'), LLAMA3),
    (("<tool_call>",), HERMES),
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
    """`tools` is how the model writes calls; None: not at all, or in Harmony's own way."""

    reasoning: ReasoningFormat | None = None
    tools: Notation | None = None
    harmony: bool = False

    @property
    def calls(self) -> bool:
        """Whether the model calls tools in a way that we read."""
        return self.written is not None

    @property
    def written(self) -> CallFormat | None:
        """How a call of a tool has to be written; None: the model calls none."""
        if self.harmony:
            return HARMONY_CALLS
        return self.tools.written if self.tools else None

    def demanded(self, request: GenerationRequest) -> Constraint | None:
        """What is left of the request's constraint to hold the answer to.

        A call in Harmony ends the answer, and has a channel of its own beside one of another form;
        and where nobody knows how calls are written, nothing can be said of them. Only a demanded
        one needs a grammar then, or an error.
        """
        asked = request.constraint
        if asked is None or not asked.calls or asked.calls.required:
            return asked
        if self.calls and not self.harmony:
            return asked
        return replace(asked, calls=None) if asked.answer else None

    def parser(self, request: GenerationRequest, prompt_end: str) -> Parser:
        """Of the answer to a prompt that ends like this."""
        if not request.chat:
            return AnswerParser()
        if self.harmony:
            return HarmonyParser(request.tools)
        reasoning = self.reasoning
        opened = reasoning is not None and prompt_end.rstrip().endswith(reasoning.start)
        return AnswerParser(
            tools=self.tools.read(request.tools) if self.tools and request.tools else None,
            reasoning=reasoning,
            reasoning_open=opened,
        )


def dialect_of(template: str) -> Dialect:
    """Told from the chat template's text alone."""
    if all(marker in template for marker in HARMONY):
        return Dialect(harmony=True)
    return Dialect(reasoning_of(template), notation_of(template))


def reasoning_of(template: str) -> ReasoningFormat | None:
    return next((thought for thought in THOUGHTS if thought.end in template), None)


def notation_of(template: str) -> Notation | None:
    for markers, known in MARKERS:
        if all(marker in template for marker in markers):
            return None if known is HERMES and any(o in template for o in OTHERS) else known
    return None
