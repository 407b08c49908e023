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


class Counted:
    """A network that counts its passes, and breaks at one of them."""

    def __init__(self, network: Any, broken_from: int = 1000) -> None:
        self._network, self._broken_from = network, broken_from
        self.passes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.passes += 1
        if self.passes >= self._broken_from:
            raise ValueError("broken")
        return self._network(*args, **kwargs)


def test_a_proof_takes_one_pass_for_a_prompt_of_one_token_and_leaves_no_row(
    loaded: Loaded,
) -> None:
    network = Counted(loaded.weights.network)
    decoder = BatchDecoder(network, loaded.text.stop_ids, 4, Prefixes(2**30))
    decoder.prove(loaded.prompt(d.QUESTION)[:1])
    assert network.passes == 1
    assert not len(decoder)
    row = decoder.insert(loaded.row(d.QUESTION))
    assert run(decoder, loaded) == {row: (d.SENTENCE, "stop")}


@both
def test_what_was_proved_answers_as_before(make: Make, loaded: Loaded) -> None:
    decoder = make(loaded)
    decoder.prove(loaded.prompt(d.FOOD_QUESTION))
    assert not len(decoder)
    row = decoder.insert(loaded.row(d.QUESTION))
    assert run(decoder, loaded) == {row: (d.SENTENCE, "stop")}


@pytest.mark.parametrize("kind", [BatchDecoder, SequentialDecoder])
def test_a_network_that_fails_proves_nothing(kind: Any, loaded: Loaded) -> None:
    network = Counted(loaded.weights.network, broken_from=1)
    limits = (4,) if kind is BatchDecoder else ()
    decoder = kind(network, loaded.text.stop_ids, *limits, Prefixes(2**30))
    with pytest.raises(ValueError, match="broken"):
        decoder.prove(loaded.prompt(d.QUESTION))
