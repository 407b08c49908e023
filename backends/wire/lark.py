"""Constraints in the notations that llguidance reads: Lark, with JSON schemas inside. Pure."""

from __future__ import annotations

import json
from typing import Any

from backends.wire.constraint import Grammar

WHITE_SPACE = r"[ ]|\n{1,2}[ \t]{0,20}"
"""Where JSON allows any amount: as much as people write. Models that see no end of it in sight
write white space until they are cut off; llama.cpp has the same bound."""

LEAD = r"/[ \n]{0,2}/"
"""What models write between a thought and their answer."""


def quoted(text: str) -> str:
    """`text` itself, in a rule."""
    return json.dumps(text)


def guided(schema: Grammar) -> dict[str, Any]:
    """The schema with what llguidance is told about it."""
    assert schema.kind == "json_schema"
    options = {"whitespace_pattern": WHITE_SPACE, "lenient": schema.lenient}
    return {**schema.source, "x-guidance": options}


def inline(schema: Grammar) -> str:
    return f"%json {json.dumps(guided(schema))}"


def document(rules: str, **named: dict[str, Any]) -> str:
    """`rules` with the grammars that they mention as `@name`."""
    inner = [{"name": name, **grammar} for name, grammar in named.items()]
    return json.dumps({"grammars": [{"lark_grammar": rules}, *inner]})
