"""Calls whose arguments a model writes as elements of their own, as Qwen3-Coder does."""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from backends.wire.calls import CallEvent, CallReader, OpenCall, ToolFormat, Tools
from backends.wire.expected import SPACE, Expected, Run
from backends.wire.text import overlap

BLOCK_START, FUNCTION_START, PARAMETER_START = "<tool_call>", "<function=", "<parameter="
BLOCK_END, FUNCTION_END, PARAMETER_END = "</tool_call>", "</function>", "</parameter>"

NAME = (Run(r"(?P<name>[^\s<>]{1,256})"), Run(r"(?=[\s<>])>?"))
FUNCTION = Expected(SPACE, FUNCTION_START, SPACE, *NAME)
PARAMETER = Expected(SPACE, *NAME)
CLOSE = Expected(SPACE, BLOCK_END)

NULL_CHARACTERS = len("\nnull\n")
"""A longer value is not null, whatever follows."""

LITERAL_CHARACTERS = 65536
"""Python's own notation is not looked for in longer values."""

Schema = Mapping[str, Any]


class XmlCalls(CallReader):
    """Arguments are told parameter by parameter, texts as they come.

    A value is of the type that the tool's schema names for it; one that cannot be is a text. What
    stands between parameters is nobody's.
    """

    def __init__(self, marker: str, tools: Tools) -> None:
        super().__init__("")
        self._schemas = {str(tool["function"]["name"]): _properties(tool) for tool in tools}
        self._first = True
        # Without a block around it, it is a call only by the name of a declared tool.
        self._bare = marker == FUNCTION_START
        if self._bare:
            self.held = marker
        else:
            self._written = [marker]

    def _begin(self) -> Iterator[CallEvent]:
        match = FUNCTION.match(self.held)
        if match and not (self._bare and match["name"] not in self._schemas):
            self._take(match.end())
            name = match["name"]
            self._properties = self._schemas.get(name, {})
            self._call = OpenCall(name, told=name in self._schemas)
            self._separator = "{"
            self._step = self._between
            yield from self._call.start()
        elif match or not FUNCTION.possible(self.held):
            if self._first:
                self._take(len(FUNCTION_START) if self._bare else 0)
                yield from self._text()
            else:
                self._step = self._behind

    def _between(self) -> Iterator[CallEvent]:
        """Up to the next parameter, or the call's end."""
        markers = (PARAMETER_START, FUNCTION_END)
        places = [(place, m) for m in markers if (place := self.held.find(m)) >= 0]
        if not places:
            self._take(len(self.held) - overlap(self.held, markers))
            return
        place, marker = min(places)
        self._take(place + len(marker))
        if marker == PARAMETER_START:
            self._step = self._parameter
            return
        yield from self._call.end("{}" if self._separator == "{" else "}")
        self._written.clear()
        self._first = False
        self._step = self._begin

    def _parameter(self) -> Iterator[CallEvent]:
        if match := PARAMETER.match(self.held):
            self._take(match.end())
            schema = self._properties.get(match["name"])
            self._value = _Value(schema if isinstance(schema, Mapping) else {})
            self._step = self._read_value
            key = json.dumps(match["name"], ensure_ascii=False)
            yield from self._call.add(f"{self._separator}{key}: ")
            self._separator = ", "
        elif not PARAMETER.possible(self.held):
            # It has no name.
            self._step = self._between

    def _read_value(self) -> Iterator[CallEvent]:
        place = self.held.find(PARAMETER_END)
        if place < 0:
            keep = overlap(self.held, (PARAMETER_END,))
            yield from self._call.add(self._value.add(self._take(len(self.held) - keep)))
            return
        value = self._take(place)
        self._take(len(PARAMETER_END))
        yield from self._call.add(self._value.add(value) + self._value.end())
        self._step = self._between

    def _behind(self) -> Iterator[CallEvent]:
        """After the last call."""
        if match := CLOSE.match(self.held):
            self.held = self.held[match.end() :]
        self.over = match is not None or not CLOSE.possible(self.held)
        yield from ()

    def finish(self) -> Iterator[CallEvent]:
        waiting = self._step in (self._begin, self._behind)
        self._take(len(self.held))
        if not waiting:
            self.over = True
            yield from self._call.broken("".join(self._written))
        elif self._first or "".join(self._written).strip():
            yield from self._text()


class _Value:
    """One parameter's value, from letters to JSON. The line breaks around it are layout."""

    def __init__(self, schema: Schema) -> None:
        self._kind = _kind(schema)
        self._known: list[str] = []
        self._characters = 0
        self._telling = False
        self._line_break = ""

    def add(self, text: str) -> str:
        """What can be told already."""
        if self._telling:
            return self._tell(text)
        self._known.append(text)
        self._characters += len(text)
        if self._kind != "string" or self._characters <= NULL_CHARACTERS:
            return ""
        self._telling = True
        return '"' + self._tell("".join(self._known).removeprefix("\n"))

    def end(self) -> str:
        """What is left."""
        if self._telling:
            return '"'
        value = "".join(self._known).removeprefix("\n").removesuffix("\n")
        return "null" if value.lower() == "null" else _json(value, self._kind)

    def _tell(self, text: str) -> str:
        text = self._line_break + text
        self._line_break = "\n" if text.endswith("\n") else ""
        return json.dumps(text.removesuffix("\n"), ensure_ascii=False)[1:-1]


def _properties(tool: Mapping[str, Any]) -> Schema:
    parameters = tool["function"].get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    return properties if isinstance(properties, Mapping) else {}


KINDS = {
    "string": ("str", "text", "varchar", "char", "enum"),
    "integer": ("int", "uint", "long", "short", "unsigned"),
    "number": ("num", "float"),
    "boolean": ("bool", "binary"),
    "container": ("object", "arr", "dict", "list"),
}
"""How the names of types begin: schemas are written by people of many languages."""


def _kind(schema: Schema) -> str:
    """A type that is a list means its first that is not null."""
    if not schema:
        return "string"
    named = schema.get("type")
    if named is None:
        return "any"
    names = [named] if isinstance(named, str) else named
    names = [name for name in names if name != "null"] if isinstance(names, list) else []
    name = str(names[0]).strip().lower() if names else ""
    found = [kind for kind, begins in KINDS.items() if name.startswith(begins)]
    return found[0] if found else "other"


def _json(value: str, kind: str) -> str:
    """As the first of the kind's readings that there is; what has none is a text."""
    for read in READINGS[kind]:
        try:
            return json.dumps(read(value), ensure_ascii=False, allow_nan=False)
        except (ValueError, TypeError, SyntaxError, ArithmeticError, RecursionError, MemoryError):
            continue
    return json.dumps(value, ensure_ascii=False)


def _whole_number(value: str) -> int:
    number = float(value)
    if not number.is_integer():
        raise ValueError("not a whole number")
    return int(number)


def _any(value: str) -> Any:
    """Where the schema names no type, only what must be JSON is."""
    found = json.loads(value)
    if not isinstance(found, dict | list):
        raise ValueError("perhaps a text")
    return found


def _lenient(value: str) -> Any:
    return json.loads(value, strict=False)


def _literal(value: str) -> Any:
    if len(value) > LITERAL_CHARACTERS:
        raise ValueError("too long")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.literal_eval(value)


READINGS: Mapping[str, tuple[Callable[[str], Any], ...]] = {
    "string": (),
    "integer": (int, _whole_number),
    "number": (int, _whole_number, float),
    "boolean": (lambda value: value.lower() == "true",),
    "container": (_lenient, _literal),
    "any": (_any,),
    "other": (_literal,),
}
"""Those of Qwen's own parser, which takes what does not fit for a text, too."""


def qwen3_coder(tools: Tools) -> ToolFormat:
    """`<tool_call><function=f><parameter=a>1</parameter></function></tool_call>`.

    The model sometimes forgets the outer markers.
    """
    return ToolFormat((BLOCK_START, FUNCTION_START), lambda marker: XmlCalls(marker, tools))
