from __future__ import annotations

import json
from typing import Any

import pytest

from router.api.ollama_embed import Embedding, embed, embeddings
from router.errors import InvalidRequestError
from router.keep_alive import KeepAlive

ANSWER = {
    "data": [{"index": 0, "embedding": [0.5, 1]}, {"index": 1, "embedding": [2, 3]}],
    "usage": {"prompt_tokens": 4},
}


def asked(**fields: Any) -> Embedding:
    return embed(json.dumps({"model": "m", **fields}).encode())


def one(**fields: Any) -> Embedding:
    return embeddings(json.dumps({"model": "m", **fields}).encode())


def test_texts_become_vectors() -> None:
    request = asked(input=["a", "b"], dimensions=2, truncate=True, keep_alive="5m")
    assert request.question == {"model": "m", "input": ["a", "b"], "dimensions": 2}
    assert (request.path, request.asked.stream) == ("/v1/embeddings", False)
    assert request.asked.keep_alive == KeepAlive(300)
    request.loaded()
    answer = request.whole(ANSWER)
    assert 0 <= answer.pop("load_duration") <= answer.pop("total_duration")
    assert answer == {"model": "m", "embeddings": [[0.5, 1], [2, 3]], "prompt_eval_count": 4}
    assert asked(input="a").question == {"model": "m", "input": "a"}


def test_a_prompt_becomes_one_vector() -> None:
    request = one(prompt="a")
    assert request.question == {"model": "m", "input": "a"}
    assert request.whole(ANSWER) == {"embedding": [0.5, 1]}
    assert request.whole({}) == {"embedding": []}


@pytest.mark.parametrize("fields", [{}, {"input": ""}, {"input": []}])
def test_no_texts_are_about_the_models_stay_alone(fields: dict[str, Any]) -> None:
    assert asked(**fields).question is None
    assert asked(**fields).whole({})["embeddings"] == []
    assert one().question is None


@pytest.mark.parametrize(
    "odd", [{}, {"data": 3}, {"data": None, "usage": 3}, {"usage": {"prompt_tokens": "x"}}]
)
def test_odd_answers_are_empty(odd: dict[str, Any]) -> None:
    answer = asked(input="a").whole(odd)
    assert (answer["embeddings"], answer["prompt_eval_count"]) == ([], 0)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("input", {"input": 5}),
        ("input.1", {"input": ["a", ""]}),
        ("input.0", {"input": [[1, 2]]}),
        ("dimensions", {"input": "a", "dimensions": 0}),
        ("model", {"input": "a", "model": None}),
    ],
)
def test_what_is_wrong_is_named(path: str, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        asked(**fields)
    assert caught.value.param == path
    with pytest.raises(InvalidRequestError, match="prompt"):
        one(prompt=["a"])
