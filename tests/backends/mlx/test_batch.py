"""Contract tests of what `backends/mlx/batch.py` uses of mlx-lm, on the real library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends.mlx import library
from backends.mlx.batch import BatchDecoder
from backends.mlx.decoder import Decoder, RowRequest
from backends.mlx.decoders import make_decoder
from backends.mlx.model import Text, Weights, load_weights
from backends.mlx.prefixes import Prefixes
from backends.mlx.sequential import SequentialDecoder
from backends.wire.request import GenerationRequest
from tests.conftest import Variant
from tests.tiny import dialogues as d


def finished(work: Any) -> Any:
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


class Loaded:
    def __init__(self, folder: Path) -> None:
        self.text = Text(folder)
        self.weights: Weights = finished(load_weights(folder, lambda _: None))

    def prompt(self, question: str) -> list[int]:
        return self.text.prompt(GenerationRequest(messages=(d.user(question),))).ids

    def row(self, question: str, max_tokens: int = 64) -> RowRequest:
        sampler = library.load("mlx_lm.sample_utils").make_sampler(temp=0.0)
        return RowRequest(prompt=self.prompt(question), max_tokens=max_tokens, sampler=sampler)


@pytest.fixture(scope="module")
def loaded(variant: Variant) -> Loaded:
    return Loaded(variant("mlx-bf16"))


Make = Callable[[Loaded], Decoder]


def batched(loaded: Loaded) -> Decoder:
    return BatchDecoder(loaded.weights.network, loaded.text.stop_ids, 4, Prefixes(2**30))


def sequential(loaded: Loaded) -> Decoder:
    return SequentialDecoder(loaded.weights.network, loaded.text.stop_ids, Prefixes(2**30))


both = pytest.mark.parametrize("make", [batched, sequential])


def run(decoder: Decoder, loaded: Loaded) -> dict[int, tuple[str, str]]:
    """Text and reason of every row, until all have ended."""
    ids: dict[int, list[int]] = {}
    reasons: dict[int, str] = {}
    while len(decoder):
        for token in decoder.step():
            if token.last:
                reasons[token.row] = token.last
            if token.last != "stop":
                ids.setdefault(token.row, []).append(token.id)
    return {row: (loaded.text.decode(ids.get(row, [])), reasons[row]) for row in reasons}


@both
def test_rows_recite_together_what_they_recite_alone(make: Make, loaded: Loaded) -> None:
    decoder = make(loaded)
    questions = [d.QUESTION, d.FOOD_QUESTION] * 3
    rows = [decoder.insert(loaded.row(question)) for question in questions]
    said = run(decoder, loaded)
    expected = {d.QUESTION: d.SENTENCE, d.FOOD_QUESTION: d.FOOD}
    assert [said[row] for row in rows] == [(expected[q], "stop") for q in questions]


@both
def test_a_row_ends_at_its_limit(make: Make, loaded: Loaded) -> None:
    decoder = make(loaded)
    row = decoder.insert(loaded.row(d.SONG_QUESTION, max_tokens=5))
    tokens = []
    while len(decoder):
        tokens += decoder.step()
    assert [token.row for token in tokens] == [row] * 5
    assert [token.last for token in tokens] == [None] * 4 + ["length"]


@both
def test_a_removed_row_is_gone_and_its_neighbour_goes_on(make: Make, loaded: Loaded) -> None:
    decoder = make(loaded)
    song = decoder.insert(loaded.row(d.SONG_QUESTION, max_tokens=1000))
    for _ in range(5):
        decoder.step()
    neighbour = decoder.insert(loaded.row(d.QUESTION))
    decoder.step()
    decoder.remove(song)
    assert len(decoder) == 1
    assert run(decoder, loaded) == {neighbour: (d.SENTENCE, "stop")}


@both
def test_a_row_can_be_removed_before_its_first_step_and_twice(make: Make, loaded: Loaded) -> None:
    decoder = make(loaded)
    row = decoder.insert(loaded.row(d.QUESTION))
    decoder.remove(row)
    decoder.remove(row)
    assert len(decoder) == 0
    decoder.close()


def test_a_cache_that_merges_gets_the_batch(loaded: Loaded) -> None:
    assert isinstance(
        make_decoder(loaded.weights, loaded.text.stop_ids, 4, Prefixes(2**30)), BatchDecoder
    )


def test_a_cache_that_does_not_merge_gets_one_row_after_another(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = library.load("mlx_lm.models.cache")
    monkeypatch.setattr(caches, "make_prompt_cache", lambda model: [caches.ChunkedKVCache(16)])
    decoder = make_decoder(loaded.weights, loaded.text.stop_ids, 4, Prefixes(2**30))
    assert isinstance(decoder, SequentialDecoder)
