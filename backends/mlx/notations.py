"""The notations of calls that mlx-lm has parsers for, as `backends.wire.notation` has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.wire.call_grammar import CallFormat
from backends.wire.calls import whole_calls
from backends.wire.notation import (
    HERMES,
    MISTRAL,
    MISTRAL_LIST,
    MISTRAL_WITH_ID,
    QWEN3_CODER,
    Notation,
)

OURS: Mapping[str, tuple[Notation, ...]] = {
    "json_tools": (HERMES,),
    "mistral": (MISTRAL_LIST, MISTRAL, MISTRAL_WITH_ID),
    "qwen3_coder": (QWEN3_CODER,),
}
"""The parsers in whose place we read calls as they come: what the calls may look like, the usual
first."""

HEADS: Mapping[str, str] = {
    "function_gemma": "call:{name}{{",
    "gemma4": "call:{name}{{",
    "glm47": "{name}",
    "kimi_k2": "<|tool_call_begin|>functions.{name}:",
    "laguna": "{name}",
    "longcat": "{name}",
    "minimax_m2": '<invoke name="{name}">',
    "pythonic": "[{name}(",
}
"""By the name of the parser: how a call begins, in notations that no grammar is written for."""


def notation_of(tokenizer: Any, known: Notation | None) -> Notation | None:
    """Of an `mlx_lm` tokenizer's model. `known` is what its template tells without mlx-lm, which
    does not know all, and is right where both do."""
    parse = tokenizer.tool_parser
    if parse is None:
        return known
    style = parse.__module__.rpartition(".")[2]
    ours = OURS.get(style, ())
    if known in ours:
        return known
    return ours[0] if ours else _theirs(style, tokenizer)


def _theirs(style: str, tokenizer: Any) -> Notation:
    parse, start, end = tokenizer.tool_parser, tokenizer.tool_call_start, tokenizer.tool_call_end
    return Notation(
        lambda tools: whole_calls(start, end or "", lambda text: parse(text, list(tools))),
        CallFormat(head=HEADS.get(style, ""), start=start, end=end or ""),
    )
