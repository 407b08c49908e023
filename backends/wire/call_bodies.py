"""One call of a tool as a rule in Lark's notation, in each way that models write them. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from backends.wire.constraint import Function, Grammar
from backends.wire.lark import Vocabulary, quoted

Body = Callable[[str, Function, Vocabulary], Iterable[str]]
"""The rule of this name, a call of this function between its markers, and the rules it needs."""


def json_body(key: str = "arguments", around: str = "") -> Body:
    """`{"name": "…", "arguments": {…}}` where `key` is what the arguments are called; `around` is
    the terminal for what may stand around it."""

    def body(rule: str, function: Function, words: Vocabulary) -> Iterator[str]:
        head = json_head(function, key)
        yield f'{rule}: {around} {head} {rule}_arguments SPACE "}}" {around}'
        yield _arguments(rule, function, words)

    return body


def json_head(function: Function, key: str) -> str:
    parts = ("{", '"name"', ":", quoted(function.name), ",", quoted(key), ":")
    return " SPACE ".join(map(quoted, parts)) + " SPACE"


def _arguments(rule: str, function: Function, words: Vocabulary) -> str:
    return f"{rule}_arguments: {words.inline(function.parameters)}"


def mistral_body(rule: str, function: Function, words: Vocabulary) -> Iterator[str]:
    """`…[ARGS]{…}`"""
    yield f"{rule}: {quoted(function.name)} {words.mark('[ARGS]')} {rule}_arguments"
    yield _arguments(rule, function, words)


def mistral_body_with_id(rule: str, function: Function, words: Vocabulary) -> Iterator[str]:
    """`…[CALL_ID]Ab1…[ARGS]{…}`"""
    number = f"{words.mark('[CALL_ID]')} /[a-zA-Z0-9]{{9}}/"
    yield f"{rule}: {quoted(function.name)} {number} {words.mark('[ARGS]')} {rule}_arguments"
    yield _arguments(rule, function, words)


def deepseek_body(rule: str, function: Function, words: Vocabulary) -> Iterator[str]:
    """`…<｜tool▁sep｜>{…}`"""
    yield f"{rule}: {quoted(function.name)} {words.mark(DEEPSEEK_SEPARATOR)} {rule}_arguments"
    yield _arguments(rule, function, words)


def deepseek_fenced_body(rule: str, function: Function, words: Vocabulary) -> Iterator[str]:
    """`function<｜tool▁sep｜>…` and the arguments in a code fence."""
    head = f'"function" {words.mark(DEEPSEEK_SEPARATOR)} {quoted(function.name + FENCE)}'
    yield f"{rule}: {head} {rule}_arguments {quoted(FENCE_END)}"
    yield _arguments(rule, function, words)


DEEPSEEK_SEPARATOR = "<｜tool▁sep｜>"
FENCE, FENCE_END = "\n```json\n", "\n```"


def harmony_body(rule: str, function: Function, words: Vocabulary) -> Iterator[str]:
    """A message to `functions.…`, which stands on either side of the channel. The marker that ends
    it ends the answer, too, so that the form is over before."""
    channel, message = words.mark("<|channel|>"), words.mark("<|message|>")
    to = f"to=functions.{function.name}"
    yield f"{rule}: {rule}_to {rule}_json? {message} {rule}_arguments"
    before, behind = quoted(f" {to}"), quoted(f"commentary {to}")
    yield f'{rule}_to: {before} {channel} "commentary" | {channel} {behind}'
    yield f'{rule}_json: " " {words.mark("<|constrain|>")} "json" | " json"'
    yield _arguments(rule, function, words)


def harmony_preface(words: Vocabulary) -> str:
    """Thoughts, and messages to the user about what comes."""
    end, message = words.mark("<|end|>"), words.mark("<|message|>")
    if end == quoted("<|end|>"):
        # Of letters only: text would take them for its own, and nothing would end it.
        return '""'
    head = f'{words.mark("<|channel|>")} ("analysis" | "commentary") {message}'
    return f'({head} /(?s:.*)/ {end} {words.mark("<|start|>")} "assistant")*'


def xml_body(rule: str, function: Function, words: Vocabulary) -> Iterator[str]:
    """`<function=…>` with each argument as `<parameter=…>`: text as it is, all else as JSON."""
    schema = function.parameters.source
    properties = _object(schema.get("properties"))
    required = schema.get("required") or ()
    uses = [f"{rule}_{i}" + ("" if name in required else "?") for i, name in enumerate(properties)]
    head = quoted(f"<function={function.name}>")
    yield " ".join((f"{rule}: GAP {head} NEWLINE", *uses, quoted("</function>"), "GAP"))
    for i, (name, part) in enumerate(properties.items()):
        own, value = f"{rule}_{i}", f"{rule}_{i}_value"
        yield f"{own}: {quoted(f'<parameter={name}>')} NEWLINE {value} NEWLINE"
        if choices := _choices(part):
            yield f"{value}: ({' | '.join(map(quoted, choices))}) {quoted(PARAMETER_END)}"
        elif _is_text(part):
            yield f"{value}[suffix={quoted(PARAMETER_END)}]: /(?s:.*)/"
        else:
            yield f"{value}: {value}_json {quoted(PARAMETER_END)}"
            yield f"{value}_json: {words.inline(_part(function.parameters, part))}"


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
