from __future__ import annotations

import asyncio
import io
import json
import shutil
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.errors import BadRequestError, EngineDiedError
from backends.mlx.engine import Engine
from backends.mlx.model import Text
from backends.mlx.options import EngineOptions
from backends.mlx.thread import EngineThread
from backends.wire.events import (
    Choice,
    Event,
    Finished,
    TextDelta,
    TokenLikelihood,
    ToolCallArguments,
    ToolCallStart,
)
from backends.wire.request import GenerationRequest, Sampling
from tests.conftest import Variant
from tests.tiny import dialogues as d
from tests.tiny.others import penalised
from tests.waiting import until

GREEDY = Sampling(temperature=0.0)
Scenario = Callable[[Engine], Awaitable[Any]]


def asking(question: str, **fields: Any) -> GenerationRequest:
    return GenerationRequest(messages=(d.user(question),), sampling=GREEDY, **fields)


async def answer(engine: Engine, request: GenerationRequest) -> list[Event]:
    told = [event async for event in engine.generate(request)]
    return [event for event in told if not isinstance(event, Choice)]


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def arguments(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, ToolCallArguments))


def end(events: list[Event]) -> Finished:
    last = events[-1]
    assert isinstance(last, Finished)
    return last


async def idle(engine: Engine) -> None:
    """Return when the decoder has no row left."""
    decoder = engine._decoder
    assert decoder is not None
    await until(lambda: not engine._decoding and not len(decoder))


def with_engine(
    folder: Path, scenario: Scenario, *, context_length: int | None = 2048, max_rows: int = 8
) -> Any:
    async def main() -> Any:
        engine = Engine(
            "tiny",
            folder,
            EngineOptions(context_length=context_length, max_rows=max_rows),
            thread=EngineThread(),
        )
        await engine.load()
        try:
            return await scenario(engine)
        finally:
            await engine.close()

    return asyncio.run(main())


@pytest.mark.parametrize(
    "name",
    ["mlx-4bit", "mlx-8bit", "mlx-5bit", "mlx-mxfp4", "mlx-mxfp8", "mlx-nvfp4", "mlx-mixed",
     "mlx-bf16", "safetensors"],
)  # fmt: skip
def test_every_variant_recites_the_sentence(variant: Variant, name: str) -> None:
    async def scenario(engine: Engine) -> None:
        events = await answer(engine, asking(d.QUESTION))
        assert text(events) == d.SENTENCE
        assert end(events).reason == "stop"

    with_engine(variant(name), scenario)


def test_the_answer_counts_its_tokens_and_comes_piece_by_piece(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        events = await answer(engine, asking(d.QUESTION))
        usage = end(events).usage
        assert usage.prompt_tokens == 21
        assert 10 < usage.completion_tokens < 25
        assert len(events) > 10

    with_engine(variant("mlx-bf16"), scenario)


def test_many_requests_share_the_batch_and_each_gets_its_own_answer(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        questions = [d.QUESTION, d.FOOD_QUESTION] * 10
        answers = await asyncio.gather(*(answer(engine, asking(q)) for q in questions))
        assert [text(events) for events in answers] == [d.SENTENCE, d.FOOD] * 10

    with_engine(variant("mlx-bf16"), scenario)


def test_its_memory_may_be_looked_at_by_others_while_it_computes(variant: Variant) -> None:
    """As the gauge of the daemon does, in a thread of its own."""

    async def scenario(engine: Engine) -> None:
        idle, asking_on = engine.used_bytes, True

        def look() -> int:
            most = 0
            while asking_on:
                most = max(most, engine.used_bytes or 0)
            return most

        with ThreadPoolExecutor(1) as others:
            looking = others.submit(look)
            try:
                requests = [asking(d.QUESTION, max_tokens=n) for n in range(1, 17)]
                await asyncio.gather(*(answer(engine, request) for request in requests))
            finally:
                asking_on = False
            assert idle is not None
            assert looking.result() > idle

    with_engine(variant("mlx-bf16"), scenario)


def test_a_models_own_repetition_penalty_holds_where_a_request_names_none(
    variant: Variant, tmp_path: Path
) -> None:
    folder = penalised(variant("safetensors"), tmp_path / "model", 5.0)

    async def scenario(engine: Engine) -> None:
        async def said(penalty: float | None) -> str:
            sampling = replace(GREEDY, repetition_penalty=penalty)
            request = replace(asking(d.SONG_QUESTION, max_tokens=60), sampling=sampling)
            return text(await answer(engine, request))

        assert await said(None) == await said(5.0) != await said(1.0)
        assert d.SONG_WORD * 20 in await said(1.0)

    with_engine(folder, scenario)


def test_a_tool_call_is_an_event_of_its_own(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        events = await answer(engine, asking(d.WEATHER_QUESTION, tools=(d.WEATHER_TOOL,)))
        assert events[0] == ToolCallStart("get_weather")
        assert arguments(events) == '{"city": "Paris"}'
        assert end(events).reason == "tool_calls"

    with_engine(variant("mlx-bf16"), scenario)


def test_without_tools_in_the_request_nothing_is_read_as_a_call(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        assert text(await answer(engine, asking(d.WEATHER_QUESTION))) == d.NO_TOOLS

    with_engine(variant("mlx-8bit"), scenario)


def test_a_text_request_goes_on_from_its_prompt(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        request = GenerationRequest(prompt=d.PROMPT, sampling=GREEDY)
        assert text(await answer(engine, request)) == d.CONTINUATION

    with_engine(variant("mlx-bf16"), scenario)


@pytest.mark.parametrize("stop", ["small", "a small par", " ", "rot, and I"])
def test_a_stop_string_ends_the_text_before_it(variant: Variant, stop: str) -> None:
    async def scenario(engine: Engine) -> None:
        events = await answer(engine, asking(d.QUESTION, stop=(stop,)))
        assert text(events) == d.SENTENCE[: d.SENTENCE.index(stop)]
        assert (end(events).reason, end(events).met) == ("stop", stop)
        await idle(engine)

    with_engine(variant("mlx-bf16"), scenario)


def test_the_limit_ends_an_answer(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        events = await answer(engine, asking(d.SONG_QUESTION, max_tokens=7))
        assert (end(events).reason, end(events).usage.completion_tokens) == ("length", 7)

    with_engine(variant("mlx-bf16"), scenario)


def test_the_context_bounds_prompt_and_answer_together(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        events = await answer(engine, asking(d.SONG_QUESTION))
        usage = end(events).usage
        assert usage.prompt_tokens + usage.completion_tokens == 64

    with_engine(variant("mlx-bf16"), scenario, context_length=64)


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        with pytest.raises(BadRequestError, match=r"21 tokens.* 16 ") as caught:
            await answer(engine, asking(d.QUESTION))
        assert caught.value.param == "messages"

    with_engine(variant("mlx-bf16"), scenario, context_length=16)


@pytest.mark.parametrize(
    "request_",
    [
        GenerationRequest(prompt=""),
        GenerationRequest(prompt=(1, 2, 384)),
        GenerationRequest(messages=(d.user("x"),), template_arguments={"tokenize": True}),
        GenerationRequest(messages=(d.user("x"),), template_arguments={"chat_template": "x"}),
    ],
)
def test_a_request_that_cannot_be_a_prompt_is_refused(
    variant: Variant, request_: GenerationRequest
) -> None:
    async def scenario(engine: Engine) -> None:
        with pytest.raises(BadRequestError):
            await answer(engine, request_)

    with_engine(variant("mlx-bf16"), scenario)


def test_closing_an_answer_frees_its_row(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        async with aclosing(engine.generate(asking(d.SONG_QUESTION))) as events:
            await anext(events)
        await idle(engine)
        assert text(await answer(engine, asking(d.QUESTION))) == d.SENTENCE

    with_engine(variant("mlx-bf16"), scenario)


def test_a_request_given_up_at_any_moment_leaves_nothing_behind(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        for delay in range(20):
            task = asyncio.create_task(answer(engine, asking(d.SONG_QUESTION)))
            await asyncio.sleep(delay * 0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await idle(engine)
        assert not engine._feeds
        assert text(await answer(engine, asking(d.QUESTION))) == d.SENTENCE

    with_engine(variant("mlx-bf16"), scenario)


def test_a_step_that_fails_fails_the_running_requests_and_the_engine_goes_on(
    variant: Variant,
) -> None:
    async def scenario(engine: Engine) -> None:
        songs = [asyncio.create_task(answer(engine, asking(d.SONG_QUESTION))) for _ in range(2)]
        await until(lambda: len(engine._feeds) == 2)

        def broken() -> Any:
            raise ValueError("a bug in mlx")

        assert engine._decoder is not None
        engine._decoder.step = broken  # type: ignore[method-assign]
        for song in songs:
            with pytest.raises(EngineDiedError):
                await song
        assert text(await answer(engine, asking(d.QUESTION))) == d.SENTENCE

    with_engine(variant("mlx-bf16"), scenario)


def test_an_answer_ends_before_its_state_is_kept(variant: Variant) -> None:
    """Copying a long one takes a while."""

    async def scenario(engine: Engine) -> None:
        ended = threading.Event()
        keep = engine._prefixes.keep

        def kept(tokens: Sequence[int], state: Any) -> None:
            assert ended.wait(60)
            keep(tokens, state)

        engine._prefixes.keep = kept  # type: ignore[method-assign]
        assert text(await answer(engine, asking(d.QUESTION))) == d.SENTENCE
        ended.set()
        again = end(await answer(engine, asking(d.QUESTION)))
        assert again.usage.cached_tokens == again.usage.prompt_tokens - 1

    with_engine(variant("mlx-bf16"), scenario)


def test_a_state_that_cannot_be_kept_costs_nobody_an_answer(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        def broken(tokens: Sequence[int], state: Any) -> None:
            raise ValueError("a bug in mlx")

        engine._prefixes.keep = broken  # type: ignore[method-assign]
        song = asyncio.create_task(answer(engine, asking(d.SONG_QUESTION, max_tokens=200)))
        for _ in range(3):
            assert text(await answer(engine, asking(d.QUESTION))) == d.SENTENCE
        assert not song.done()
        assert end(await song).usage.completion_tokens == 200
        await idle(engine)
        assert not len(engine._prefixes)

    with_engine(variant("mlx-bf16"), scenario)


def test_an_engine_that_cannot_be_mended_says_so_to_all_who_come(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        def broken(*_: Any) -> Any:
            raise ValueError("a bug in mlx")

        assert engine._decoder is not None
        engine._decoder.step = broken  # type: ignore[method-assign]
        engine._make_decoder = broken  # type: ignore[assignment, method-assign]
        for _ in range(2):
            with pytest.raises(EngineDiedError):
                await answer(engine, asking(d.QUESTION))
        assert not engine._decoding

    with_engine(variant("mlx-bf16"), scenario)


def test_a_request_that_is_refused_leaves_its_neighbours_alone(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        song = asyncio.create_task(answer(engine, asking(d.SONG_QUESTION, max_tokens=200)))
        for token in (10**9, 384, -1):
            bad = replace(asking(d.QUESTION), sampling=Sampling(logit_bias={token: 1.0}))
            with pytest.raises(BadRequestError) as caught:
                await answer(engine, bad)
            assert caught.value.param == "logit_bias"
        assert end(await song).usage.completion_tokens == 200

    with_engine(variant("mlx-bf16"), scenario)


def test_a_bias_keeps_a_token_out(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        assert engine._text is not None
        ids = engine._text.prompt(GenerationRequest(prompt=d.SENTENCE)).ids
        biased = Sampling(temperature=0.0, logit_bias={ids[0]: -100.0})
        request = replace(asking(d.QUESTION), sampling=biased)
        assert not text(await answer(engine, request)).startswith(d.SENTENCE[:4])

    with_engine(variant("mlx-bf16"), scenario)


def test_a_seed_gives_the_same_text_alone_and_in_company(variant: Variant) -> None:
    seeded = Sampling(temperature=3.0, top_k=0, top_p=1.0, min_p=0.0, seed=11)
    request = replace(asking(d.QUESTION, max_tokens=24), sampling=seeded)

    async def scenario(engine: Engine) -> None:
        alone = text(await answer(engine, request))
        other = replace(request, sampling=replace(seeded, seed=12))
        together = await asyncio.gather(
            answer(engine, asking(d.FOOD_QUESTION)),
            answer(engine, request),
            answer(engine, other),
        )
        assert text(together[1]) == alone
        assert text(together[2]) != alone

    with_engine(variant("mlx-bf16"), scenario)


def test_unloading_fails_what_runs_and_gives_the_memory_back(variant: Variant) -> None:
    from backends.mlx import library

    async def scenario(engine: Engine) -> None:
        mx = library.load("mlx.core")
        weights = engine.weights_bytes
        assert weights
        song = asyncio.create_task(answer(engine, asking(d.SONG_QUESTION)))
        await until(lambda: engine._feeds)
        held = mx.get_active_memory()
        await engine.close()
        with pytest.raises(EngineDiedError):
            await song
        assert held - mx.get_active_memory() >= weights
        assert engine.weights_bytes is None
        assert mx.get_cache_memory() == 0

    with_engine(variant("mlx-bf16"), scenario)


def test_loading_leaves_no_chain_of_random_keys_behind(variant: Variant) -> None:
    from backends.mlx import library

    def pending() -> str:
        mx = library.load("mlx.core")
        graph = io.StringIO()
        mx.export_to_dot(graph, *mx.random.state)
        return graph.getvalue()

    async def scenario(engine: Engine) -> None:
        assert "RandomBits" not in await engine._thread.call(pending)

    with_engine(variant("mlx-bf16"), scenario)


def test_several_answers_share_the_prompt_and_each_has_its_own_seed(variant: Variant) -> None:
    seeded = Sampling(temperature=3.0, top_k=0, top_p=1.0, min_p=0.0, seed=11)
    request = replace(asking(d.QUESTION, max_tokens=12), sampling=seeded)

    async def scenario(engine: Engine) -> None:
        alone = [
            await answer(engine, replace(request, sampling=replace(seeded, seed=11 + index)))
            for index in range(3)
        ]
        choices: dict[int, list[Event]] = {}
        async for choice in engine.generate(replace(request, n=3)):
            assert isinstance(choice, Choice)
            choices.setdefault(choice.index, []).append(choice.event)
        assert [text(choices[i]) for i in range(3)] == [text(events) for events in alone]
        assert len({text(events) for events in alone}) == 3

    with_engine(variant("mlx-bf16"), scenario)


def test_one_answer_of_several_that_fails_fails_all_and_leaves_no_row(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        async def three() -> list[Any]:
            request = asking(d.SONG_QUESTION, n=3)
            return [choice async for choice in engine.generate(request)]

        task = asyncio.create_task(three())
        await until(lambda: len(engine._feeds) == 3)
        feed = next(iter(engine._feeds.values()))
        feed.put(EngineDiedError("one of them", engine="mlx", model="tiny"))
        with pytest.raises(EngineDiedError, match="one of them"):
            await task
        await idle(engine)

    with_engine(variant("mlx-bf16"), scenario)


def test_each_token_is_told_with_its_likelihood_and_its_bytes(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        events = await answer(engine, asking(d.FOOD_QUESTION, logprobs=3))
        told = [event for event in events if isinstance(event, TokenLikelihood)]
        assert b"".join(one.token.bytes for one in told).decode() == d.FOOD
        assert len(told) == end(events).usage.completion_tokens - 1
        for one in told:
            logprobs = [top.logprob for top in one.top]
            assert len(logprobs) == 3
            assert logprobs == sorted(logprobs, reverse=True)
            # Greedy: the one that was taken is the likeliest.
            assert one.top[0] == one.token
            assert one.token.logprob <= 1e-6

    with_engine(variant("mlx-bf16"), scenario)


def test_no_likelihood_is_told_of_a_stop_string(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        for stop in ("parrot", "small p", "rot, and"):
            events = await answer(engine, asking(d.QUESTION, stop=(stop,), logprobs=0))
            told = [event.token for event in events if isinstance(event, TokenLikelihood)]
            said = text(events)
            spelled = b"".join(one.bytes for one in told).decode()
            # The token in which the stop string begins may have a part before it.
            assert spelled.startswith(said) or said.startswith(spelled)
            assert stop not in spelled

    with_engine(variant("mlx-bf16"), scenario)


def test_a_prompt_that_was_read_before_is_not_read_again(variant: Variant) -> None:
    async def scenario(engine: Engine) -> None:
        first = end(await answer(engine, asking(d.QUESTION))).usage
        again = end(await answer(engine, asking(d.QUESTION))).usage
        assert (first.cached_tokens, again.cached_tokens) == (0, first.prompt_tokens - 1)
        follow = GenerationRequest(
            messages=(d.user(d.QUESTION), d.assistant(d.SENTENCE), d.user(d.FOOD_QUESTION)),
            sampling=GREEDY,
        )
        events = await answer(engine, follow)
        assert text(events) == d.FOOD
        assert end(events).usage.cached_tokens >= first.prompt_tokens

    with_engine(variant("mlx-bf16"), scenario)


QUESTIONS = (
    d.QUESTION, d.FOOD_QUESTION, d.WEATHER_QUESTION, d.SONG_QUESTION,
    "Who?", "What do you sing?", "Paris", "a b c d e f g",
)  # fmt: skip


def told_by_mlx_lm(folder: Path, tokens: int) -> list[str]:
    """What mlx-lm says by itself, one prompt after another."""
    from mlx_lm.generate import generate
    from mlx_lm.utils import load

    network, tokenizer = load(str(folder), {"trust_remote_code": False})[:2]
    said = []
    for question in QUESTIONS:
        prompt = tokenizer.apply_chat_template(
            [d.user(question)], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        said.append(generate(network, tokenizer, prompt, max_tokens=tokens))
    return said


@pytest.mark.parametrize("name", ["safetensors", "mlx-bf16", "mlx-4bit"])
def test_greedy_answers_are_those_of_mlx_lm_alone_and_in_a_batch_of_eight(
    variant: Variant, name: str
) -> None:
    expected = told_by_mlx_lm(variant(name), 40)

    async def scenario(engine: Engine) -> None:
        requests = [asking(question, max_tokens=40) for question in QUESTIONS]
        alone = [text(await answer(engine, request)) for request in requests]
        together = await asyncio.gather(*(answer(engine, request) for request in requests))
        assert alone == expected
        assert [text(events) for events in together] == expected

    with_engine(variant(name), scenario)


@pytest.mark.parametrize("length", range(1, 12))
def test_a_stop_string_of_any_length_at_any_place_stops(variant: Variant, length: int) -> None:
    """Its borders and those of the tokens lie everywhere."""

    async def scenario(engine: Engine) -> None:
        sentence = d.FOOD
        places = range(0, len(sentence) - length, 5)
        stops = [sentence[place : place + length] for place in places]
        requests = [asking(d.FOOD_QUESTION, stop=(stop,)) for stop in stops]
        answers = await asyncio.gather(*(answer(engine, request) for request in requests))
        for stop, events in zip(stops, answers, strict=True):
            assert text(events) == sentence[: sentence.index(stop)]
            assert end(events).reason == "stop"

    with_engine(variant("mlx-bf16"), scenario)


@pytest.mark.parametrize(
    "odd",
    [
        Sampling(temperature=1.0, top_k=2**31 - 1),
        Sampling(temperature=1.0, top_k=384),
        Sampling(temperature=1.0, top_k=383, seed=1),
        Sampling(temperature=100.0, top_p=0.0, min_p=1.0),
        Sampling(temperature=1e-30, top_p=1e-30, min_p=1e-30),
        Sampling(temperature=1.0, repetition_penalty=10.0, presence_penalty=2.0),
        Sampling(temperature=1.0, seed=-(2**70), logit_bias=dict.fromkeys(range(384), -100.0)),
    ],
)
def test_odd_parameters_are_honoured_and_hurt_no_neighbour(variant: Variant, odd: Sampling) -> None:
    async def scenario(engine: Engine) -> None:
        asked = replace(asking(d.SONG_QUESTION, max_tokens=12), sampling=odd)
        neighbour, own = await asyncio.gather(
            answer(engine, asking(d.QUESTION)), answer(engine, asked)
        )
        assert text(neighbour) == d.SENTENCE
        assert end(own).usage.completion_tokens >= 1

    with_engine(variant("mlx-bf16"), scenario)


def test_a_tokenizer_with_more_words_than_the_network_reads_nothing_it_does_not_have(
    variant: Variant, tmp_path: Path
) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(variant("mlx-bf16"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 300}))
    words = Text(folder)
    with pytest.raises(BadRequestError, match="300"):
        words.prompt(GenerationRequest(prompt=(299, 300)))
    with pytest.raises(BadRequestError, match="300"):
        words.prompt(GenerationRequest(prompt=d.SENTENCE))
