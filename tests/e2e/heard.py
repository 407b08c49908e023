"""What an answer says, by the same names whatever its dialect and whether it was streamed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx

Json = dict[str, Any]

CHAT, TEXT, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
OLLAMA_CHAT, OLLAMA_GENERATE = "/api/chat", "/api/generate"
COUNT = "/v1/messages/count_tokens"


def heard(path: str, answer: httpx.Response, *, streamed: bool = False) -> Json:
    """`status`, and of an answer `text`, `thought`, `reason`, `calls`, `choices`, `prompt_tokens`,
    `completion_tokens` and `likelihoods`, as far as its dialect has them; of an error what its
    dialect tells besides words."""
    if answer.status_code != 200:
        return {"status": answer.status_code, **_error(answer.json())}
    if not streamed:
        return {"status": 200, **WHOLE[path](answer.json())}
    if path.startswith("/api"):
        return {"status": 200, **WHOLE[path](_joined(map(json.loads, answer.text.splitlines())))}
    return {"status": 200, **STREAMED[path](list(_events(answer.text)))}


def _error(body: Json) -> Json:
    told = body["error"]
    if isinstance(told, str):
        return {"message": told}
    return {key: told.get(key) for key in ("message", "type", "code", "param") if key in told}


def _events(text: str) -> Iterator[Json]:
    for line in text.splitlines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


# OpenAI's completions


def _completion(answer: Json) -> Json:
    choices = [_choice(choice) for choice in answer["choices"]]
    first = choices[0] if choices else {}
    return {**first, "choices": len(choices), **_usage(answer.get("usage"))}


def _choice(choice: Json) -> Json:
    message = choice.get("message", choice)
    said = {
        "text": message.get("content", message.get("text")) or "",
        "value": _value(message.get("content")),
        "reason": choice["finish_reason"],
        "calls": _calls(message.get("tool_calls")),
        "likelihoods": _likelihoods(choice.get("logprobs")),
    }
    return said | {"thought": message.get("reasoning_content") or ""}


def _value(text: Any) -> Any:
    """Of a text that is JSON: engines differ about the white space in it."""
    try:
        return json.loads(text or "null")
    except ValueError:
        return None


def _calls(calls: Any) -> list[tuple[str, Any]]:
    return [_call(call["function"]["name"], call["function"]["arguments"]) for call in calls or ()]


def _call(name: str, arguments: str) -> tuple[str, Any]:
    try:
        return name, json.loads(arguments)
    except ValueError:
        return name, arguments


def _likelihoods(told: Any) -> tuple[int, int] | None:
    """Of how many tokens, and how many others beside the first of them."""
    if not told:
        return None
    if "content" in told:
        return len(told["content"]), len(told["content"][0]["top_logprobs"])
    return len(told["tokens"]), len(told["top_logprobs"][0])


def _usage(usage: Any) -> Json:
    if not usage:
        return {"prompt_tokens": None, "completion_tokens": None}
    return {key: usage[key] for key in ("prompt_tokens", "completion_tokens")}


def _chunks(chunks: list[Json]) -> Json:
    """Added up as OpenAI's client does."""
    choices: dict[int, Json] = {}
    usage = None
    for chunk in chunks:
        usage = chunk.get("usage") or usage
        for part in chunk["choices"]:
            _add(choices.setdefault(part["index"], _new()), part)
    answer = {"choices": [choices[index] for index in sorted(choices)], "usage": usage}
    return _completion(answer)


def _new() -> Json:
    return {"message": {"content": "", "tool_calls": []}, "finish_reason": None, "logprobs": None}


def _add(choice: Json, part: Json) -> None:
    delta, message = part.get("delta", part), choice["message"]
    message["content"] += delta.get("content") or delta.get("text") or ""
    thought = delta.get("reasoning_content") or ""
    message["reasoning_content"] = message.get("reasoning_content", "") + thought
    for call in delta.get("tool_calls") or ():
        if call["index"] == len(message["tool_calls"]):
            message["tool_calls"].append({"function": {"name": "", "arguments": ""}})
        function = message["tool_calls"][call["index"]]["function"]
        for name in ("name", "arguments"):
            function[name] += call["function"].get(name) or ""
    choice["finish_reason"] = part["finish_reason"] or choice["finish_reason"]
    if part.get("logprobs"):
        choice["logprobs"] = _more(choice["logprobs"], part["logprobs"])


def _more(sofar: Json | None, told: Json) -> Json:
    if sofar is None:
        return told
    lists = {key: value for key, value in told.items() if isinstance(value, list)}
    return {**sofar, **{key: sofar[key] + value for key, value in lists.items()}}


# Other dialects


def _message(answer: Json) -> Json:
    blocks = answer["content"]
    return {
        "text": "".join(block["text"] for block in blocks if block["type"] == "text"),
        "calls": [(b["name"], b["input"]) for b in blocks if b["type"] == "tool_use"],
        "reason": answer["stop_reason"],
        "stop": answer["stop_sequence"],
        "prompt_tokens": _prompt_tokens(answer["usage"]),
        "completion_tokens": answer["usage"]["output_tokens"],
    }


def _prompt_tokens(usage: Json) -> int:
    """Those that were computed, and those that were there."""
    return int(usage["input_tokens"]) + int(usage["cache_read_input_tokens"])


def _message_events(events: list[Json]) -> Json:
    blocks: list[Json] = []
    end: Json = {}
    for event in events:
        match event["type"]:
            case "content_block_start":
                blocks.append({**event["content_block"], "partial": ""})
            case "content_block_delta":
                delta = event["delta"]
                blocks[-1]["partial"] += delta.get("text") or delta.get("partial_json") or ""
            case "message_delta":
                end = {**event["delta"], "usage": event["usage"]}
    for block in blocks:
        if block["type"] == "tool_use":
            block["input"] = json.loads(block["partial"] or "{}")
        else:
            block["text"] = block["partial"]
    return _message({"content": blocks, **end})


def _response(answer: Json) -> Json:
    items = answer["output"]
    texts = [
        part["text"] for item in items if item["type"] == "message" for part in item["content"]
    ]
    calls = [item for item in items if item["type"] == "function_call"]
    details = answer["incomplete_details"]
    return {
        "text": "".join(texts),
        "calls": [_call(call["name"], call["arguments"]) for call in calls],
        "reason": details["reason"] if details else answer["status"],
        "prompt_tokens": answer["usage"]["input_tokens"],
        "completion_tokens": answer["usage"]["output_tokens"],
    }


def _response_events(events: list[Json]) -> Json:
    return _response(events[-1]["response"])


def _ollama(answer: Json) -> Json:
    message = answer.get("message", {})
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    return {
        "text": message.get("content", answer.get("response")),
        "calls": [(call["name"], call["arguments"]) for call in calls],
        "reason": answer["done_reason"],
        "prompt_tokens": answer.get("prompt_eval_count"),
        "completion_tokens": answer.get("eval_count"),
    }


def _joined(lines: Iterator[Json]) -> Json:
    text = ""
    calls: list[Json] = []
    last: Json = {}
    for last in lines:
        message = last.get("message", {})
        text += message.get("content") or last.get("response") or ""
        calls += message.get("tool_calls") or ()
    return {**last, "response": text, "message": {"content": text, "tool_calls": calls}}


def _count(answer: Json) -> Json:
    return {"prompt_tokens": answer["input_tokens"]}


def _nothing(answer: Json) -> Json:
    return {}


WHOLE: Mapping[str, Callable[[Json], Json]] = {
    CHAT: _completion,
    TEXT: _completion,
    MESSAGES: _message,
    COUNT: _count,
    RESPONSES: _response,
    OLLAMA_CHAT: _ollama,
    OLLAMA_GENERATE: _ollama,
    EMBEDDINGS: _nothing,
}
STREAMED: Mapping[str, Callable[[list[Json]], Json]] = {
    CHAT: _chunks,
    TEXT: _chunks,
    MESSAGES: _message_events,
    RESPONSES: _response_events,
}
