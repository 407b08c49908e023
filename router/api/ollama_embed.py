"""Ollama's `/api/embed`, and `/api/embeddings` as it was before, as OpenAI's embeddings. Pure, but
for the time."""

from __future__ import annotations

from typing import Any

from backends.wire.embeddings import EMBEDDINGS_PATH
from router.api.body import Asked, json_object, model_of
from router.api.ollama_answer import LineStream, Voice
from router.api.stopwatch import Stopwatch
from router.api.told import count_in, list_in, object_in
from router.api.typed import Typed
from router.keep_alive import keep_alive

Json = dict[str, Any]


class Embedding:
    """One request; a `Translation` that is `Timed`. It is never streamed. `single` is for one text,
    as `/api/embeddings` takes it."""

    path = EMBEDDINGS_PATH

    def __init__(self, asked: Asked, question: Json | None, *, single: bool) -> None:
        self.asked = asked
        self.question = question
        self._single = single
        self._watch = Stopwatch()

    def loaded(self) -> None:
        self._watch.loaded()

    def whole(self, answer: Json) -> Json:
        items = map(object_in, list_in(answer.get("data")))
        vectors = [list_in(item.get("embedding")) for item in items]
        if self._single:
            return {"embedding": vectors[0] if vectors else []}
        times = self._watch.durations({})
        return {
            "model": self.asked.model,
            "embeddings": vectors,
            "total_duration": times["total_duration"],
            "load_duration": times["load_duration"],
            "prompt_eval_count": count_in(object_in(answer.get("usage")).get("prompt_tokens")),
        }

    def stream(self) -> LineStream:
        return LineStream(Voice(self.asked.model, chat=False), self._watch)


def embed(body: bytes) -> Embedding:
    """
    Raises:
        InvalidRequestError: with the path of what is wrong.
    """
    value = json_object(body)
    asked = Typed(value)
    given = asked["input"]
    if not given.missing and not isinstance(given.value, str):
        for text in given.items():
            text.name()
    wanted = {} if asked["dimensions"].missing else {"dimensions": asked["dimensions"].integer(1)}
    return _embedding(value, given.value, wanted)


def embeddings(body: bytes) -> Embedding:
    """Raises as `embed` does."""
    value = json_object(body)
    prompt = Typed(value)["prompt"]
    return _embedding(value, "" if prompt.missing else prompt.text(), {}, single=True)


def _embedding(value: Json, given: Any, wanted: Json, *, single: bool = False) -> Embedding:
    """Without a text, the request is about the model's stay alone."""
    model = model_of(value)
    question = {"model": model, "input": given, **wanted} if given else None
    asked = Asked(model, False, keep_alive(value), frozenset(question or ()))
    return Embedding(asked, question, single=single)
