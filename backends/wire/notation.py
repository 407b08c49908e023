"""Ways of writing calls of tools: how each is read, and how it is demanded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from backends.wire.call_bodies import (
    deepseek_body,
    deepseek_fenced_body,
    harmony_body,
    harmony_preface,
    json_body,
    mistral_body,
    mistral_body_with_id,
    xml_body,
)
from backends.wire.call_grammar import CallFormat
from backends.wire.calls import ToolFormat, Tools
from backends.wire.json_calls import deepseek, hermes, llama3, mistral
from backends.wire.xml_calls import qwen3_coder

Read = Callable[[Tools], ToolFormat]


@dataclass(frozen=True, slots=True)
class Notation:
    """`read` tells how calls of a request's tools begin, and what reads them; a demanded call is
    `written` so that it reads it back."""

    read: Read
    written: CallFormat


HERMES = Notation(
    hermes, CallFormat(start="<tool_call>", body=json_body(around="GAP"), end="</tool_call>")
)
QWEN3_CODER = Notation(
    qwen3_coder, CallFormat(start="<tool_call>", body=xml_body, end="</tool_call>")
)
MISTRAL_LIST = Notation(
    mistral,
    CallFormat(opening="[TOOL_CALLS]", body=json_body(), listed=True, separator=","),
)
MISTRAL = Notation(mistral, CallFormat(start="[TOOL_CALLS]", body=mistral_body))
MISTRAL_WITH_ID = Notation(mistral, CallFormat(start="[TOOL_CALLS]", body=mistral_body_with_id))
LLAMA3 = Notation(
    llama3, CallFormat(bare="parameters", body=json_body("parameters"), separator=";")
)
DEEPSEEK = Notation(
    deepseek,
    CallFormat(
        opening="<｜tool▁calls▁begin｜>",
        start="<｜tool▁call▁begin｜>",
        body=deepseek_body,
        end="<｜tool▁call▁end｜>",
        closing="<｜tool▁calls▁end｜>",
    ),
)
DEEPSEEK_FENCED = Notation(deepseek, replace(DEEPSEEK.written, body=deepseek_fenced_body))

HARMONY_CALLS = CallFormat(body=harmony_body, preface=harmony_preface, single=True)
"""What reads them reads all the rest of an answer, too: `harmony.HarmonyParser`."""
