"""What a chat template can do, read from its text. Pure.

The template comes with the model, so it is not trusted: it is neither rendered nor compiled.
Parsing with Jinja would be stricter, but importing it costs more time than scanning a hundred
models, and its parser has no bound. A template that takes tools must use the variable `tools`
in its code, and finding names in code needs a scanner for comments and string literals only.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence

from msgspec import Struct

MAX_CHARACTERS = 1 << 20

OPENING = re.compile(r"\{[%{#]")
TOKEN = re.compile(
    r"""(?P<string>'(?:[^'\\]|\\.)*+(?:'|\Z)|"(?:[^"\\]|\\.)*+(?:"|\Z))
      | (?P<end>[-+]?[%}]\})
      | (?P<attribute>\.\s*+[A-Za-z_]\w*+)
      | (?P<name>[A-Za-z_]\w*+)""",
    re.VERBOSE | re.DOTALL,
)

THINKING_MARKS = (
    "<think>", "</think>", "enable_thinking", "reasoning_content", "<longcat_think>",
    "<|channel|>analysis", "<|channel>", "<seed:think>", "<|START_THINKING|>", "[THINK]",
)  # fmt: skip
THINKING_HINTS = ("think", "THINK", "reasoning_content", "<|channel")
"""Of these, every mark has one; most templates have none."""


class ChatTemplate(Struct, frozen=True):
    present: bool
    tools: bool
    thinking: bool


def examine(templates: Sequence[str]) -> ChatTemplate:
    """The abilities of all of a model's templates together."""
    texts = [template[:MAX_CHARACTERS] for template in templates if template.strip()]
    return ChatTemplate(
        present=bool(texts),
        tools=any("tools" in text and "tools" in _names(text) for text in texts),
        thinking=any(map(_thinks, texts)),
    )


def _thinks(text: str) -> bool:
    return any(hint in text for hint in THINKING_HINTS) and any(
        mark in text for mark in THINKING_MARKS
    )


def names_used(template: str) -> frozenset[str]:
    """The names in the template's code; not attributes, not text, not comments."""
    return frozenset(_names(template))


def _names(template: str) -> Iterator[str]:
    """One after the other, so that a search may end early: `tools` is asked for at the top."""
    position = 0
    while (opening := OPENING.search(template, position)) is not None:
        position = opening.end()
        if opening.group() != "{#":
            position = yield from _code(template, position)
        elif (end := template.find("#}", position)) >= 0:
            position = end + 2
        else:
            return


def _code(template: str, position: int) -> Generator[str, None, int]:
    """The names up to the end of the block; returns where that is."""
    for token in TOKEN.finditer(template, position):
        if token.lastgroup == "end":
            return token.end()
        if token.lastgroup == "name":
            yield token.group()
    return len(template)
