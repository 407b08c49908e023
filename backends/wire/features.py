"""What a request for text may ask for that not every engine has: one table. Pure.

What stands neither here nor in `backends.wire.request` is no parameter that is known, and is passed
on or ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from backends.errors import BadRequestError
from backends.wire.constraint import LARK_MARK, keywords

Json = dict[str, Any]

MLX, LLAMA_CPP, MISTRAL_RS = "mlx", "llama.cpp", "mistral.rs"
EVERY = frozenset({MLX, LLAMA_CPP, MISTRAL_RS})
NONE: frozenset[str] = frozenset()

RANDOM_SEED = -1
"""As llama.cpp has it: any, as without one."""

ELSEWHERE = frozenset({"maxProperties", "minProperties", "multipleOf", "patternProperties"})
"""Keywords of schemas that llama.cpp leaves out when it makes a grammar of them."""


@dataclass(frozen=True, slots=True)
class Feature:
    """`asks`: whether a body asks for it, whatever the types of its values. `engines` are those
    that honour it, with the versions that are pinned; of mistral.rs, the wheel. What all of them do
    stands here where one has to be told in other words: `router.api.engine_body`."""

    asks: Callable[[Json], bool]
    engines: frozenset[str]


def _set(name: str) -> Callable[[Json], bool]:
    return lambda body: bool(body.get(name))


def _other_than(name: str, *usual: Any) -> Callable[[Json], bool]:
    """Whether it has another value than those which say what happens anyway."""
    return lambda body: body.get(name) not in (None, *usual)


def _likelihoods(body: Json) -> bool:
    """Text requests give a number here, of which 0 asks for something, too."""
    return not any(body.get("logprobs") is no for no in (None, False))


def _no_others(body: Json) -> bool:
    return type(body.get("logprobs")) is int and body["logprobs"] == 0


def _formed(body: Json) -> bool:
    value = body.get("response_format")
    return (value.get("type") if isinstance(value, dict) else None) not in (None, "text")


def _keyword(body: Json) -> bool:
    form = body.get("response_format")
    form = form if isinstance(form, dict) else {}
    named = form.get("json_schema")
    named = named if isinstance(named, dict) else {}
    lenient = named.get("strict") is False
    schemas = ({} if lenient else named.get("schema"), form.get("schema"), body.get("json_schema"))
    return any(not ELSEWHERE.isdisjoint(keywords(schema)) for schema in schemas)


def _token_ids(body: Json) -> bool:
    prompt = body.get("prompt")
    ids = [prompt, *prompt] if isinstance(prompt, list) else []
    return any(type(one[0]) is int for one in ids if isinstance(one, list) and one)


def _several(body: Json) -> bool:
    prompt = body.get("prompt")
    return isinstance(prompt, list) and len(prompt) > 1 and isinstance(prompt[0], str | list)


def _empty_stop(body: Json) -> bool:
    stops = body.get("stop")
    return stops == "" or (isinstance(stops, list) and "" in stops)


def _called(body: Json) -> bool:
    return bool(body.get("tools")) and body.get("tool_choice") != "none"


def _in_lark(body: Json) -> bool:
    grammar = body.get("grammar")
    return isinstance(grammar, str) and grammar.lstrip().startswith(LARK_MARK)


FEATURES: Mapping[str, Feature] = {
    "n": Feature(_other_than("n", 1), frozenset({MLX, LLAMA_CPP})),
    "logprobs": Feature(_likelihoods, frozenset({MLX, LLAMA_CPP})),
    "logprobs (0)": Feature(_no_others, frozenset({MLX})),
    "top_logprobs": Feature(_set("top_logprobs"), frozenset({MLX, LLAMA_CPP})),
    # A seed is the engine's in mistral.rs, not a request's.
    "seed": Feature(_other_than("seed", RANDOM_SEED), frozenset({MLX, LLAMA_CPP})),
    "logit_bias": Feature(_set("logit_bias"), EVERY),
    "response_format": Feature(_formed, EVERY),
    "response_format (of a text)": Feature(
        lambda body: "messages" not in body and _formed(body), EVERY
    ),
    "response_format (minProperties, maxProperties, patternProperties, multipleOf)": Feature(
        _keyword, frozenset({MLX, MISTRAL_RS})
    ),
    "json_schema": Feature(_other_than("json_schema"), EVERY),
    "grammar": Feature(_set("grammar"), EVERY),
    "grammar (an object)": Feature(
        lambda body: isinstance(body.get("grammar"), dict), frozenset({MLX, MISTRAL_RS})
    ),
    "grammar (in Lark)": Feature(_in_lark, frozenset({MLX, MISTRAL_RS})),
    "grammar (with tools)": Feature(
        lambda body: bool(body.get("grammar")) and _called(body), frozenset({MLX, MISTRAL_RS})
    ),
    "tool_choice": Feature(_other_than("tool_choice", "auto", "none"), EVERY),
    "tool_choice (a function)": Feature(
        lambda body: "messages" in body and isinstance(body.get("tool_choice"), dict), EVERY
    ),
    "parallel_tool_calls (false)": Feature(
        lambda body: body.get("parallel_tool_calls") is False and _called(body), EVERY
    ),
    "tool_choice (none)": Feature(lambda body: body.get("tool_choice") == "none", EVERY),
    "stop (an empty text)": Feature(_empty_stop, EVERY),
    "repetition_penalty": Feature(_other_than("repetition_penalty"), EVERY),
    "reasoning_effort": Feature(_other_than("reasoning_effort"), EVERY),
    "prompt (token ids)": Feature(_token_ids, frozenset({MLX, LLAMA_CPP})),
    "prompt (several)": Feature(_several, frozenset({LLAMA_CPP})),
    "best_of": Feature(_other_than("best_of", 1), NONE),
    "echo": Feature(_set("echo"), NONE),
    "suffix": Feature(_set("suffix"), NONE),
    "functions": Feature(_set("functions"), NONE),
    "function_call": Feature(_other_than("function_call", "auto", "none"), NONE),
    "modalities": Feature(_other_than("modalities", ["text"], []), NONE),
    "web_search_options": Feature(_other_than("web_search_options"), NONE),
    # Samplers of llama.cpp's; clients say their neutral values, too.
    "dynatemp_range": Feature(_other_than("dynatemp_range", 0), frozenset({LLAMA_CPP})),
    "typical_p": Feature(_other_than("typical_p", 1), frozenset({LLAMA_CPP})),
    "top_n_sigma": Feature(_other_than("top_n_sigma", -1, 0), frozenset({LLAMA_CPP})),
    "xtc_probability": Feature(_other_than("xtc_probability", 0), frozenset({LLAMA_CPP})),
    "dry_multiplier": Feature(_other_than("dry_multiplier", 0), frozenset({LLAMA_CPP})),
    "mirostat": Feature(_other_than("mirostat", 0), frozenset({LLAMA_CPP})),
    "ignore_eos": Feature(_set("ignore_eos"), frozenset({LLAMA_CPP})),
}
"""By the parameter, and in brackets by which of its values, where not all are meant."""

EMBEDDING_FEATURES: Mapping[str, Feature] = {
    name: Feature(_other_than(name), frozenset({MLX})) for name in ("dimensions", "prompt_name")
}


def asked_for(body: Json, features: Mapping[str, Feature] = FEATURES) -> frozenset[str]:
    """The names of those that a request asks for."""
    return frozenset(name for name, feature in features.items() if feature.asks(body))


def honoured(engine: str) -> frozenset[str]:
    """The names of those that `engine` has."""
    both = {**FEATURES, **EMBEDDING_FEATURES}
    return frozenset(name for name, feature in both.items() if engine in feature.engines)


def unsupported(name: str, engine: str) -> BadRequestError:
    """That `engine` lacks the feature `name`, and who has it."""
    param, _, which = name.partition(" ")
    feature = FEATURES.get(name) or EMBEDDING_FEATURES[name]
    able = sorted(feature.engines)
    if able:
        verb = "have" if len(able) > 1 else "has"
        advice = f"{' and '.join(able)} {verb} it: leave it out, or take a model that runs there."
    else:
        advice = "no engine here has it: leave it out."
    return BadRequestError(
        f"`{param}`{f' {which}' if which else ''} is not supported by {engine}; {advice}",
        param=param,
    )
