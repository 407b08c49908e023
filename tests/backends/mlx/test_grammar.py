"""Answers of a demanded form, on real models, with llguidance itself."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from backends.errors import BadRequestError, EngineProtocolError
from backends.mlx.engine import SUPPORTED, Engine
from backends.mlx.grammar import Mask, Thinking, _Thought
from backends.mlx.model import HARMONY_THOUGHT, Text
from backends.mlx.notations import HEADS, OURS
from backends.mlx.options import EngineOptions
from backends.mlx.thread import EngineThread
from backends.wire.answer_parser import ReasoningFormat
from backends.wire.call_grammar import CallFormat
from backends.wire.constraint import constraint
from backends.wire.events import Event, ReasoningDelta, ToolCallArguments, ToolCallStart
from backends.wire.notation import (
    DEEPSEEK,
    DEEPSEEK_FENCED,
    HERMES,
    LLAMA3,
    MISTRAL,
    MISTRAL_LIST,
    MISTRAL_WITH_ID,
    QWEN3_CODER,
)
from backends.wire.request import GenerationRequest, parse
from tests.backends.mlx.schemas import random_schema
from tests.backends.mlx.test_engine import answer, end, text, with_engine
from tests.conftest import Variant
from tests.tiny import dialogues as d
from tests.tiny.others import forgetful, thoughtful

SCHEMAS = 200
NAMED = {"type": "function", "function": {"name": "get_weather"}}
SING_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "sing",
        "parameters": {
            "type": "object",
            "properties": {
                "song": {"type": "string", "maxLength": 5},
                "times": {"type": "integer", "minimum": 1, "maximum": 9},
                "loud": {"type": "boolean"},
            },
            "required": ["song", "times"],
            "additionalProperties": False,
        },
    },
}


def asking(question: str = d.QUESTION, **body: Any) -> GenerationRequest:
    body = {"messages": [d.user(question)], "temperature": 0, "max_tokens": 400, **body}
    return parse(json.dumps(body).encode(), chat=True, engine="mlx", supported=SUPPORTED)


def schema_format(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, **more}}


def refused(folder: Path, **body: Any) -> BadRequestError:
    async def scenario(engine: Engine) -> BadRequestError:
        with pytest.raises(BadRequestError) as caught:
            await answer(engine, asking(**body))
        return caught.value

    error = with_engine(folder, scenario)
    assert isinstance(error, BadRequestError)
    return error


@pytest.fixture(scope="module")
def random_weights(variant: Variant, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return forgetful(variant("safetensors"), tmp_path_factory.mktemp("models") / "random")


@pytest.fixture(params=["trained", "random"])
def folder(request: pytest.FixtureRequest, variant: Variant, random_weights: Path) -> Path:
    return variant("safetensors") if request.param == "trained" else random_weights


@pytest.fixture(scope="module")
def words(variant: Variant) -> Text:
    return Text(variant("mlx-bf16"))


def written_by_chance(words: Text, seed: int, *, spare: int = 7, **body: Any) -> str:
    """An answer of a model without an opinion, whose vocabulary is larger than its tokenizer's."""
    import mlx.core as mx

    request = asking(**body)
    prompt = words.prompt(request)
    assert request.constraint is not None
    mask = words._grammars.mask(request.constraint, None, None)
    rng = np.random.default_rng(seed)
    size = len(words._tokenizer) + spare
    ids = list(prompt.ids)
    while len(ids) < len(prompt.ids) + 2000:
        logits = mask(mx.array(ids), mx.array(rng.normal(size=(1, size)).astype(np.float32)))
        ids.append(int(np.argmax(np.array(logits))))
        if ids[-1] in words.stop_ids:
            assert mask.failure is None
            return words.decode(ids[len(prompt.ids) : -1])
    raise AssertionError("the answer has no end")


# Schemas


@pytest.mark.parametrize("start", range(0, SCHEMAS, 50))
def test_answers_to_random_schemas_are_valid(words: Text, start: int) -> None:
    """Whatever the model wants, which here is anything."""
    for seed in range(start, start + 50):
        schema = random_schema(seed)
        written = written_by_chance(words, seed, response_format=schema_format(schema, strict=True))
        jsonschema.validate(json.loads(written), schema)


def test_models_write_valid_answers_to_random_schemas_in_one_batch(folder: Path) -> None:
    schemas = [random_schema(seed) for seed in range(0, SCHEMAS, 25)]

    async def scenario(engine: Engine) -> None:
        requests = [
            asking(json_schema=schema, temperature=1, seed=seed, max_tokens=2000)
            for seed, schema in enumerate(schemas)
        ]
        answers = await asyncio.gather(*(answer(engine, request) for request in requests))
        for schema, events in zip(schemas, answers, strict=True):
            assert end(events).reason == "stop"
            jsonschema.validate(json.loads(text(events)), schema)

    with_engine(folder, scenario, max_rows=16)


def test_any_object_is_an_answer_to_json_object(folder: Path) -> None:
    async def scenario(engine: Engine) -> None:
        body: dict[str, Any] = {"response_format": {"type": "json_object"}, "max_tokens": 80}
        requests = [asking(seed=seed, temperature=1, **body) for seed in range(4)]
        answers = await asyncio.gather(*(answer(engine, request) for request in requests))
        for events in answers:
            assert text(events).startswith("{")
            if end(events).reason == "stop":
                assert isinstance(json.loads(text(events)), dict)

    with_engine(folder, scenario)


def test_a_text_request_has_a_form_as_well(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        body = {"prompt": d.PROMPT, "temperature": 0, "json_schema": {"enum": ["Polly", "wants"]}}
        raw = json.dumps(body).encode()
        request = parse(raw, chat=False, engine="mlx", supported=SUPPORTED)
        assert json.loads(text(await answer(engine, request))) in ("Polly", "wants")

    with_engine(variant("mlx-bf16"), scenario)


# Grammars

GRAMMARS: list[tuple[Any, str]] = [
    ('root ::= "yes" | "no"', "yes|no"),
    ('root ::= item+\nitem ::= "- " [^\\r\\n]{1,9} "\\n"\n', r"(- [^\r\n]{1,9}\n)+"),
    ('root ::= "\\u00e9\\x41\\U0001F95C" [\\u00e0-\\u00ff] "\\u0022"', 'éA🥜[à-ÿ]"'),
    ("root ::= start start\nstart ::= .", r"(?s:..)"),
    ('%llguidance {}\nstart: "I am " /[a-z ]{3,8}/ "."', "I am [a-z ]{3,8}[.]"),
    ({"type": "lark", "value": "start: NUMBER+\nNUMBER: /[0-9]/ /[a-f]/"}, "([0-9][a-f])+"),
    ({"type": "regex", "value": "[0-9]{3}/[a-f]{2}"}, "[0-9]{3}/[a-f]{2}"),
    ({"type": "regex", "value": "(?i)polly|🥜{3}"}, "(?i)polly|🥜{3}"),
    ({"type": "json_schema", "value": {"const": "a"}}, '"a"'),
    ({"type": "gbnf", "value": 'root ::= "a" root | "b"'}, "a*b"),
]


def test_answers_match_their_grammars_side_by_side_in_one_batch(folder: Path) -> None:
    async def scenario(engine: Engine) -> None:
        plain = asking()
        requests = [asking(grammar=g, temperature=1, seed=3) for g, _ in GRAMMARS]
        alone = text(await answer(engine, plain))
        answers = await asyncio.gather(*(answer(engine, r) for r in (*requests, plain)))
        for (grammar, pattern), events in zip(GRAMMARS, answers[:-1], strict=True):
            if end(events).reason == "stop":
                assert re.fullmatch(pattern, text(events)), grammar
        assert sum(end(events).reason == "stop" for events in answers) > len(GRAMMARS) / 2
        assert text(answers[-1]) == alone

    with_engine(folder, scenario, max_rows=16)


def test_the_same_request_has_the_same_answer_alone_and_in_a_batch(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        def request(seed: int) -> GenerationRequest:
            schema = random_schema(seed)
            return asking(json_schema=schema, temperature=0.7, seed=seed, max_tokens=40)

        alone = [text(await answer(engine, request(seed))) for seed in range(4)]
        together = await asyncio.gather(*(answer(engine, request(seed)) for seed in range(4)))
        assert [text(events) for events in together] == alone

    with_engine(variant("mlx-8bit"), scenario)


def test_an_answer_that_has_its_form_ends(variant: Variant) -> None:
    """Even where a bias speaks against every token that ends one."""

    async def scenario(engine: Engine) -> None:
        bias = {"0": -100, "2": -100}
        events = await answer(engine, asking(grammar='root ::= "parrot"', logit_bias=bias))
        assert text(events) == "parrot"
        assert end(events).reason == "stop"

    with_engine(variant("mlx-bf16"), scenario)


def test_a_bias_and_penalties_cannot_lift_the_form(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        wanted = {str(token): 100 for token in range(40, 60)}
        request = asking(
            grammar='root ::= "no"', logit_bias=wanted, presence_penalty=2, repeat_penalty=2
        )
        assert text(await answer(engine, request)) == "no"

    with_engine(variant("mlx-bf16"), scenario)


def test_a_grammar_that_becomes_too_large_fails_its_own_answer_only(variant: Variant) -> None:
    optional = {"properties": {f"property{i}": {"type": "null"} for i in range(900)}}
    either = [{"type": "object", **optional, "required": [f"last{i}"]} for i in range(4)]

    async def scenario(engine: Engine) -> None:
        large = asking(json_schema={"anyOf": either})
        mine, neighbour = await asyncio.gather(
            answer(engine, large), answer(engine, asking()), return_exceptions=True
        )
        assert isinstance(mine, EngineProtocolError)
        assert "form" in mine.message
        assert not isinstance(neighbour, BaseException)
        assert text(neighbour) == d.SENTENCE

    with_engine(variant("mlx-bf16"), scenario)


# Bad grammars


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"json_schema": {"not": {}}}, "json_schema", "`not`"),
        ({"json_schema": {"items": {"if": {}, "then": {}}}}, "json_schema", "`if`"),
        ({"json_schema": {"type": "strin"}}, "json_schema", "strin"),
        ({"json_schema": {"format": "iri"}}, "json_schema", "iri"),
        ({"json_schema": {"pattern": "(?=a)b"}}, "json_schema", "regex"),
        ({"json_schema": {"$ref": "http://x/y"}}, "json_schema", "http://x/y"),
        ({"json_schema": {"$ref": "#"}}, "json_schema", "no text"),
        ({"json_schema": {"oneOf": [{"type": "string"}, {"minLength": 3}]}}, "json_schema",
         "oneOf"),
        ({"json_schema": {"minLength": 3, "maxLength": 1, "type": "string"}}, "json_schema",
         "minLength"),
        ({"response_format": schema_format({"uniqueItems": True})},
         "response_format.json_schema.schema", "uniqueItems"),
        ({"response_format": {"type": "json_object", "schema": {"contains": {}}}},
         "response_format.schema", "contains"),
        ({"grammar": "root ::= ("}, "grammar", "GBNF"),
        ({"grammar": "root ::= nobody"}, "grammar", "nobody"),
        ({"grammar": 'rule ::= "a"'}, "grammar", "root"),
        ({"grammar": 'root ::= "\\'}, "grammar", "GBNF"),
        ({"grammar": "root ::= " + "(" * 5000}, "grammar", "deep"),
        ({"grammar": "%llguidance {}\nstart: nobody"}, "grammar", "nobody"),
        ({"grammar": "%llguidance {}\nstart: start"}, "grammar", "no text"),
        ({"grammar": "%llguidance {}\nstart: <|nobody|>"}, "grammar", "nobody"),
        ({"grammar": {"type": "regex", "value": "(a"}}, "grammar.value", "regex"),
        ({"grammar": {"type": "regex", "value": "(" * 10_000}}, "grammar.value", "regex"),
    ],
)  # fmt: skip
def test_what_cannot_be_enforced_is_named_with_the_reason(
    variant: Variant, body: dict[str, Any], param: str, words: str
) -> None:
    error = refused(variant("mlx-bf16"), **body)
    assert error.param == param
    assert words in error.message
    assert "\n" not in error.message


def test_a_request_that_is_not_strict_gets_what_can_be_enforced(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        schema = {"type": "array", "items": {"const": 1}, "minItems": 2, "uniqueItems": True}
        request = asking(response_format=schema_format({**schema, "maxItems": 2}, strict=False))
        assert json.loads(text(await answer(engine, request))) == [1, 1]

    with_engine(variant("mlx-bf16"), scenario)


# Calls


def calls_in(events: list[Event]) -> list[tuple[str, Any]]:
    """Names, and what the pieces of arguments behind each make together."""
    calls: list[tuple[str, list[str]]] = []
    for event in events:
        if isinstance(event, ToolCallStart):
            calls.append((event.name, []))
        elif isinstance(event, ToolCallArguments):
            calls[-1][1].append(event.text)
    return [(name, json.loads("".join(pieces))) for name, pieces in calls]


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_demanded_call_is_made(folder: Path, choice: Any) -> None:
    bounded = json.loads(json.dumps(d.WEATHER_TOOL))
    bounded["function"]["parameters"]["properties"]["city"]["maxLength"] = 6

    async def scenario(engine: Engine) -> None:
        request = asking(tools=[bounded], tool_choice=choice, parallel_tool_calls=False)
        events = await answer(engine, request)
        ((name, arguments),) = calls_in(events)
        assert name == "get_weather"
        jsonschema.validate(arguments, bounded["function"]["parameters"])
        assert end(events).reason == "tool_calls"
        assert not text(events)

    with_engine(folder, scenario)


def test_the_named_one_of_several_tools_is_called(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        choice = {"type": "function", "function": {"name": "sing"}}
        request = asking(
            d.WEATHER_QUESTION,
            tools=[d.WEATHER_TOOL, SING_TOOL],
            tool_choice=choice,
            parallel_tool_calls=False,
        )
        ((name, arguments),) = calls_in(await answer(engine, request))
        assert name == "sing"
        jsonschema.validate(arguments, SING_TOOL["function"]["parameters"])

    with_engine(variant("mlx-bf16"), scenario)


def test_a_model_that_may_call_decides_itself(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        tools: dict[str, Any] = {"tools": [d.WEATHER_TOOL], "parallel_tool_calls": False}
        called = await answer(engine, asking(d.WEATHER_QUESTION, **tools))
        assert calls_in(called) == [("get_weather", {"city": "Paris"})]
        assert text(await answer(engine, asking(**tools))) == d.SENTENCE

    with_engine(variant("mlx-bf16"), scenario)


def test_a_call_is_exempt_from_the_form_of_the_answer(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        request = asking(
            d.WEATHER_QUESTION, tools=[d.WEATHER_TOOL], response_format={"type": "json_object"}
        )
        assert calls_in(await answer(engine, request)) == [("get_weather", {"city": "Paris"})]

    with_engine(variant("mlx-bf16"), scenario)


# Each notation of calls

FORMATS: dict[str, CallFormat] = {
    "hermes": HERMES.written,
    "qwen3_coder": QWEN3_CODER.written,
    "mistral list": MISTRAL_LIST.written,
    "mistral": MISTRAL.written,
    "mistral with id": MISTRAL_WITH_ID.written,
    "llama3": LLAMA3.written,
    "deepseek": DEEPSEEK.written,
    "deepseek fenced": DEEPSEEK_FENCED.written,
    "glm47": CallFormat(head=HEADS["glm47"], start="<tool_call>", end="</tool_call>"),
    "pythonic": CallFormat(
        head=HEADS["pythonic"], start="<|tool_call_start|>", end="<|tool_call_end|>"
    ),
    "gemma4": CallFormat(head=HEADS["gemma4"], start="<|tool_call>", end="<tool_call|>"),
    "minimax_m2": CallFormat(
        head=HEADS["minimax_m2"], start="<minimax:tool_call>", end="</minimax:tool_call>"
    ),
}
"""Of which the tiny tokenizer knows `<tool_call>` as a token; all others are spelled."""


def spelled(words: Text, style: str, written: str, **body: Any) -> bool:
    """Whether the grammar of the request takes this text to its end."""
    tools = (d.WEATHER_TOOL, SING_TOOL)
    found = constraint(body, tools, chat=True)
    assert found is not None
    mask = words._grammars.mask(found, FORMATS[style], None)
    ids = words._spelled(written)
    taken = mask._matcher.try_consume_tokens(ids)
    return bool(taken == len(ids) and mask._matcher.is_accepting())


JSON = '{"song": "la", "times": 2}'
WRITTEN = {
    "hermes": f'<tool_call>\n{{"name": "sing", "arguments": {JSON}}}\n</tool_call>',
    "qwen3_coder": "<tool_call>\n<function=sing>\n<parameter=song>\nla\n</parameter>\n"
    "<parameter=times>\n2\n</parameter>\n</function>\n</tool_call>",
    "mistral list": f'[TOOL_CALLS][{{"name": "sing", "arguments": {JSON}}}]',
    "mistral": f"[TOOL_CALLS]sing[ARGS]{JSON}",
    "mistral with id": f"[TOOL_CALLS]sing[CALL_ID]Ab12Cd34E[ARGS]{JSON}",
    "llama3": f'{{"name": "sing", "parameters": {JSON}}}',
    "deepseek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>sing<｜tool▁sep｜>"
    f"{JSON}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "deepseek fenced": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>sing\n"
    f"```json\n{JSON}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "glm47": "<tool_call>sing\n<arg_key>song</arg_key>\n<arg_value>la</arg_value></tool_call>",
    "pythonic": '<|tool_call_start|>[sing(song="la", times=2)]<|tool_call_end|>',
    "gemma4": '<|tool_call>call:sing{song:<|"|>la<|"|>,times:2}<tool_call|>',
    "minimax_m2": '<minimax:tool_call>\n<invoke name="sing">\n<parameter name="song">la</parameter>'
    "\n</invoke>\n</minimax:tool_call>",
}


@pytest.mark.parametrize("style", WRITTEN)
def test_what_a_model_was_trained_to_write_is_a_call(words: Text, style: str) -> None:
    written = WRITTEN[style]
    assert spelled(words, style, written, tool_choice="required")
    assert spelled(words, style, written, parallel_tool_calls=False)
    assert spelled(words, style, "Well: " + written, parallel_tool_calls=False)
    assert spelled(words, style, "Well.", parallel_tool_calls=False)
    assert spelled(words, style, written, response_format={"type": "json_object"})
    assert spelled(words, style, "{}", response_format={"type": "json_object"})
    assert not spelled(words, style, "Well: " + written, tool_choice="required")
    assert not spelled(words, style, written, tool_choice=NAMED)
    assert not spelled(words, style, written.replace("sing", "sink"), tool_choice="required")


SECOND = {
    **{style: "\n" + WRITTEN[style] for style in WRITTEN},
    "mistral list": WRITTEN["mistral list"].removeprefix("[TOOL_CALLS][")[:-1].join((", ", "]")),
    "llama3": "; " + WRITTEN["llama3"],
    "deepseek": "\n" + WRITTEN["deepseek"].removeprefix("<｜tool▁calls▁begin｜>"),
}


@pytest.mark.parametrize(
    "style", ["hermes", "qwen3_coder", "mistral", "mistral list", "llama3", "deepseek", "glm47"]
)
def test_one_call_at_most_if_the_request_says_so(words: Text, style: str) -> None:
    last = {"mistral list": "]", "deepseek": "<｜tool▁calls▁end｜>"}.get(style, "")
    twice = WRITTEN[style].removesuffix(last) + SECOND[style]
    assert spelled(words, style, twice, tool_choice="required")
    assert not spelled(words, style, twice, tool_choice="required", parallel_tool_calls=False)
    assert not spelled(words, style, twice, parallel_tool_calls=False)


def test_json_that_is_no_call_of_llama_is_text(words: Text) -> None:
    for said in ('{"name": "dance", "parameters": {}}', '{"song": 1}', '[{"name": "sing"}]'):
        assert spelled(words, "llama3", said, parallel_tool_calls=False)
    for said in ('{"name": "sing", "x": 1}', ' {  "type": "function",\n"name" : "sing"'):
        assert not spelled(words, "llama3", said, parallel_tool_calls=False)


def test_every_known_notation_has_a_parser() -> None:
    import importlib

    for style in (*OURS, *HEADS):
        assert importlib.import_module(f"mlx_lm.tool_parsers.{style}").parse_tool_call


# Calls by models of each notation

SPEAKERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "hermes": ("<tool_call>", ()),
    "qwen3_coder": ("<tool_call>\n<function=", ()),
    "mistral list": ("[TOOL_CALLS]", ("[TOOL_CALLS]",)),
    "mistral": ("[TOOL_CALLS][ARGS]", ("[TOOL_CALLS]", "[ARGS]")),
    "mistral with id": (
        "[TOOL_CALLS][CALL_ID][ARGS]", ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")
    ),
    "llama3": ("<|start_header_id|>ipython<|end_header_id|>", ("<|python_tag|>",)),
    "deepseek": (
        "<｜tool▁call▁begin｜>",
        ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>",
         "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"),
    ),
    "deepseek fenced": (
        "<｜tool▁call▁begin｜>```json",
        ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>",
         "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"),
    ),
    "deepseek, spelled": ("<｜tool▁call▁begin｜>", ()),
    "harmony": (
        "<|start|><|channel|><|message|>",
        ("<|end|>", "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|call|>"),
    ),
    "harmony, spelled": ("<|start|><|channel|><|message|>", ()),
}  # fmt: skip
"""What a model's template has in it, and the tokens that its vocabulary has for that."""

FIRST_TOKEN = 384
"""The id of the first of them."""


@pytest.fixture(params=SPEAKERS)
def speaker(request: pytest.FixtureRequest, random_weights: Path, tmp_path: Path) -> Path:
    """A model that writes calls in one notation, and that has learnt nothing else."""
    template, tokens = SPEAKERS[request.param]
    folder = tmp_path / "speaker"
    shutil.copytree(random_weights, folder)
    _grow(folder, len(tokens))
    words = json.loads((folder / "tokenizer.json").read_text())
    usual = words["added_tokens"][0]
    words["added_tokens"] += [
        {**usual, "id": FIRST_TOKEN + i, "content": text} for i, text in enumerate(tokens)
    ]
    (folder / "tokenizer.json").write_text(json.dumps(words))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{# " + template + " tool_call.name #}{{ messages[0].content }}"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def _grow(folder: Path, tokens: int) -> None:
    import mlx.core as mx

    weights: Any = mx.load(str(folder / "model.safetensors"))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        added = mx.random.normal((tokens, weights[name].shape[1])) * 0.05
        weights[name] = mx.concatenate([weights[name], added.astype(weights[name].dtype)])
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    config = json.loads((folder / "config.json").read_text())
    config["vocab_size"] += tokens
    (folder / "config.json").write_text(json.dumps(config))


TWO_TOOLS = [d.WEATHER_TOOL, json.loads(json.dumps(SING_TOOL))]
# Text in XML ends at a marker that nobody writes by chance.
TWO_TOOLS[1]["function"]["parameters"]["properties"]["song"] = {"enum": ["la", "lalala"]}
SING: dict[str, Any] = {"type": "function", "function": {"name": "sing"}}


def sung(events: list[Event]) -> int:
    """The number of calls, all of which are right."""
    calls = calls_in(events)
    for name, arguments in calls:
        assert name == "sing"
        jsonschema.validate(arguments, TWO_TOOLS[1]["function"]["parameters"])
    assert end(events).reason == "tool_calls"
    assert not text(events).strip()
    return len(calls)


def test_calls_by_chance_are_read_back_as_they_come(speaker: Path) -> None:
    """By the parsers that read all other answers, too."""

    async def scenario(engine: Engine) -> None:
        body: dict[str, Any] = {
            "tools": TWO_TOOLS,
            "tool_choice": SING,
            "temperature": 1,
        }
        words = engine._text
        assert words is not None
        if words.dialect.harmony and len(words._tokenizer) > FIRST_TOKEN:
            # So that a thought ends in time.
            body["logit_bias"] = {str(FIRST_TOKEN): 7}
        one = [asking(seed=seed, parallel_tool_calls=False, **body) for seed in range(3)]
        several = [asking(seed=seed, **body) for seed in range(3)]
        answers = await asyncio.gather(*(answer(engine, r) for r in (*one, *several)))
        assert [sung(events) for events in answers[:3]] == [1] * 3
        assert all(sung(e) for e in answers[3:] if end(e).reason != "length")

    with_engine(speaker, scenario, max_rows=16)


# Thoughts


SPELLED = ReasoningFormat("<think>", "</think>")
TOKENS = ReasoningFormat("<tool_call>", "</tool_call>")
"""Both markers of the first are several tokens here, each of the second is one."""


def steps(
    words: Text, written: str, *, grammar: Any, thinking: Thinking | None, size: int = 400
) -> list[bool]:
    """Whether each token of `written`, and then a stop, was allowed in its turn, up to the first
    that was not."""
    import mlx.core as mx

    found = constraint({"grammar": grammar}, (), chat=True)
    assert found is not None
    mask = words._grammars.mask(found, None, thinking)
    ids, allowed = [1, 1], []
    for token in (*words._spelled(written), 2):
        logits = mask(mx.array(ids), mx.zeros((1, size)))
        allowed.append(logits[0, token].item() == 0)
        ids.append(token)
        if not allowed[-1]:
            break
    assert mask.failure is None
    return allowed


@pytest.mark.parametrize("written", [SPELLED, TOKENS])
@pytest.mark.parametrize("space", ["", "\n", "\n\n"])
def test_the_form_begins_where_the_thought_ends(
    words: Text, written: ReasoningFormat, space: str
) -> None:
    rest = f"Say no, or {{… ¶ < </ {written.end}{space}yes"
    thinking = Thinking(written, open=True)
    assert all(steps(words, rest, grammar='root ::= "yes"', thinking=thinking))
    thinking = Thinking(written, open=False)
    assert all(steps(words, written.start + rest, grammar='root ::= "yes"', thinking=thinking))
    assert not all(steps(words, rest, grammar='root ::= "yes"', thinking=thinking))


@pytest.mark.parametrize("written", [SPELLED, TOKENS])
def test_a_model_that_may_think_may_as_well_answer(words: Text, written: ReasoningFormat) -> None:
    thinking = Thinking(written, open=False)
    assert all(steps(words, "yes", grammar='root ::= "yes"', thinking=thinking))
    assert not all(steps(words, "no", grammar='root ::= "yes"', thinking=thinking))
    assert all(steps(words, "<div>", grammar='root ::= "<div>"', thinking=thinking))


@pytest.mark.parametrize("written", [SPELLED, TOKENS])
def test_no_answer_ends_within_a_thought(words: Text, written: ReasoningFormat) -> None:
    *thought, stop = steps(
        words, "Hm", grammar='root ::= "yes"', thinking=Thinking(written, open=True)
    )
    assert all(thought)
    assert not stop


@pytest.mark.parametrize("may_end", [True, False])
def test_harmony_has_the_form_in_its_last_channel(words: Text, may_end: bool) -> None:
    thinking = Thinking(HARMONY_THOUGHT, open=True, may_end=may_end)
    thought = "<|channel|>analysis<|message|>Hm."
    final = "<|channel|>final<|message|>"
    assert all(steps(words, f"{thought}{final}yes", grammar='root ::= "yes"', thinking=thinking))
    assert not all(steps(words, f"{thought}{final}no", grammar='root ::= "yes"', thinking=thinking))
    assert steps(words, thought, grammar='root ::= "yes"', thinking=thinking)[-1] is may_end


def test_without_a_thought_the_form_begins_at_once(words: Text) -> None:
    assert not steps(words, "\nyes", grammar='root ::= "yes"', thinking=None)[0]
    assert all(steps(words, "yes", grammar='root ::= "yes"', thinking=None))


def test_a_token_may_end_the_thought_and_begin_the_answer() -> None:
    thought = _Thought((1,), b"</think>", inside=True)
    pieces = [b"Hm </thi", b"nk", b">\n{"]
    assert all(thought.takes(9, piece, fits=False) for piece in pieces)
    assert thought.rest == b"\n{"


@pytest.mark.parametrize("thought", ["", "Hm, </think>"])
def test_guesses_are_taken_back(words: Text, thought: str) -> None:
    """As where a draft guesses: each step is asked for guesses first, of which some are wrong."""
    import mlx.core as mx

    found = constraint({"grammar": {"type": "regex", "value": "(a[0-9]|b){8}"}}, (), chat=True)
    assert found is not None
    thinking = Thinking(SPELLED, open=True) if thought else None
    ids = [*words._spelled(thought + "a1ba2bba3bb"), 2]
    wrong = words._spelled("bbba0b")

    def mask() -> Mask:
        return words._grammars.mask(found, None, thinking)

    def asked(mask: Mask, count: int, guesses: list[int]) -> list[int]:
        logits = mask(mx.array([1, 1, *ids[:count], *guesses]), mx.zeros((1, 384)))
        return [int(token) for token in np.flatnonzero(np.isfinite(np.array(logits[0])))]

    straight, guessing = mask(), mask()
    for n in range(len(ids)):
        expected = asked(straight, n, [])
        assert asked(guessing, n, []) == expected
        for guess in range(min(n, 1), 4):
            asked(guessing, n, wrong[:guess])
            assert asked(guessing, n, []) == expected
    assert straight.failure is guessing.failure is None


def test_a_draft_guesses_within_the_form(variant: Variant, random_weights: Path) -> None:
    """And the answer is the one that the model gives without."""
    schema = random_schema(3)

    async def ask(engine: Engine) -> str:
        events = await answer(engine, asking(json_schema=schema))
        assert end(events).reason == "stop"
        return text(events)

    async def drafted(draft: Path) -> str:
        options = EngineOptions(context_length=2048, max_rows=8, draft=draft)
        engine = Engine("tiny", variant("safetensors"), options, thread=EngineThread())
        await engine.load()
        try:
            return await ask(engine)
        finally:
            await engine.close()

    alone = with_engine(variant("safetensors"), ask)
    jsonschema.validate(json.loads(alone), schema)
    assert asyncio.run(drafted(variant("mlx-bf16"))) == alone
    assert asyncio.run(drafted(random_weights)) == alone


@pytest.mark.parametrize("size", [50, 384, 385, 1000])
def test_logits_may_be_more_or_fewer_than_tokens(words: Text, size: int) -> None:
    import mlx.core as mx

    found = constraint({"grammar": {"type": "regex", "value": "(?s:.)*"}}, (), chat=True)
    assert found is not None
    mask = words._grammars.mask(found, None, None)
    for dtype in (mx.float32, mx.bfloat16, mx.float16):
        logits = mask.copy()(mx.array([1]), mx.zeros((1, size), dtype))
        assert logits.dtype == dtype
        assert logits.shape == (1, size)
        assert logits[0, 2].item() == 0
        assert logits[0, 3].item() == 0
        assert not mx.isfinite(logits[0, 384:]).any().item()


@pytest.fixture
def thinker(variant: Variant, tmp_path: Path) -> Path:
    return thoughtful(variant("safetensors"), tmp_path / "thinker")


def test_a_model_thinks_and_then_gives_an_answer_of_the_form(thinker: Path) -> None:
    async def scenario(engine: Engine) -> None:
        request = asking(d.WEATHER_QUESTION, tools=[d.WEATHER_TOOL], grammar='root ::= "yes"')
        events = await answer(engine, request)
        thought = "".join(e.text for e in events if isinstance(e, ReasoningDelta))
        assert json.loads(thought) == {"name": "get_weather", "arguments": {"city": "Paris"}}
        assert text(events) == "yes"
        assert end(events).reason == "stop"

    with_engine(thinker, scenario)
