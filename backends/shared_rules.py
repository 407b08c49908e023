"""Rows that the tables of several engines have in common."""

from __future__ import annotations

from backends.headers import has_no_gguf_tokenizer, in_ollamas_layout
from backends.verdicts import Reason, Rule
from detect.types import Role

ADAPTER = Rule(
    when=lambda info: info.role is Role.ADAPTER,
    code=Reason.MISSING_BASE_MODEL,
    reason="an adapter answers only together with its base model",
)

OLLAMAS_LAYOUT = Rule(
    when=in_ollamas_layout,
    code=Reason.UNSUPPORTED_ARCH,
    reason="the file is written in Ollama's own layout",
    remedy="Run it with Ollama, or download a standard GGUF of the model.",
)
"""Of GGUF files; so is the next."""

NO_GGUF_TOKENIZER = Rule(
    when=has_no_gguf_tokenizer,
    code=Reason.MISSING_TOKENIZER,
    reason="the file has no tokenizer",
    remedy="Convert the model anew, or download another GGUF of it.",
)
