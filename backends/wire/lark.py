"""Constraints in the notations that llguidance reads: Lark, with JSON schemas inside. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from backends.wire.constraint import Grammar

BOUNDED: Mapping[str, Any] = {"whitespace_pattern": r"[ ]|\n{1,2}[ \t]{0,20}"}
"""White space where JSON allows any amount: as much as people write. Models that see no end of it
in sight write it until they are cut off; llama.cpp has the same bound."""

ONE_LINE: Mapping[str, Any] = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
}
"""For the llguidance 1.4 in mistralrs 0.9.5: there, any number of bounded white spaces may follow
each other, and models that see no end of it write it until they are cut off."""

LEAD = r"/[ \n]{0,2}/"
"""What models write between a thought and their answer."""


def quoted(text: str) -> str:
    """`text` itself, in a rule."""
    return json.dumps(text)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A model's, as the rules for its answers see it. `token` gives the id of the one token that a
    text is, None where it is several; `white_space` is how schemas are spaced."""

    token: Callable[[str], int | None]
    stop_ids: frozenset[int]
    white_space: Mapping[str, Any]

    def mark(self, text: str) -> str:
        """A marker as part of a rule: that token, or else its letters."""
        token = self.token(text) if text else None
        if token is None:
            return quoted(text) if text else ""
        return f"<[{token}]>"

    def any_but(self, *tokens: int) -> str:
        """Any one token that is none of these and ends no answer."""
        return f"<[^{','.join(map(str, sorted(self.stop_ids.union(tokens))))}]>"

    def up_to(self, marker: str, name: str) -> tuple[str, str]:
        """Any text with `marker` at its end, and the rule called `name` that it may need."""
        token = self.token(marker)
        if token is not None:
            return f"{self.any_but(token)}* <[{token}]>", ""
        return name, f"{name}[suffix={quoted(marker)}]: /(?s:.*)/"

    def schema(self, schema: Grammar) -> dict[str, Any]:
        """With what llguidance is told about it."""
        assert schema.kind == "json_schema"
        options = {**self.white_space, "lenient": schema.lenient}
        return {**schema.source, "x-guidance": options}

    def inline(self, schema: Grammar) -> str:
        return f"%json {json.dumps(self.schema(schema))}"


def document(rules: str, **named: dict[str, Any]) -> str:
    """`rules` with the grammars that they mention as `@name`."""
    inner = [{"name": name, **grammar} for name, grammar in named.items()]
    return json.dumps({"grammars": [{"lark_grammar": rules}, *inner]})
