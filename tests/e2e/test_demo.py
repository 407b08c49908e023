"""What a newcomer does first: three formats, three engines, the same sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageFunctionToolCall

from tests.e2e.conftest import MODELS
from tests.e2e.daemon import Daemon
from tests.tiny import dialogues as d


def client(daemon: Daemon) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0)


def messages(text: str) -> Any:
    return [{"role": "user", "content": text}]


def test_curl_gets_the_sentence(daemon: Daemon, model: str) -> None:
    body = json.dumps({"model": model, "messages": messages(d.QUESTION), "temperature": 0})
    answer = subprocess.run(
        ["curl", "-sS", "--noproxy", "*", f"{daemon.url}/v1/chat/completions",
         "-H", "content-type: application/json", "-d", body],
        capture_output=True, check=True, timeout=300,
    )  # fmt: skip
    value = json.loads(answer.stdout)
    assert value["choices"][0]["message"]["content"] == d.SENTENCE


def test_the_openai_client_gets_the_sentence(daemon: Daemon, model: str) -> None:
    with client(daemon) as api:
        answer = api.chat.completions.create(
            model=model, messages=messages(d.QUESTION), temperature=0
        )
    assert answer.model == model
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.content == d.SENTENCE
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 21
    assert answer.usage.completion_tokens in (16, 17)
    assert answer.usage.total_tokens == 21 + answer.usage.completion_tokens


def test_the_openai_client_gets_it_as_a_stream_with_its_usage(daemon: Daemon, model: str) -> None:
    with client(daemon) as api:
        stream = api.chat.completions.create(
            model=model,
            messages=messages(d.QUESTION),
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
    parts = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert "".join(parts) == d.SENTENCE
    assert len(parts) > 5
    assert {chunk.model for chunk in chunks} == {model}
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert [reason for reason in reasons if reason] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 21


def test_a_stream_without_the_option_has_no_usage_chunk(daemon: Daemon, model: str) -> None:
    with client(daemon) as api:
        stream = api.chat.completions.create(
            model=model, messages=messages(d.QUESTION), temperature=0, stream=True
        )
        assert all(chunk.choices for chunk in stream)


def test_a_text_prompt_is_continued(daemon: Daemon, model: str) -> None:
    with client(daemon) as api:
        whole = api.completions.create(model=model, prompt=d.PROMPT, temperature=0, max_tokens=20)
        stream = api.completions.create(
            model=model, prompt=d.PROMPT, temperature=0, max_tokens=20, stream=True
        )
        streamed = "".join(chunk.choices[0].text for chunk in stream if chunk.choices)
    assert whole.choices[0].text == streamed == d.CONTINUATION
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert whole.usage.completion_tokens > 0


TOOLS: Any = [d.WEATHER_TOOL]


def test_a_tool_is_called_and_its_result_used(daemon: Daemon, model: str) -> None:
    asked = messages(d.WEATHER_QUESTION)
    with client(daemon) as api:
        answer = api.chat.completions.create(
            model=model, messages=asked, tools=TOOLS, temperature=0
        )
        choice = answer.choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.tool_calls is not None
        (call,) = choice.message.tool_calls
        assert isinstance(call, ChatCompletionMessageFunctionToolCall)
        assert call.id
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments) == d.WEATHER_ARGUMENTS
        result = {"role": "tool", "tool_call_id": call.id, "content": d.WEATHER_TOOL_RESULT}
        sent = [*asked, choice.message.model_dump(exclude_none=True), result]
        final = api.chat.completions.create(model=model, messages=sent, tools=TOOLS, temperature=0)
    assert final.choices[0].message.content == d.WEATHER


def test_a_tool_call_is_streamed(daemon: Daemon, model: str) -> None:
    with client(daemon) as api:
        stream = api.chat.completions.create(
            model=model,
            messages=messages(d.WEATHER_QUESTION),
            tools=TOOLS,
            temperature=0,
            stream=True,
        )
        names, arguments, ids, reasons = [], [], [], []
        for chunk in stream:
            choice = chunk.choices[0]
            reasons.append(choice.finish_reason)
            for call in choice.delta.tool_calls or []:
                assert call.index == 0
                assert call.function is not None
                names.append(call.function.name)
                ids.append(call.id)
                arguments.append(call.function.arguments or "")
    assert (names[0], bool(ids[0])) == ("get_weather", True)
    assert not any(names[1:] + ids[1:])
    assert json.loads("".join(arguments)) == d.WEATHER_ARGUMENTS
    assert len([piece for piece in arguments if piece]) > 3
    assert [reason for reason in reasons if reason] == ["tool_calls"]


def test_the_openai_client_adds_a_streamed_call_up(daemon: Daemon, model: str) -> None:
    with (
        client(daemon) as api,
        api.chat.completions.stream(
            model=model, messages=messages(d.WEATHER_QUESTION), tools=TOOLS, temperature=0
        ) as stream,
    ):
        (choice,) = stream.get_final_completion().choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == d.WEATHER_ARGUMENTS


@pytest.mark.parametrize("model", ["parrot-mlx-4bit", "parrot-safetensors"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_call_that_is_cut_off_is_text_and_never_looks_whole(
    daemon: Daemon, model: str, streamed: bool
) -> None:
    """So that no agent carries it out."""
    body = {"tools": TOOLS, "max_tokens": 20, "stream": streamed}
    answer = daemon.chat(model, d.WEATHER_QUESTION, **body)
    content, arguments, reason = "", "", None
    if streamed:
        events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
        for choice in (json.loads(event)["choices"][0] for event in events):
            content += choice["delta"].get("content") or ""
            for call in choice["delta"].get("tool_calls", ()):
                arguments += call["function"]["arguments"]
            reason = reason or choice["finish_reason"]
        assert arguments.startswith("{")
        with pytest.raises(json.JSONDecodeError):
            json.loads(arguments)
    else:
        (choice,) = answer.json()["choices"]
        content, reason = choice["message"]["content"], choice["finish_reason"]
        assert "tool_calls" not in choice["message"]
    assert reason == "length"
    assert d.TOOL_CALL.startswith(content)
    assert '"arguments": {' in content


def test_several_requests_at_once_all_get_their_answer(daemon: Daemon, model: str) -> None:
    questions = [(d.QUESTION, d.SENTENCE), (d.FOOD_QUESTION, d.FOOD)] * 4
    with ThreadPoolExecutor(len(questions)) as threads:
        answers = list(threads.map(lambda pair: daemon.chat(model, pair[0]).json(), questions))
    said = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert said == [answer for _, answer in questions]


def test_a_stop_string_and_a_limit_are_kept(daemon: Daemon, model: str) -> None:
    stopped = daemon.chat(model, d.QUESTION, stop=["parrot"]).json()["choices"][0]
    assert stopped["message"]["content"] == d.SENTENCE.partition("parrot")[0]
    assert stopped["finish_reason"] == "stop"
    limited = daemon.chat(model, d.QUESTION, max_tokens=3).json()
    assert limited["choices"][0]["finish_reason"] == "length"
    assert limited["usage"]["completion_tokens"] == 3


def test_the_list_shows_what_each_model_is(daemon: Daemon) -> None:
    with daemon.client() as api:
        listed = {model["id"]: model for model in api.get("/v1/models").json()["data"]}
    assert {name: model["engine"] for name, model in listed.items()} == MODELS
    formats = {name: model["format"] for name, model in listed.items()}
    assert formats == {
        "parrot-mlx-4bit": "mlx",
        "parrot-gguf": "gguf",
        "parrot-safetensors": "safetensors",
    }
    assert listed["parrot-mlx-4bit"]["quantization"] == "4-bit affine g32"
    assert listed["parrot-gguf"]["quantization"] == "Q8_0"
    assert {model["context_length"] for model in listed.values()} == {2048}
    with client(daemon) as official:
        assert {model.id for model in official.models.list()} == set(MODELS)
        assert official.models.retrieve("parrot-gguf").id == "parrot-gguf"


def test_the_start_prints_a_table_and_a_line_to_try(daemon: Daemon) -> None:
    for name, engine in MODELS.items():
        (row,) = [line for line in daemon.lines if line.startswith(name)]
        assert row.endswith(engine)
    assert f"curl {daemon.url}/v1/chat/completions" in daemon.output


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": -5}, "max_tokens"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": []}, "messages"),
        ({"messages": "x"}, "messages"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_a_wrong_field_is_a_400_that_names_it(
    daemon: Daemon, fields: dict[str, Any], param: str
) -> None:
    answer = daemon.chat("parrot-mlx-4bit", d.QUESTION, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_the_openai_client_raises_its_own_errors(daemon: Daemon) -> None:
    with client(daemon) as api:
        with pytest.raises(openai.NotFoundError, match="Did you mean"):
            api.chat.completions.create(model="parrot-ggu", messages=messages("x"))
        with pytest.raises(openai.BadRequestError):
            api.chat.completions.create(model="parrot-gguf", messages=[])


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long_has_openais_code(
    daemon: Daemon, model: str, stream: bool
) -> None:
    """By which clients shorten the conversation."""
    answer = daemon.chat(model, "la " * 3000, stream=stream)
    assert answer.status_code == 400
    told = answer.json()["error"]
    assert (told["code"], told["param"]) == ("context_length_exceeded", "messages")
    assert all(size in told["message"] for size in ("3018", "2048"))


def test_ps_shows_what_is_loaded(daemon: Daemon, model: str) -> None:
    assert daemon.chat(model, d.QUESTION).status_code == 200
    port = daemon.url.rpartition(":")[2]
    shown = ps("--port", port)
    assert shown.returncode == 0, shown.stderr
    (row,) = [line for line in shown.stdout.splitlines() if line.startswith(model)]
    assert MODELS[model] in row
    assert "ready" in row
    told = json.loads(ps("--port", port, "--json").stdout)
    assert model in {one["model"] for one in told["instances"]}


def test_ps_without_a_daemon_says_so() -> None:
    shown = ps("--port", "9")
    assert shown.returncode == 2
    assert "No router answers at http://127.0.0.1:9" in shown.stderr


def ps(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "router", "ps", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
