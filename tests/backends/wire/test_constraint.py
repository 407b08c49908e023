from __future__ import annotations

import json
from typing import Any

import pytest

from backends.errors import BadRequestError
from backends.wire.constraint import (
    MAX_CHARACTERS,
    MAX_DEPTH,
    MAX_PROPERTIES,
    UNENFORCED,
    Constraint,
    constraint,
)
from tests.tiny.dialogues import WEATHER_TOOL

NAMED = {"type": "function", "function": {"name": "get_weather"}}
OTHER_TOOL = {"type": "function", "function": {"name": "sing"}}


def of(*tools: Any, chat: bool = True, **body: Any) -> Constraint | None:
    return constraint(json.loads(json.dumps(body)), tools, chat=chat)


def schema_of(**body: Any) -> Any:
    found = of(**body)
    assert found is not None
    assert found.answer is not None
    assert found.answer.kind == "json_schema"
    return found.answer.source


def refused(*tools: Any, **body: Any) -> BadRequestError:
    with pytest.raises(BadRequestError) as caught:
        of(*tools, **body)
    return caught.value


def format_of(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, **more}}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"response_format": None},
        {"response_format": {"type": "text"}},
        {"grammar": ""},
        {"grammar": None, "json_schema": None},
        {"tool_choice": "auto"},
        {"tool_choice": "none"},
        {"parallel_tool_calls": False},
    ],
)
def test_what_demands_nothing_is_no_constraint(body: dict[str, Any]) -> None:
    assert of(**body) is None


def test_tools_alone_demand_nothing() -> None:
    assert of(WEATHER_TOOL, tool_choice="auto", parallel_tool_calls=True) is None


@pytest.mark.parametrize(
    ("body", "schema"),
    [
        ({"response_format": {"type": "json_object"}}, {"type": "object"}),
        ({"response_format": {"type": "json_object", "schema": {"a": 1}}}, {"a": 1}),
        ({"response_format": format_of({"type": "null"})}, {"type": "null"}),
        ({"json_schema": {}}, {}),
        ({"grammar": {"type": "json_schema", "value": {"const": 1}}}, {"const": 1}),
    ],
)
def test_a_schema_is_asked_for_in_many_ways(body: dict[str, Any], schema: Any) -> None:
    assert schema_of(**body) == schema


def test_options_of_the_compiler_are_not_the_requests_to_set() -> None:
    schema = {"type": "null", "x-guidance": {"lenient": True}}
    assert schema_of(json_schema=schema) == {"type": "null"}


@pytest.mark.parametrize("keyword", sorted(UNENFORCED))
def test_what_no_engine_keeps_is_refused_unless_the_request_does_not_mind(keyword: str) -> None:
    schema: Any = {"anyOf": [{keyword: {}}]}
    with pytest.raises(BadRequestError, match=f"`{keyword}`, which cannot be enforced"):
        of(json_schema=schema)
    with pytest.raises(BadRequestError):
        of(response_format=format_of(schema, strict=True))
    assert of(response_format=format_of(schema, strict=False))
    assert of(json_schema={"properties": {keyword: {}}})


@pytest.mark.parametrize(
    ("grammar", "kind"),
    [
        ('root ::= "a"', "gbnf"),
        ('%llguidance {}\nstart: "a"', "lark"),
        ({"type": "regex", "value": "a+"}, "regex"),
        ({"type": "lark", "value": 'start: "a"'}, "lark"),
        ({"type": "gbnf", "value": 'root ::= "a"'}, "gbnf"),
    ],
)
def test_a_grammar_is_gbnf_unless_it_says_otherwise(grammar: Any, kind: str) -> None:
    found = of(grammar=grammar)
    assert found is not None
    assert found.answer is not None
    assert found.answer.kind == kind


@pytest.mark.parametrize(("strict", "lenient"), [(None, False), (True, False), (False, True)])
def test_only_a_request_that_is_not_strict_lets_keywords_go(
    strict: bool | None, lenient: bool
) -> None:
    found = of(response_format=format_of({"type": "null"}, strict=strict))
    assert found is not None
    assert found.answer is not None
    assert found.answer.lenient is lenient


def test_a_demanded_call_leaves_no_room_for_another_answer() -> None:
    found = of(WEATHER_TOOL, tool_choice="required", response_format={"type": "json_object"})
    assert found is not None
    assert found.answer is None
    assert found.calls is not None
    assert found.calls.required
    assert found.calls.several


def test_a_named_function_is_the_only_one() -> None:
    found = of(OTHER_TOOL, WEATHER_TOOL, tool_choice=NAMED, parallel_tool_calls=False)
    assert found is not None
    assert found.calls is not None
    assert [function.name for function in found.calls.functions] == ["get_weather"]
    assert found.calls.named
    assert not found.calls.several


def test_calls_are_exempt_from_the_form_of_an_answer() -> None:
    found = of(WEATHER_TOOL, response_format={"type": "json_object"})
    assert found is not None
    assert found.answer is not None
    assert found.calls is not None
    assert not found.calls.required


def test_a_text_request_calls_nothing() -> None:
    assert of(WEATHER_TOOL, chat=False, tool_choice="required") is None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"response_format": "json"}, "response_format"),
        ({"response_format": []}, "response_format"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_object", "schema": 1}}, "response_format.schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": format_of(None)}, "response_format.json_schema.schema"),
        ({"response_format": format_of([])}, "response_format.json_schema.schema"),
        ({"response_format": format_of({}, strict=1)}, "response_format.json_schema.strict"),
        ({"json_schema": "{}"}, "json_schema"),
        ({"json_schema": True}, "json_schema"),
        ({"grammar": 1}, "grammar"),
        ({"grammar": {"type": "bnf", "value": "a"}}, "grammar"),
        ({"grammar": {"type": "regex"}}, "grammar"),
        ({"grammar": {"type": "regex", "value": 1}}, "grammar.value"),
        ({"grammar": {"type": "json_schema", "value": "a"}}, "grammar.value"),
        ({"grammar": "root ::= [a]", "json_schema": {}}, "grammar"),
        ({"response_format": {"type": "json_object"}, "json_schema": {}}, "json_schema"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": 1}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": 1}}}, "tool_choice"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ],
)
def test_what_is_wrong_is_named(body: dict[str, Any], param: str) -> None:
    error = refused(**body)
    assert error.param == param
    assert f"`{param}`" in error.message


def test_a_function_that_is_not_declared_cannot_be_demanded() -> None:
    assert refused(OTHER_TOOL, tool_choice=NAMED).param == "tool_choice.function.name"


@pytest.mark.parametrize(
    ("function", "param"),
    [
        ({"parameters": []}, "tools[0].function.parameters"),
        ({"strict": 1}, "tools[0].function.strict"),
        ({"strict": True, "parameters": {"not": {}}}, "tools[0].function.parameters"),
    ],
)
def test_a_wrong_function_is_named(function: Any, param: str) -> None:
    tool = {"type": "function", "function": {"name": "f", **function}}
    assert refused(tool, tool_choice="required").param == param


@pytest.mark.parametrize(
    "schema",
    [
        {"not": {}},
        {"nullable": True},
        {"properties": {"a": {"uniqueItems": True}}},
        {"items": {"contentEncoding": "base64"}},
        {"items": [{"minContains": 1}]},
        {"anyOf": [{}, {"dependentRequired": {}}]},
        {"$defs": {"a": {"unknown": 1}}},
        {"additionalProperties": {"propertyNames": {}}},
        {"patternProperties": {"a": {"if": {}}}},
    ],
)
def test_a_strict_schema_has_no_keyword_that_nothing_enforces(schema: Any) -> None:
    def innermost(part: Any) -> str:
        *_, last = _keywords_in(part)
        return last

    error = refused(response_format=format_of(schema, strict=True))
    assert error.param == "response_format.json_schema.schema"
    assert f"`{innermost(schema)}`" in error.message


def _keywords_in(part: Any) -> list[str]:
    names = {"a"}
    if isinstance(part, list):
        return [name for inner in part for name in _keywords_in(inner)]
    if not isinstance(part, dict):
        return []
    own = [name for name in part if name not in names]
    return own + [name for inner in part.values() for name in _keywords_in(inner)]


def test_a_strict_schema_may_say_what_demands_nothing() -> None:
    schema = {
        "title": "A", "description": "…", "x-order": 1, "default": {"not": 1},
        "properties": {"not": {"type": "null", "examples": [{"if": 1}]}},
        "enum": [{"if": 1}],
    }  # fmt: skip
    assert schema_of(response_format=format_of(schema, strict=True)) == schema


def nested(levels: int) -> Any:
    schema: Any = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


def test_a_schema_is_bounded_in_depth() -> None:
    assert schema_of(json_schema=nested(MAX_DEPTH - 1))
    assert "levels" in refused(json_schema=nested(MAX_DEPTH)).message
    # Deeper than any walk that calls itself would come.
    assert "levels" in refused(json_schema=nested(400)).message


@pytest.mark.parametrize(
    "body",
    [
        {"json_schema": {"enum": ["a" * MAX_CHARACTERS]}},
        {"json_schema": {"anyOf": [{"const": "a" * 100}] * (MAX_CHARACTERS // 100)}},
        {"json_schema": {"enum": list(range(MAX_CHARACTERS // 5))}},
        {"grammar": "a" * (MAX_CHARACTERS + 1)},
    ],
)
def test_a_grammar_is_bounded_in_size(body: dict[str, Any]) -> None:
    assert str(MAX_CHARACTERS) in refused(**body).message


def test_an_object_is_bounded_in_its_properties() -> None:
    many: dict[str, Any] = {f"p{i}": {} for i in range(MAX_PROPERTIES)}
    assert schema_of(json_schema={"items": {"properties": many}})
    error = refused(json_schema={"items": {"properties": {**many, "one more": {}}}})
    assert str(MAX_PROPERTIES) in error.message
