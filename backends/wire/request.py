"""OpenAI's completion requests, parsed and validated for the engines that we serve ourselves."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from backends.errors import BadRequestError
from backends.wire.constraint import Constraint, constraint
from backends.wire.features import RANDOM_SEED, asked_for, unsupported

Json = dict[str, Any]
Part = Callable[[Any, str], str]
"""Of a message's part and its place: its text. Raises BadRequestError."""

CHAT_PATH, TEXT_PATH = "/v1/chat/completions", "/v1/completions"
COUNT_PATH = "/v1/chat/completions/input_tokens"
"""llama.cpp's: a chat request, answered with the length of its prompt."""

MAX_STOPS = 16
MAX_CHOICES = 32
MAX_LIKELIEST = 20
MAX_BIAS = 100
MAX_TOKENS = 2**31 - 1
"""What llama.cpp counts in."""
MAX_SEED = 2**63 - 1
"""OpenAI's."""
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """None means: the model's own default, else the engine's."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A chat request has `messages`, a text request has `prompt` (text or token ids)."""

    messages: tuple[Json, ...] = ()
    prompt: str | tuple[int, ...] = ""
    tools: tuple[Json, ...] = ()
    template_arguments: Json = field(default_factory=dict)
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    sampling: Sampling = Sampling()
    n: int = 1
    """Answers to give, each drawn for itself."""
    logprobs: int | None = None
    """How many of the likeliest tokens to tell with each token; None: nothing of the kind."""
    constraint: Constraint | None = None

    @property
    def chat(self) -> bool:
        return bool(self.messages)


def parse(raw: bytes, *, chat: bool, engine: str, supported: frozenset[str]) -> GenerationRequest:
    """The request in `raw`; unknown fields are ignored.

    Raises:
        BadRequestError: naming the field that is wrong, or that `engine` cannot honour.
    """
    body = json_body(raw)
    if lacking := asked_for(body) - supported:
        raise unsupported(min(lacking), engine)
    return _request(Fields(body), chat)


def check(body: Json, *, chat: bool) -> frozenset[str]:
    """What `body` asks for that not every engine has, by the names of `backends.wire.features`.
    What is wrong here is wrong for all of them; pictures and sounds are for the engine to judge.

    Raises:
        BadRequestError: naming the field that is wrong.
    """
    _request(Fields(body), chat, part=_any_part)
    return asked_for(body)


def json_body(raw: bytes) -> Json:
    """The JSON object in `raw`.

    Raises:
        BadRequestError: it is none.
    """
    try:
        body = json.loads(raw, parse_constant=_no_constant)
        check_encodable(raw, body)
    except (ValueError, RecursionError):
        raise BadRequestError("The request body is not JSON.") from None
    if not isinstance(body, dict):
        raise BadRequestError("The request body must be a JSON object.")
    return body


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def check_encodable(raw: bytes, body: Any) -> None:
    """Half a surrogate pair is no character: no tokenizer takes it. `body` is `raw`, parsed.

    Raises:
        UnicodeEncodeError: there is one.
    """
    if b"\\ud" in raw.lower():
        json.dumps(body, ensure_ascii=False).encode()


def _any_part(part: Any, where: str) -> str:
    kind = _kind(part)
    return "" if isinstance(kind, str) and kind != "text" else _text_part(part, where)


def _text_part(part: Any, where: str) -> str:
    kind = _kind(part)
    if kind != "text":
        raise _wrong(where, f"is of type {str(kind)[:30]!r}; this model reads text only")
    if not isinstance(part.get("text"), str):
        raise _wrong(f"{where}.text", "must be text")
    return str(part["text"])


def _request(fields: Fields, chat: bool, part: Part = _text_part) -> GenerationRequest:
    options = fields.object("stream_options")
    tools = _tools(fields) if chat else ()
    return GenerationRequest(
        messages=_messages(fields.body.get("messages"), part) if chat else (),
        prompt="" if chat else _prompt(fields.body.get("prompt")),
        tools=tools,
        template_arguments=_template_arguments(fields),
        stream=fields.boolean("stream"),
        include_usage=bool(options.get("include_usage")),
        max_tokens=_limit(fields),
        n=fields.integer("n", low=1, high=MAX_CHOICES) or 1,
        logprobs=_logprobs(fields, chat),
        stop=_stop(fields.body.get("stop")),
        sampling=_sampling(fields),
        constraint=constraint(fields.body, tools, chat=chat),
    )


def _limit(fields: Fields) -> int | None:
    """The newest name counts. llama.cpp's own one knows -1, for no limit."""
    for name in ("max_completion_tokens", "max_tokens"):
        if (limit := fields.integer(name, low=1, high=MAX_TOKENS)) is not None:
            return limit
    limit = fields.integer("n_predict", low=-1, high=MAX_TOKENS)
    if limit == 0:
        raise _wrong("n_predict", "must be at least 1, or -1")
    return None if limit == -1 else limit


def _template_arguments(fields: Fields) -> Json:
    given, effort = fields.object("chat_template_kwargs"), fields.body.get("reasoning_effort")
    if effort is None:
        return given
    if not isinstance(effort, str):
        raise _wrong("reasoning_effort", "must be text")
    return {**thinking(effort), **given}


def thinking(effort: str) -> Json:
    """What templates call it: most know a switch, gpt-oss an effort."""
    if effort == "none":
        return {"enable_thinking": False}
    return {"enable_thinking": True, "reasoning_effort": effort}


class Fields:
    """Typed access to a body; a wrong type or range names the field."""

    def __init__(self, body: Json) -> None:
        self.body = body

    def boolean(self, name: str) -> bool:
        value = self.body.get(name)
        if not isinstance(value, bool | None):
            raise _wrong(name, "must be true or false")
        return bool(value)

    def integer(self, name: str, *, low: int | None = None, high: int | None = None) -> int | None:
        value = self.body.get(name)
        if value is None:
            return None
        if type(value) is not int:
            raise _wrong(name, "must be a whole number")
        if low is not None and value < low:
            raise _wrong(name, f"must be at least {low}")
        if high is not None and value > high:
            raise _wrong(name, f"must be at most {high}")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        value = self.body.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(name, "must be a number")
        if not low <= value <= high:
            raise _wrong(name, f"must be between {low:g} and {high:g}")
        return float(value)

    def object(self, name: str) -> Json:
        value = self.body.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise _wrong(name, "must be an object")
        return dict(value)


def _logprobs(fields: Fields, chat: bool) -> int | None:
    """A chat says whether, and how many beside; a text request says how many."""
    if not chat:
        return fields.integer("logprobs", low=0, high=MAX_LIKELIEST)
    count = fields.integer("top_logprobs", low=0, high=MAX_LIKELIEST)
    if fields.boolean("logprobs"):
        return count or 0
    if count:
        raise _wrong("top_logprobs", "needs `logprobs` to be true")
    return None


def _sampling(fields: Fields) -> Sampling:
    penalty = fields.number("repetition_penalty", 0.01, 10)
    seed = fields.integer("seed", low=-MAX_SEED, high=MAX_SEED)
    return Sampling(
        temperature=fields.number("temperature", 0, 100),
        top_p=fields.number("top_p", 0, 1),
        top_k=fields.integer("top_k", low=-1, high=2**31 - 1),
        min_p=fields.number("min_p", 0, 1),
        seed=None if seed == RANDOM_SEED else seed,
        repetition_penalty=penalty or fields.number("repeat_penalty", 0.01, 10),
        presence_penalty=fields.number("presence_penalty", -2, 2),
        frequency_penalty=fields.number("frequency_penalty", -2, 2),
        logit_bias=_logit_bias(fields.object("logit_bias")),
    )


def _logit_bias(value: Json) -> dict[int, float]:
    try:
        return {_token(token): _bias(bias) for token, bias in value.items()}
    except (TypeError, ValueError):
        raise _wrong("logit_bias", "must map token ids to numbers between -100 and 100") from None


def _token(value: str) -> int:
    token = int(value)
    if not 0 <= token < 2**31:
        raise ValueError
    return token


def _bias(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    if not -MAX_BIAS <= value <= MAX_BIAS:
        raise ValueError
    return float(value)


def _messages(value: Any, part: Part) -> tuple[Json, ...]:
    if not isinstance(value, list) or not value:
        raise _wrong("messages", "must be a list with at least one message")
    return tuple(_message(message, f"messages[{i}]", part) for i, message in enumerate(value))


def _message(message: Any, where: str, part: Part) -> Json:
    """With text content, and with arguments of tool calls as the objects that templates expect,
    or as the text that they are if they are no JSON: agents replay calls that were cut off."""
    if not isinstance(message, dict):
        raise _wrong(where, "must be an object")
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise _wrong(f"{where}.role", f"must be one of {', '.join(sorted(ROLES))}")
    plain = {**message, "role": "system" if role == "developer" else role}
    plain["content"] = _content(message.get("content"), f"{where}.content", part)
    if message.get("tool_calls"):
        plain["tool_calls"] = _tool_calls(message["tool_calls"], f"{where}.tool_calls")
    return plain


def _content(value: Any, where: str, text_of: Part) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise _wrong(where, "must be text or a list of parts")
    # As llama.cpp and vLLM join them.
    return "\n".join(text_of(part, f"{where}[{i}]") for i, part in enumerate(value))


def _tool_calls(value: Any, where: str) -> list[Json]:
    if not isinstance(value, list):
        raise _wrong(where, "must be a list")
    return [_tool_call(call, f"{where}[{i}]") for i, call in enumerate(value)]


def _tool_call(call: Any, where: str) -> Json:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise _wrong(f"{where}.function", "must be an object with a name")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError, RecursionError):
            arguments = json.loads(arguments or "{}")
    return {**call, "function": {**function, "arguments": arguments}}


def _tools(fields: Fields) -> tuple[Json, ...]:
    value = fields.body.get("tools")
    if value is None or fields.body.get("tool_choice") == "none":
        return ()
    if not isinstance(value, list):
        raise _wrong("tools", "must be a list")
    for i, tool in enumerate(value):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _wrong(f"tools[{i}].function", "must be an object with a name")
    return tuple(value)


def _prompt(value: Any) -> str | tuple[int, ...]:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
        value = value[0]
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(type(token) is int for token in value):
        return tuple(value)
    if isinstance(value, list) and len(value) > 1:
        return _first_prompt(value)
    raise _wrong("prompt", "must be text or a list of token ids")


def _first_prompt(value: list[Any]) -> str | tuple[int, ...]:
    """Of several, which are for engines that read all of them: none that we serve ourselves."""
    if any(type(one) is not type(value[0]) for one in value):
        raise _wrong("prompt", "must hold texts or lists of token ids, all of one kind")
    if not isinstance(value[0], str | list):
        raise _wrong("prompt", "must be text or a list of token ids")
    first, *_ = [_prompt(one) for one in value]
    return first


def _stop(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else ([] if value is None else value)
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise _wrong("stop", "must be text or a list of texts")
    if len(stops) > MAX_STOPS:
        raise _wrong("stop", f"may hold at most {MAX_STOPS} texts")
    return tuple(stop for stop in stops if stop)


def _kind(value: Any) -> Any:
    return value.get("type") if isinstance(value, dict) else None


def _wrong(name: str, what: str) -> BadRequestError:
    return BadRequestError(f"`{name}` {what}.", param=name)
