"""The MLX engine behind the real daemon, asked by the official client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from tests.backends.mlx.test_relatives import adapter
from tests.bench import mlx_models
from tests.e2e.daemon import Daemon, serving
from tests.tiny import dialogues as d
from tests.tiny.variants import build

TOOL: Any = d.WEATHER_TOOL


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("mlx")
    build("mlx-4bit", root / "parrot")
    mlx_models.write(root / "hybrid", mlx_models.HYBRID)
    adapter(root / "poet", root / "parrot", 1.0)
    with serving(root) as running:
        yield running


def client(daemon: Daemon) -> OpenAI:
    return OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0)


def ask(daemon: Daemon, model: str, *messages: Any, **fields: Any) -> Any:
    fields = {"temperature": 0, **fields}
    return client(daemon).chat.completions.create(model=model, messages=messages, **fields)


def test_a_conversation_is_read_once_and_the_daemon_tells_so(daemon: Daemon) -> None:
    first = ask(daemon, "parrot", d.user(d.QUESTION))
    said = first.choices[0].message.content
    follow = ask(daemon, "parrot", d.user(d.QUESTION), d.assistant(said), d.user(d.FOOD_QUESTION))
    assert follow.choices[0].message.content == d.FOOD
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    cached = follow.usage.prompt_tokens_details.cached_tokens
    assert first.usage.prompt_tokens < cached < follow.usage.prompt_tokens
    (status,) = [one for one in daemon.status()["instances"] if one["model"] == "parrot"]
    kept = status["prefix_cache"]
    assert kept["hits"] >= 1
    assert kept["cached_tokens"] >= cached
    assert 0 < kept["nbytes"] <= status["reserved_bytes"]
    with daemon.client() as http:
        metrics = http.get("/metrics").text
    assert 'router_prefix_cache_hits_total{model="parrot",engine="mlx"}' in metrics


def test_a_session_with_tools_on_a_model_whose_state_cannot_be_trimmed(daemon: Daemon) -> None:
    messages: list[Any] = [d.system("Mend it. " * 100), d.user("Go on.")]
    shares = []
    for turn in range(5):
        answer = ask(daemon, "hybrid", *messages, tools=[TOOL], max_tokens=3)
        usage = answer.usage
        shares.append(usage.prompt_tokens_details.cached_tokens / usage.prompt_tokens)
        function = {"name": "get_weather", "arguments": json.dumps({"city": f"Paris {turn}"})}
        call = {"id": f"call_{turn}", "type": "function", "function": function}
        messages += [
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{turn}", "content": "sunny"},
        ]
    assert shares[0] == 0
    assert min(shares[1:]) > 0.8


def test_another_question_to_the_same_system_prompt(daemon: Daemon) -> None:
    """On a model whose state cannot be trimmed, it takes a checkpoint behind the system prompt."""
    system = d.system("You are a parrot of the sea. " * 30)
    ask(daemon, "hybrid", system, d.user("First question."), max_tokens=2)
    usage = ask(daemon, "hybrid", system, d.user("Another one."), max_tokens=2).usage
    assert usage.prompt_tokens_details.cached_tokens / usage.prompt_tokens > 0.8


def test_prompts_are_known_after_a_restart(tmp_path: Path) -> None:
    build("mlx-4bit", tmp_path / "models" / "parrot")
    flags = ("--prefix-cache-disk", "1G", "--cache-dir", str(tmp_path / "cache"))
    cached = []
    for _ in range(2):
        with serving(tmp_path / "models", flags=flags) as running:
            answer = ask(running, "parrot", d.user(d.QUESTION))
            cached.append(answer.usage.prompt_tokens_details.cached_tokens)
    assert cached == [0, answer.usage.prompt_tokens - 1]


def test_several_answers_with_the_likelihoods_of_their_tokens(daemon: Daemon) -> None:
    answer = ask(daemon, "parrot", d.user(d.QUESTION), n=2, logprobs=True, top_logprobs=2)
    assert [choice.message.content for choice in answer.choices] == [d.SENTENCE] * 2
    for choice in answer.choices:
        told = choice.logprobs.content
        assert b"".join(bytes(one.bytes) for one in told).decode() == d.SENTENCE
        assert all(len(one.top_logprobs) == 2 for one in told)


def test_streamed_choices_come_with_their_likelihoods(daemon: Daemon) -> None:
    texts, likely = ["", ""], ["", ""]
    for chunk in ask(daemon, "parrot", d.user(d.QUESTION), n=2, logprobs=True, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.logprobs:
                likely[choice.index] += "".join(one.token for one in choice.logprobs.content)
    assert texts == likely == [d.SENTENCE] * 2


def test_an_adapter_is_a_model_of_its_own_beside_its_base(daemon: Daemon) -> None:
    listed = {model.id for model in client(daemon).models.list()}
    assert listed == {"parrot", "hybrid", "poet"}
    poem = ask(daemon, "poet", d.user(d.QUESTION), max_tokens=24)
    assert poem.model == "poet"
    assert d.SENTENCE not in poem.choices[0].message.content
    assert ask(daemon, "parrot", d.user(d.QUESTION)).choices[0].message.content == d.SENTENCE
    with daemon.client() as http:
        told = http.get("/router/models").json()
    assert [one["path"] for one in told["skipped"]] == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("n", 0), ("n", 99), ("top_logprobs", 3), ("temperature", -1), ("stop", [1])],
)
def test_a_wrong_parameter_is_named(daemon: Daemon, field: str, value: Any) -> None:
    with pytest.raises(BadRequestError) as caught:
        ask(daemon, "parrot", d.user(d.QUESTION), **{field: value})
    assert caught.value.param == field
