"""Anthropic's dialect: `/v1/messages` and `/v1/messages/count_tokens`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backends.wire.request import CHAT_PATH, COUNT_PATH
from router.api.anthropic_answer import MessageStream, message
from router.api.anthropic_request import Question, question
from router.api.body import Asked

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Messages:
    """A request for a message; a `Translation`."""

    asked: Asked
    question: Json
    path: str = CHAT_PATH

    def whole(self, answer: Json) -> Json:
        return message(answer, self.asked.model)

    def stream(self) -> MessageStream:
        return MessageStream(self.asked.model)


@dataclass(frozen=True, slots=True)
class CountTokens(Messages):
    """A request for the length of a prompt: never a stream."""

    path: str = COUNT_PATH

    def whole(self, answer: Json) -> Json:
        return {"input_tokens": answer.get("input_tokens", 0)}


def messages(body: bytes) -> Messages:
    read = question(body)
    return Messages(_asked(read), read.body)


def count_tokens(body: bytes) -> CountTokens:
    read = question(body, counting=True)
    return CountTokens(_asked(read), read.body)


def _asked(read: Question) -> Asked:
    return Asked(read.model, read.stream, read.keep_alive, frozenset(read.body), read.picture)
