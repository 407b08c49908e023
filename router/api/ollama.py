"""Ollama's dialect: `/api/chat` and `/api/generate`."""

from __future__ import annotations

from typing import Any

from router.api import ollama_answer, ollama_request
from router.api.body import Asked
from router.api.ollama_answer import LineStream, Voice
from router.api.ollama_request import Question
from router.api.stopwatch import Stopwatch

Json = dict[str, Any]


class Answering:
    """One request; a `Translation` that is `Timed`."""

    def __init__(self, read: Question, *, chat: bool) -> None:
        fields = frozenset(read.body or ())
        self.asked = Asked(read.model, read.stream, read.keep_alive, fields, read.picture)
        self.question = read.body
        self.path = read.path
        self._voice = Voice(read.model, chat)
        self._watch = Stopwatch()

    def loaded(self) -> None:
        self._watch.loaded()

    def whole(self, answer: Json) -> Json:
        if self.question is None:
            reason = "unload" if self.asked.leaving else "load"
            return {**self._voice.said(""), "done": True, "done_reason": reason}
        return ollama_answer.whole(answer, self._voice, self._watch)

    def stream(self) -> LineStream:
        return LineStream(self._voice, self._watch)


def chat(body: bytes) -> Answering:
    return Answering(ollama_request.chat(body), chat=True)


def generate(body: bytes) -> Answering:
    return Answering(ollama_request.generate(body), chat=False)
