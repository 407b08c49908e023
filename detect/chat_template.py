"""What a chat template can do, read from its text. Pure.

The template comes with the model, so it is not trusted: it is neither rendered nor compiled.
Parsing with Jinja would be stricter, but importing it costs more time than scanning a hundred
models, and its parser has no bound. A template that takes tools must use the variable `tools`
in its code, and finding names in code needs a scanner for comments and string literals only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    present: bool
    tools: bool
    thinking: bool


def examine(templates: Sequence[str]) -> ChatTemplate:
    """The abilities of all of a model's templates together."""
    texts = [template[:MAX_CHARACTERS] for template in templates if template.strip()]
    return ChatTemplate(
        present=bool(texts),
        tools=any("tools" in text and "tools" in names_used(text) for text in texts),
        thinking=any(mark in text for text in texts for mark in THINKING_MARKS),
    )


def names_used(template: str) -> frozenset[str]:
    """The names in the template's code; not attributes, not text, not comments."""
    return frozenset(name for block in _blocks(template) for name in block)


def _blocks(template: str) -> Iterator[set[str]]:
    position = 0
    while (opening := OPENING.search(template, position)) is not None:
        if opening.group() == "{#":
            end = template.find("#}", opening.end())
            if end < 0:
                return
            position = end + 2
            continue
        names, position = _code(template, opening.end())
        yield names


def _code(template: str, position: int) -> tuple[set[str], int]:
    """The names up to the end of the block, and where that is."""
    names: set[str] = set()
    for token in TOKEN.finditer(template, position):
        if token.lastgroup == "end":
            return names, token.end()
        if token.lastgroup == "name":
            names.add(token.group())
    return names, len(template)
