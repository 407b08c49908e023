"""How models write calls of tools, as rules in Lark's notation. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backends.errors import BadRequestError
from backends.wire.constraint import Calls, Function, Grammar
from backends.wire.lark import inline, quoted

Marker = Callable[[str], int | None]
"""The id of the one token that a text is, or None where it is several."""

SHARED_RULES = ("SPACE: / ?/", "GAP: /\\n?/", 'NEWLINE: "\\n"')
"""Within a line, around what a marker encloses, and where a line has to end."""


@dataclass(frozen=True, slots=True)
class CallFormat:
    """`style` is the name of the parser that reads the calls, `start` and `end` what stands around
    each of them (`end` may be empty: to the last)."""

    style: str
    start: str
    end: str


def call_rules(calls: Calls, written: CallFormat, marker: Marker, stop_ids: frozenset[int]) -> str:
    """The rule `calls`, and `free`: text in which no call begins, and then perhaps calls.

    Raises:
        BadRequestError: one function is demanded, and nobody knows where its name would stand.
    """
    body = BODIES.get(written.style)
    if body is None and written.style not in HEADS and calls.named:
        raise BadRequestError(
            "This model writes calls in a way that cannot be bound to one function; leave "
            "`tool_choice` to `required`.",
            param=calls.param,
        )
    rules = _Rules(written, marker, stop_ids)
    lines = rules.known(calls, body) if body else rules.opened(calls)
    return "\n".join((*rules.around(calls), *lines, *SHARED_RULES))


@dataclass(frozen=True, slots=True)
class _Rules:
    format: CallFormat
    marker: Marker
    stop_ids: frozenset[int]

    def around(self, calls: Calls) -> Iterator[str]:
        more = " (GAP call)*" if calls.several else ""
        yield f"calls: call{more}"
        yield f"call: {self._mark(self.format.start)} begun"
        start = self.marker(self.format.start)
        if start is not None:
            yield f"free: {self._any_but(start)}* calls?"
        else:
            yield f"free: /(?s:.*)/ | lead begun{more}"
            yield f"lead[suffix={quoted(self.format.start)}]: /(?s:.*)/"

    def known(self, calls: Calls, body: Callable[[str, Function], Iterable[str]]) -> Iterator[str]:
        """Calls of which every part is known."""
        names = [f"body_{i}" for i in range(len(calls.functions))]
        end = f" GAP {self._mark(self.format.end)}" if self.format.end else ""
        yield f"begun: GAP ({' | '.join(names)}){end}"
        for name, function in zip(names, calls.functions, strict=True):
            yield from body(name, function)

    def opened(self, calls: Calls) -> Iterator[str]:
        """Calls of which only the beginning is known; the rest is the model's."""
        head = HEADS.get(self.format.style, "")
        heads = [quoted(head.format(name=f.name)) for f in calls.functions] if head else ['""']
        end = self.marker(self.format.end) if self.format.end else None
        if end is not None:
            rest = f"{self._any_but(end)}* <[{end}]>"
        elif self.format.end:
            rest = "rest"
            yield f"rest[suffix={quoted(self.format.end)}]: /(?s:.*)/"
        else:
            rest = f"{self._any_but()}*"
        yield f"begun: GAP ({' | '.join(heads)}) {rest}"

    def _any_but(self, *tokens: int) -> str:
        return f"<[^{','.join(map(str, sorted(self.stop_ids.union(tokens))))}]>"

    def _mark(self, text: str) -> str:
        token = self.marker(text)
        return quoted(text) if token is None else f"<[{token}]>"


def _json_body(rule: str, function: Function) -> Iterator[str]:
    """`{"name": "…", "arguments": {…}}`"""
    parts = ("{", '"name"', ":", quoted(function.name), ",", '"arguments"', ":")
    head = " SPACE ".join(map(quoted, parts))
    yield f'{rule}: {head} SPACE {rule}_arguments SPACE "}}"'
    yield f"{rule}_arguments: {inline(function.parameters)}"


def _json_list_body(rule: str, function: Function) -> Iterator[str]:
    """The same in a list, as Mistral's models write them."""
    yield f'{rule}: "[" SPACE {rule}_one SPACE "]"'
    yield from _json_body(f"{rule}_one", function)


def _xml_body(rule: str, function: Function) -> Iterator[str]:
    """`<function=…>` with each argument as `<parameter=…>`: text as it is, all else as JSON."""
    schema = function.parameters.source
    properties = _object(schema.get("properties"))
    required = schema.get("required") or ()
    uses = [f"{rule}_{i}" + ("" if name in required else "?") for i, name in enumerate(properties)]
    head = quoted(f"<function={function.name}>")
    yield " ".join((f"{rule}: {head} NEWLINE", *uses, quoted("</function>")))
    for i, (name, part) in enumerate(properties.items()):
        own, value = f"{rule}_{i}", f"{rule}_{i}_value"
        yield f"{own}: {quoted(f'<parameter={name}>')} NEWLINE {value} NEWLINE"
        if choices := _choices(part):
            yield f"{value}: ({' | '.join(map(quoted, choices))}) {quoted(PARAMETER_END)}"
        elif _is_text(part):
            yield f"{value}[suffix={quoted(PARAMETER_END)}]: /(?s:.*)/"
        else:
            yield f"{value}: {value}_json {quoted(PARAMETER_END)}"
            yield f"{value}_json: {inline(_part(function.parameters, part))}"


PARAMETER_END = "\n</parameter>"


def _choices(schema: Any) -> list[str]:
    """How the values are written of which one has to be chosen; none, if there is a choice of any
    other kind."""
    schema = _object(schema)
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    values = values if isinstance(values, list) else []
    return [value if isinstance(value, str) else json.dumps(value) for value in values]


def _is_text(schema: Any) -> bool:
    """Also where it may be something else as well: anything can be written as text."""
    kinds = _object(schema).get("type")
    return "string" in kinds if isinstance(kinds, list) else kinds in (None, "string")


def _part(whole: Grammar, schema: Any) -> Grammar:
    """A schema within another, with the definitions that it may refer to."""
    shared = {key: whole.source[key] for key in ("$defs", "definitions") if key in whole.source}
    return Grammar(
        kind="json_schema",
        source={**shared, **_object(schema)},
        param=whole.param,
        lenient=whole.lenient,
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


BODIES: Mapping[str, Callable[[str, Function], Iterable[str]]] = {
    "json_tools": _json_body,
    "mistral": _json_list_body,
    "qwen3_coder": _xml_body,
}
"""By the name of mlx-lm's parser: a call from its name to its last argument."""

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
"""The same for parsers whose notation of arguments no grammar is written for: up to the name."""
