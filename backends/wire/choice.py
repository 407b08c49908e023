"""One answer to a request under construction: as deltas for a stream, or added up."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

from backends.wire.events import (
    Event,
    Finished,
    ReasoningDelta,
    Spelling,
    TextDelta,
    TokenLikelihood,
    ToolCallArguments,
    ToolCallBroken,
    ToolCallStart,
)

Json = dict[str, Any]


class AnswerChoice:
    """An entry of `choices` in a response. `chat` answers have messages, others text."""

    def __init__(self, index: int, *, chat: bool) -> None:
        self.end: Finished | None = None
        self._index = index
        self._chat = chat
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[Json] = []
        self._arguments: list[list[str]] = []
        self._begun = 0
        self._likelihoods: list[TokenLikelihood] = []
        self._offset = 0

    # For a stream

    def opening(self) -> Iterator[Json]:
        if self._chat:
            yield self._delta({"role": "assistant", "content": ""})

    def deltas(self, event: Event) -> Iterator[Json]:
        match event:
            case TextDelta(text):
                yield self._delta({"content": text} if self._chat else text)
            case ReasoningDelta(text):
                yield self._delta({"reasoning_content": text})
            case ToolCallStart(name):
                self._begun += 1
                yield self._call_delta(_call(name))
            case ToolCallArguments(text):
                yield self._call_delta({"function": {"arguments": text}})
            case ToolCallBroken(text):
                yield self._delta({"content": text})
            case TokenLikelihood():
                # With the delta that comes next: its text may have to wait for another token.
                self._likelihoods.append(event)
            case Finished(reason):
                self.end = event
                yield {**self._delta({} if self._chat else "", reason), **_met(event)}

    def _call_delta(self, part: Json) -> Json:
        """About the call that began last; a broken one keeps its number."""
        return self._delta({"tool_calls": [{"index": self._begun - 1, **part}]})

    def _delta(self, delta: Any, reason: str | None = None) -> Json:
        choice: Json = {"index": self._index, "finish_reason": reason}
        likelihoods, self._likelihoods = self._likelihoods, []
        told = self._logprobs(likelihoods) if likelihoods else None
        if self._chat:
            return {**choice, "delta": delta, **({"logprobs": told} if told else {})}
        return {**choice, "text": delta, "logprobs": told}

    # Added up

    def add(self, event: Event) -> None:
        match event:
            case TextDelta(text):
                self._text.append(text)
            case ReasoningDelta(text):
                self._reasoning.append(text)
            case ToolCallStart(name):
                self._calls.append(_call(name))
                self._arguments.append([])
            case ToolCallArguments(text):
                self._arguments[-1].append(text)
            case ToolCallBroken(text):
                del self._calls[-1], self._arguments[-1]
                self._text.append(text)
            case TokenLikelihood():
                self._likelihoods.append(event)
            case Finished():
                self.end = event

    def object(self) -> Json:
        assert self.end is not None
        told = self._logprobs(self._likelihoods) if self._likelihoods else None
        choice = {"index": self._index, "finish_reason": self.end.reason, "logprobs": told}
        text = "".join(self._text)
        said = {"message": self._message(text)} if self._chat else {"text": text}
        return {**choice, **said, **_met(self.end)}

    def _message(self, text: str) -> Json:
        message: Json = {"role": "assistant", "content": text if text or not self._calls else None}
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        for call, pieces in zip(self._calls, self._arguments, strict=True):
            call["function"]["arguments"] = "".join(pieces)
        if self._calls:
            message["tool_calls"] = self._calls
        return message

    # Likelihoods

    def _logprobs(self, told: list[TokenLikelihood]) -> Json:
        if self._chat:
            return {"content": [_entry(one) for one in told], "refusal": None}
        offsets = []
        for one in told:
            offsets.append(self._offset)
            self._offset += len(one.token.text)
        return {
            "tokens": [one.token.text for one in told],
            "token_logprobs": [one.token.logprob for one in told],
            "top_logprobs": [{top.text: top.logprob for top in one.top} for one in told],
            "text_offset": offsets,
        }


def _entry(likelihood: TokenLikelihood) -> Json:
    top = [_spelled(one) for one in likelihood.top]
    return {**_spelled(likelihood.token), "top_logprobs": top}


def _spelled(spelling: Spelling) -> Json:
    return {
        "token": spelling.text,
        "logprob": spelling.logprob,
        "bytes": list(spelling.bytes),
    }


def _met(end: Finished) -> Json:
    """vLLM's name for it; OpenAI does not tell which stop string it was."""
    return {"stop_reason": end.met} if end.met else {}


def _call(name: str) -> Json:
    """As the first delta of a stream has it; the arguments follow."""
    function = {"name": name, "arguments": ""}
    return {"id": "call_" + secrets.token_hex(12), "type": "function", "function": function}
