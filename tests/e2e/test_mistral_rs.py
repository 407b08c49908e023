"""mistral.rs in its worker: every format that it reads, load, and clients that leave."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import Variant
from tests.e2e.daemon import SLACK, Daemon, serving
from tests.tiny import dialogues as d
from tests.tiny.others import penalised

FORMATS = ("safetensors", "mlx-8bit", "mlx-4bit", "mlx-bf16", "gguf-f32", "gguf-q8_0")


@pytest.fixture(scope="module")
def daemon(variant: Variant, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("formats")
    for name in FORMATS:
        shutil.copytree(variant(name), root / name)
    # Of another model: mistral.rs would believe it, were it to see it.
    (root / "gguf-f32" / "config.json").write_text('{"architectures": ["OlmoeForCausalLM"]}')
    penalised(variant("safetensors"), root / "penalised", 5.0)
    names = (*FORMATS, "penalised")
    wishes = [word for name in names for word in ("--engine", f"{name}=mistral.rs")]
    with serving(root, flags=(*wishes, "--parallel", "4")) as running:
        yield running


def content(answer: Any) -> str:
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


@pytest.mark.parametrize("model", FORMATS)
def test_every_format_that_it_reads_recites_the_sentence(daemon: Daemon, model: str) -> None:
    answer = daemon.chat(model, d.QUESTION)
    assert content(answer) == d.SENTENCE
    assert answer.json()["usage"]["completion_tokens"] == 17
    assert daemon.chat(model, d.FOOD_QUESTION).json()["choices"][0]["message"]["content"] == d.FOOD
    engines = {row["model"]: row["engine"] for row in daemon.status()["instances"]}
    assert engines[model] == "mistral.rs"


def test_a_models_own_repetition_penalty_holds_where_a_request_names_none(daemon: Daemon) -> None:
    def said(**penalty: float) -> str:
        return content(daemon.chat("penalised", d.SONG_QUESTION, max_tokens=40, **penalty))

    assert said() == said(repetition_penalty=5.0) != said(repetition_penalty=1.0)
    assert d.SONG_WORD * 20 in said(repetition_penalty=1.0)


@pytest.mark.parametrize("model", ["safetensors", "gguf-f32"])
def test_a_continued_text_keeps_its_white_space(daemon: Daemon, model: str) -> None:
    with daemon.client() as api:
        body = {"model": model, "prompt": d.PROMPT, "temperature": 0, "max_tokens": 8}
        answer = api.post("/v1/completions", json=body).json()
    assert answer["choices"][0]["text"].startswith(d.CONTINUATION)


@pytest.mark.parametrize("model", ["safetensors", "gguf-f32"])
def test_requests_at_once_get_the_answers_that_each_gets_alone(daemon: Daemon, model: str) -> None:
    questions = [d.QUESTION, d.FOOD_QUESTION, d.WEATHER_QUESTION] * 4
    answers = {d.QUESTION: d.SENTENCE, d.FOOD_QUESTION: d.FOOD, d.WEATHER_QUESTION: d.NO_TOOLS}
    with ThreadPoolExecutor(len(questions)) as threads:
        got = list(threads.map(lambda question: daemon.chat(model, question), questions))
    assert [content(answer) for answer in got] == [answers[question] for question in questions]


@pytest.mark.parametrize("model", ["safetensors", "mlx-8bit", "gguf-f32"])
def test_tools_are_called_and_their_results_are_read(daemon: Daemon, model: str) -> None:
    called = daemon.chat(model, d.WEATHER_QUESTION, tools=[d.WEATHER_TOOL])
    choice = called.json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == d.WEATHER_ARGUMENTS
    result = {"role": "tool", "tool_call_id": call["id"], "content": d.WEATHER_TOOL_RESULT}
    body = {
        "model": model,
        "messages": [d.user(d.WEATHER_QUESTION), choice["message"], result],
        "tools": [d.WEATHER_TOOL],
        "temperature": 0,
    }
    with daemon.client() as api:
        assert content(api.post("/v1/chat/completions", json=body)) == d.WEATHER


def test_a_client_that_leaves_ends_the_generation(daemon: Daemon) -> None:
    """Its one slot of four is free again: later answers come as fast as without it."""
    body = {
        "model": "safetensors",
        "messages": [d.user(d.SONG_QUESTION)],
        "temperature": 0,
        "stream": True,
    }
    content(daemon.chat("safetensors", d.QUESTION))
    worker = _engine_of(daemon, "safetensors")
    with daemon.client() as api:
        for _ in range(4):
            with api.stream("POST", "/v1/chat/completions", json=body) as answer:
                next(answer.iter_lines())
    _await_rest(worker)


def _engine_of(daemon: Daemon, model: str) -> Any:
    import psutil

    (pid,) = [row["pid"] for row in daemon.status()["instances"] if row["model"] == model]
    (engine,) = psutil.Process(pid).children()
    return engine


def _await_rest(process: Any) -> None:
    """Until it computes nothing any more."""
    deadline = time.monotonic() + 5 * SLACK
    while process.cpu_percent(interval=0.3) > 20:
        assert time.monotonic() < deadline, "it still generates"


def test_a_prompt_longer_than_the_context_is_refused_with_both_lengths(daemon: Daemon) -> None:
    answer = daemon.chat("safetensors", "la " * 3000)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert "2048" in error["message"]
    assert error["param"] == "messages"
    assert content(daemon.chat("safetensors", d.QUESTION)) == d.SENTENCE


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"seed": 7}, "seed"),
        ({"temperature": "hot"}, "temperature"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0]"),
    ],
)
def test_what_it_cannot_honour_is_refused_by_name(
    daemon: Daemon, fields: dict[str, Any], param: str
) -> None:
    answer = daemon.chat("safetensors", d.QUESTION, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith(param)
