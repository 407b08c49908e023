from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from backends.errors import BadRequestError, EngineDiedError
from backends.mlx.embedder import Embedder
from backends.mlx.engine import Engine
from backends.mlx.options import EngineOptions
from backends.mlx.thread import EngineThread
from backends.wire.embeddings import EmbeddingRequest, Input
from tests.backends.mlx.test_engine import answer, asking, text
from tests.conftest import Variant
from tests.slack import run
from tests.tiny import dialogues as d
from tests.truth import networks
from tests.truth.checkpoint import write_json
from tests.truth.embedders import END, PROMPTS, embedder
from tests.waiting import until

Vectors = npt.NDArray[np.float32]
Scenario = Callable[[Embedder], Awaitable[Any]]

TEXTS = ("hello", "a b c", d.SENTENCE, "x", d.SENTENCE * 3, "hello you")
OPTIONS = EngineOptions(context_length=2048)
CLOSE = 1e-4
"""How far 32-bit sums may be apart that were added up in another order."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embedder(tmp_path_factory.mktemp("embedder") / "m")


def with_embedder(folder: Path, scenario: Scenario, options: EngineOptions = OPTIONS) -> Any:
    async def main() -> Any:
        embedding = Embedder("m", folder, options, thread=EngineThread())
        try:
            await embedding.load()
            await embedding.prove()
            return await scenario(embedding)
        finally:
            await embedding.close()
            assert embedding.used_bytes is None

    return run(main())


async def vectors(embedding: Embedder, *inputs: Input, **fields: Any) -> Vectors:
    found = await embedding.embed(EmbeddingRequest(inputs=inputs, **fields))
    return np.stack([np.frombuffer(vector, "<f4") for vector in found.vectors])


def of_texts(folder: Path, *inputs: Input, **fields: Any) -> Vectors:
    found: Vectors = with_embedder(folder, lambda e: vectors(e, *inputs, **fields))
    return found


async def ids_of(embedding: Embedder, *inputs: Input) -> list[list[int]]:
    return embedding._read(EmbeddingRequest(inputs=inputs))


def states(ids: list[int], architecture: str = "qwen3") -> Vectors:
    """Of the network that the fixture was written from, in one go and without a cache."""
    import mlx.core as mx

    settings = networks.config(architecture, tie_word_embeddings=True)
    body = networks.network(settings, "float32").model
    return np.array(body(mx.array([ids]))[0])


POOLED: dict[str, Callable[[Vectors], Vectors]] = {
    "lasttoken": lambda of_tokens: of_tokens[-1],
    "mean": lambda of_tokens: of_tokens.mean(axis=0),
    "cls": lambda of_tokens: of_tokens[0],
}


@pytest.mark.parametrize("mode", POOLED)
@pytest.mark.parametrize("normalized", [True, False])
def test_vectors_are_what_the_files_say(tmp_path: Path, mode: str, normalized: bool) -> None:
    folder = embedder(tmp_path / "m", mode=mode, normalized=normalized)

    async def scenario(embedding: Embedder) -> None:
        found = await vectors(embedding, *TEXTS)
        for vector, ids in zip(found, await ids_of(embedding, *TEXTS), strict=True):
            expected = POOLED[mode](states(ids))
            if normalized:
                expected = expected / np.linalg.norm(expected)
            np.testing.assert_allclose(vector, expected, atol=CLOSE)

    with_embedder(folder, scenario)


def test_a_text_ends_as_its_tokenizer_ends_it_and_token_ids_as_they_are(folder: Path) -> None:
    async def scenario(embedding: Embedder) -> None:
        (ids,) = await ids_of(embedding, "hello")
        assert ids[-1] == END
        same = await vectors(embedding, "hello", tuple(ids))
        np.testing.assert_allclose(same[0], same[1], atol=CLOSE)
        other = await vectors(embedding, tuple(ids[:-1]))
        assert np.abs(other[0] - same[0]).max() > 0.01
        request = EmbeddingRequest(inputs=("hello", (1, 2, 3)))
        assert (await embedding.embed(request)).prompt_tokens == len(ids) + 3

    with_embedder(folder, scenario)


ARCHITECTURES = ("qwen3", "qwen2", "llama", "gemma2", "mixtral", "lfm2", "granitemoehybrid",
                 "qwen3_next", "falcon_h1")  # fmt: skip
"""With attention to all that came before, to a window of it, with experts, and with states."""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_company_and_pieces_change_nothing(tmp_path: Path, architecture: str) -> None:
    folder = embedder(tmp_path / "m", architecture, bare=False)
    long = d.SENTENCE * 8

    async def scenario(embedding: Embedder) -> None:
        together = await vectors(embedding, *TEXTS, long)
        alone = [(await vectors(embedding, one))[0] for one in (*TEXTS, long)]
        np.testing.assert_allclose(together, np.stack(alone), atol=CLOSE)
        embedding._pace.tokens_per_second = 1.0
        pieces = await vectors(embedding, long)
        np.testing.assert_allclose(pieces[0], alone[-1], atol=CLOSE)

    with_embedder(folder, scenario)


def test_a_quantised_one_with_a_head_is_served_without_it(tmp_path: Path) -> None:
    whole = embedder(tmp_path / "whole", bare=False, tie_word_embeddings=False)
    packed = embedder(tmp_path / "packed", bits=8, tie_word_embeddings=False)
    expected, found = of_texts(whole, *TEXTS), of_texts(packed, *TEXTS)
    assert (expected * found).sum(axis=1).min() > 0.99


def test_all_get_their_own_when_many_ask_at_once(folder: Path) -> None:
    async def scenario(embedding: Embedder) -> None:
        expected = await vectors(embedding, *TEXTS)
        asked = [vectors(embedding, *TEXTS[i:], *TEXTS[:i]) for i in range(len(TEXTS))]
        for i, found in enumerate(await asyncio.gather(*asked)):
            np.testing.assert_allclose(found, np.roll(expected, -i, axis=0), atol=CLOSE)

    with_embedder(folder, scenario)


# What a request may ask for


def test_shorter_vectors_where_the_config_allows_them(folder: Path, tmp_path: Path) -> None:
    whole = of_texts(folder, *TEXTS)
    free = embedder(tmp_path / "free", is_matryoshka=True)
    some = embedder(tmp_path / "some", matryoshka_dimensions=[16, 32])
    expected = whole[:, :32] / np.linalg.norm(whole[:, :32], axis=1, keepdims=True)
    for allowed in (free, some):
        np.testing.assert_allclose(of_texts(allowed, *TEXTS, dimensions=32), expected, atol=CLOSE)
    for refusing, dimensions in ((folder, 32), (some, 33), (free, 129)):
        with pytest.raises(BadRequestError) as refused:
            of_texts(refusing, "a", dimensions=dimensions)
        assert refused.value.param == "dimensions"


def test_a_prompt_of_the_model_goes_before_texts_only_when_it_is_named(folder: Path) -> None:
    async def scenario(embedding: Embedder) -> None:
        named = await vectors(embedding, "hello", prompt_name="query")
        written = await vectors(embedding, PROMPTS["query"] + "hello")
        plain = await vectors(embedding, "hello")
        np.testing.assert_allclose(named, written, atol=CLOSE)
        assert np.abs(named - plain).max() > 0.01
        assert "'query'" in (await refusal(embedding, "a", prompt_name="passage")).message
        assert (await refusal(embedding, (1, 2), prompt_name="query")).param == "prompt_name"

    with_embedder(folder, scenario)


async def refusal(embedding: Embedder, *inputs: Input, **fields: Any) -> BadRequestError:
    with pytest.raises(BadRequestError) as refused:
        await vectors(embedding, *inputs, **fields)
    return refused.value


def test_what_is_wrong_is_named_and_the_next_request_works(folder: Path) -> None:
    async def scenario(embedding: Embedder) -> None:
        long = await refusal(embedding, "a", "hello " * 50)
        assert (long.param, "and m takes 20" in long.message) == ("input[1]", True)
        assert (await refusal(embedding, (1, 384))).param == "input"
        assert (await refusal(embedding, "a", (-1,))).param == "input[1]"
        assert len(await vectors(embedding, "a"))

    with_embedder(folder, scenario, replace(OPTIONS, context_length=20))


def test_a_text_of_no_tokens_is_refused_where_the_tokenizer_adds_none(
    folder: Path, tmp_path: Path, variant: Variant
) -> None:
    plain = embedder(tmp_path / "m")
    tokenizer = variant("safetensors") / "tokenizer.json"
    (plain / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    with pytest.raises(BadRequestError) as refused:
        of_texts(plain, "a", "")
    assert refused.value.param == "input[1]"
    assert len(of_texts(folder, "")) == 1


@pytest.mark.parametrize("file", ["modules.json", "1_Pooling/config.json"])
def test_files_that_no_longer_say_how_are_noticed_at_load(tmp_path: Path, file: str) -> None:
    folder = embedder(tmp_path / "m")
    write_json(folder / file, {})
    with pytest.raises(ValueError, match="sentence-transformers"):
        of_texts(folder, "a")


# Neighbours


def test_a_failed_step_fails_its_texts_and_nothing_else(folder: Path) -> None:
    async def scenario(embedding: Embedder) -> None:
        assert embedding._weights is not None
        weights, broken = embedding._weights, type("Broken", (), {"model": None})()
        embedding._weights = replace(weights, network=broken)
        with pytest.raises(EngineDiedError, match="failed over these texts"):
            await vectors(embedding, *TEXTS)
        embedding._weights = weights
        assert len(await vectors(embedding, *TEXTS)) == len(TEXTS)

    with_embedder(folder, scenario)


def test_vectors_of_no_numbers_are_an_error(folder: Path) -> None:
    async def scenario(embedding: Embedder) -> None:
        import mlx.core as mx

        assert embedding._weights is not None
        norm = embedding._weights.network.model.norm
        await embedding._thread.call(partial(norm.update, {"weight": mx.full(128, mx.nan)}))
        with pytest.raises(EngineDiedError):
            await vectors(embedding, "a")

    with_embedder(folder, scenario)


def test_who_leaves_takes_the_texts_along(folder: Path) -> None:
    async def scenario(embedding: Embedder) -> None:
        leaving = asyncio.create_task(vectors(embedding, *[d.SENTENCE * 5] * 200))
        await until(lambda: len(embedding._waiting))
        leaving.cancel()
        await asyncio.wait([leaving])
        assert len(await vectors(embedding, "a")) == 1
        assert not len(embedding._waiting)

    with_embedder(folder, scenario)


def test_who_waits_is_told_when_the_model_is_unloaded(folder: Path) -> None:
    async def scenario(embedding: Embedder) -> None:
        asking = asyncio.create_task(vectors(embedding, *[d.SENTENCE * 5] * 200))
        await until(lambda: len(embedding._waiting))
        await embedding.close()
        with pytest.raises(EngineDiedError, match="was unloaded"):
            await asking

    with_embedder(folder, scenario)


def test_a_chat_goes_on_while_hundreds_of_texts_are_embedded(
    folder: Path, variant: Variant
) -> None:
    """Both take turns on one thread: the chat is over long before the texts are."""

    async def main() -> None:
        thread = EngineThread()
        embedding = Embedder("m", folder, OPTIONS, thread=thread)
        chat = Engine("tiny", variant("mlx-bf16"), EngineOptions(), thread=thread)
        await embedding.load()
        await chat.load()
        texts = [f"{n} {d.SENTENCE * 2}" for n in range(400)]
        working = asyncio.create_task(vectors(embedding, *texts))
        await until(lambda: len(embedding._waiting))
        told = text(await answer(chat, asking(d.QUESTION, max_tokens=8)))
        assert not working.done()
        assert told and d.SENTENCE.startswith(told)
        assert len(await working) == 400
        await embedding.close()
        await chat.close()

    run(main())
