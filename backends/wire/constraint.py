"""What a request demands of the form of its answer: a schema, a grammar, calls of tools. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from backends.errors import BadRequestError

Json = dict[str, Any]
Kind = Literal["json_schema", "regex", "lark", "gbnf"]

MAX_CHARACTERS = 128 * 1024
"""Of a grammar, or of a schema as JSON: compiling that takes less than a second."""

MAX_DEPTH = 64
"""Of a schema: far more than people write, and far less than any parser's stack holds."""

MAX_PROPERTIES = 1000
"""Of one object: the time to compile them grows with the square of their number."""

LARK_MARK = "%llguidance"
"""What begins a `grammar` in Lark's notation, as in llama.cpp; all others are GBNF."""

GRAMMAR_KINDS: Mapping[str, Kind] = {
    "json_schema": "json_schema",
    "regex": "regex",
    "lark": "lark",
    "gbnf": "gbnf",
}

NESTED_ONE = frozenset(
    ("additionalItems", "additionalProperties", "contains", "else", "if", "items", "not",
     "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties")
)  # fmt: skip
"""Keywords that hold one schema (`items`, in older drafts, a list)."""

NESTED_LIST = frozenset(("allOf", "anyOf", "oneOf", "prefixItems"))

NESTED_NAMED = frozenset(
    ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")
)

ENFORCED = frozenset(
    ("$ref", "additionalItems", "additionalProperties", "allOf", "anyOf", "const", "enum",
     "exclusiveMaximum", "exclusiveMinimum", "format", "items", "maxItems", "maxLength",
     "maxProperties", "maximum", "minItems", "minLength", "minProperties", "minimum",
     "multipleOf", "oneOf", "pattern", "patternProperties", "prefixItems", "properties",
     "required", "type")
)  # fmt: skip

NOTES = frozenset(
    ("$anchor", "$comment", "$defs", "$id", "$schema", "default", "definitions", "deprecated",
     "description", "discriminator", "example", "examples", "id", "readOnly", "title",
     "writeOnly")
)  # fmt: skip
"""Keywords that demand nothing by themselves."""


UNENFORCED = frozenset(
    ("contains", "dependentRequired", "dependentSchemas", "else", "if", "maxContains",
     "minContains", "not", "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
     "uniqueItems")
)  # fmt: skip
"""Known keywords that no engine keeps: llguidance refuses them, and llama.cpp leaves them out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """`source` is a schema or a text, by `kind`; `param` is where in the request it stands.

    `lenient`: keywords of a schema that cannot be enforced are left out, as the request wishes.
    """

    kind: Kind
    source: Any
    param: str
    lenient: bool = False


@dataclass(frozen=True, slots=True)
class Function:
    """A declared tool. `parameters` is the grammar of its arguments, an object."""

    name: str
    parameters: Grammar


@dataclass(frozen=True, slots=True)
class Calls:
    """`required`: the answer is a call; else it may be one. `several`: or more of them. `named`:
    the request named the one function.

    `param` is what asked for it.
    """

    functions: tuple[Function, ...]
    required: bool
    several: bool
    param: str
    named: bool = False


@dataclass(frozen=True, slots=True)
class Constraint:
    """The answer has the form of `answer` or consists of `calls`. Without `answer`, what is no call
    is free text."""

    answer: Grammar | None = None
    calls: Calls | None = None


def constraint(body: Json, tools: tuple[Json, ...], *, chat: bool) -> Constraint | None:
    """What `body` demands; `tools` are the declared ones, already known to have names.

    Raises:
        BadRequestError: naming the field that is wrong, or the keyword that cannot be enforced.
    """
    answer = _answer(body)
    calls = _calls(body, tools, bool(answer)) if chat else None
    if calls and calls.required:
        return Constraint(calls=calls)
    return Constraint(answer, calls) if answer or calls else None


def _answer(body: Json) -> Grammar | None:
    asked = [
        grammar
        for grammar in (_response_format(body), _json_schema(body), _grammar(body))
        if grammar is not None
    ]
    if len(asked) > 1:
        first, second = (grammar.param.partition(".")[0] for grammar in asked[:2])
        raise _wrong(second, f"cannot be combined with `{first}`: an answer has one form")
    return asked[0] if asked else None


def _response_format(body: Json) -> Grammar | None:
    value = body.get("response_format")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _wrong("response_format", "must be an object")
    match value.get("type"):
        case "text":
            return None
        case "json_object":
            # llama.cpp takes a schema here, too.
            schema = value.get("schema")
            if schema is None:
                schema = {"type": "object"}
            return _schema(schema, "response_format.schema")
        case "json_schema":
            return _named_schema(value.get("json_schema"))
    raise _wrong("response_format.type", "must be text, json_object or json_schema")


def _named_schema(value: Any) -> Grammar:
    where = "response_format.json_schema"
    if not isinstance(value, dict):
        raise _wrong(where, "must be an object with a schema")
    strict = value.get("strict")
    if not isinstance(strict, bool | None):
        raise _wrong(f"{where}.strict", "must be true or false")
    return _schema(value.get("schema"), f"{where}.schema", strict=strict)


def _json_schema(body: Json) -> Grammar | None:
    """llama.cpp's field: the schema itself, of which `{}` means any JSON."""
    schema = body.get("json_schema")
    return None if schema is None else _schema(schema, "json_schema")


def _grammar(body: Json) -> Grammar | None:
    value = body.get("grammar")
    match value:
        case None | "":
            return None
        case str():
            lark = value.lstrip().startswith(LARK_MARK)
            return _text("lark" if lark else "gbnf", value, "grammar")
        case {"type": str(name), "value": source} if name in GRAMMAR_KINDS:
            kind = GRAMMAR_KINDS[name]
            if kind == "json_schema":
                return _schema(source, "grammar.value")
            return _text(kind, source, "grammar.value")
    kinds = ", ".join(GRAMMAR_KINDS)
    raise _wrong("grammar", f"must be GBNF as text, or an object of a type ({kinds}) and a value")


def _text(kind: Kind, value: Any, param: str) -> Grammar:
    if not isinstance(value, str):
        raise _wrong(param, "must be text")
    _check_size(len(value), param)
    return Grammar(kind=kind, source=value, param=param)


def _schema(value: Any, param: str, *, strict: bool | None = None) -> Grammar:
    """`strict` true refuses every keyword that demands something unknown; false leaves out what
    cannot be enforced; None refuses what is known and cannot be enforced."""
    if not isinstance(value, dict):
        raise _wrong(param, "must be a JSON schema, an object")
    _check_bounds(value, param)
    # Options of the grammar's compiler are ours to set.
    schema = {key: part for key, part in value.items() if key != "x-guidance"}
    if strict is not False:
        _check_keywords(schema, param, known_only=strict is None)
    return Grammar(kind="json_schema", source=schema, param=param, lenient=strict is False)


def _check_bounds(value: Any, param: str) -> None:
    """Level by level, because a walk that calls itself ends with the stack."""
    level, characters = [value], 0
    for _ in range(MAX_DEPTH):
        characters += sum(_length(part) for part in level)
        level = [inner for part in level for inner in _parts(part)]
        if not level:
            break
        if any(isinstance(part, dict) and len(part) > MAX_PROPERTIES for part in level):
            raise _wrong(param, f"has an object of more than {MAX_PROPERTIES} properties")
    else:
        raise _wrong(param, f"is nested more than {MAX_DEPTH} levels deep")
    _check_size(characters, param)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _length(value: Any) -> int:
    """Of `value` as JSON, without its parts."""
    if isinstance(value, dict):
        return sum(len(key) + 4 for key in value)
    return len(value) + 2 if isinstance(value, str | list) else 5


def _check_size(characters: int, param: str) -> None:
    if characters > MAX_CHARACTERS:
        raise _wrong(param, f"has {characters} characters; {MAX_CHARACTERS} are the most")


def _check_keywords(schema: Json, param: str, *, known_only: bool) -> None:
    for keyword in keywords(schema):
        harmless = keyword in ENFORCED or keyword in NOTES or keyword.startswith("x-")
        if keyword in UNENFORCED or not (harmless or known_only):
            raise BadRequestError(
                f"`{param}` has the keyword `{keyword}`, which cannot be enforced: leave it out, "
                "or set `strict` to false.",
                param=param,
            )


def keywords(schema: Any, depth: int = MAX_DEPTH) -> Iterator[str]:
    """Of the schema and of all within it, down to so many levels; the names of properties are
    none."""
    if not isinstance(schema, dict) or not depth:
        return
    for keyword, value in schema.items():
        yield keyword
        inner: list[Any] = []
        if keyword in NESTED_ONE:
            inner = value if isinstance(value, list) else [value]
        elif keyword in NESTED_LIST and isinstance(value, list):
            inner = value
        elif keyword in NESTED_NAMED and isinstance(value, dict):
            inner = list(value.values())
        for part in inner:
            yield from keywords(part, depth - 1)


def _calls(body: Json, tools: tuple[Json, ...], formed: bool) -> Calls | None:
    """None: nothing is demanded of calls. `formed` says that the text has a form of its own, from
    which calls must be exempt."""
    choice = body.get("tool_choice")
    several = body.get("parallel_tool_calls")
    if not isinstance(several, bool | None):
        raise _wrong("parallel_tool_calls", "must be true or false")
    name = _chosen(choice)
    required = name is not None or choice == "required"
    if required and not tools:
        raise _wrong("tool_choice", "asks for a call, and `tools` declares none")
    if not tools or not (required or formed or several is False):
        return None
    functions = tuple(_function(tool, f"tools[{i}]") for i, tool in enumerate(tools))
    if name is not None:
        functions = tuple(function for function in functions if function.name == name)[:1]
        if not functions:
            raise _wrong("tool_choice.function.name", "is none of the declared tools")
    param = "tool_choice" if required else "tools"
    named = name is not None
    # As at OpenAI: a function that is named is called once.
    return Calls(functions, required, several is not False and not named, param, named=named)


def _chosen(choice: Any) -> str | None:
    """The name of the one function that has to be called."""
    match choice:
        case None | "auto" | "none" | "required":
            return None
        case {"type": "function", "function": {"name": str(name)}}:
            return name
    raise _wrong("tool_choice", "must be auto, none, required, or name a function")


def _function(tool: Json, where: str) -> Function:
    function = tool["function"]
    parameters = function.get("parameters")
    strict = function.get("strict")
    if not isinstance(strict, bool | None):
        raise _wrong(f"{where}.function.strict", "must be true or false")
    grammar = _schema(
        # A tool without parameters takes none.
        {"type": "object"} if parameters is None else parameters,
        f"{where}.function.parameters",
        # Tools are written for all engines: what cannot be enforced is for those who run them.
        strict=bool(strict),
    )
    return Function(function["name"], grammar)


def _wrong(name: str, what: str) -> BadRequestError:
    return BadRequestError(f"`{name}` {what}.", param=name)
