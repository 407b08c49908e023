"""OpenAI's Responses on the real engines, asked by OpenAI's own Python client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from tests.e2e.daemon import Daemon
from tests.tiny import dialogues as d

TOOL: Any = {"type": "function", **d.WEATHER_TOOL["function"], "strict": False}


class Size(BaseModel):
    size: Literal["small", "big"]


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, model: str, given: Any, **fields: Any) -> Any:
    return client.responses.create(model=model, input=given, temperature=0, **fields)


def test_a_response(client: openai.OpenAI, model: str) -> None:
    response = ask(client, model, d.QUESTION, instructions=d.SYSTEM, metadata={"a": "b"})
    assert response.output_text == d.SENTENCE
    assert (response.status, response.model, response.metadata) == ("completed", model, {"a": "b"})
    assert response.usage.input_tokens > 0
    assert response.usage.output_tokens > 0
    assert client.responses.retrieve(response.id).output_text == d.SENTENCE


def test_a_stream(client: openai.OpenAI, model: str) -> None:
    with client.responses.stream(model=model, input=d.FOOD_QUESTION, temperature=0) as stream:
        events = list(stream)
        final = stream.get_final_response()
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == final.output_text == d.FOOD
    assert len(deltas) > 3
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert final.usage
    assert final.usage.output_tokens > 0


def test_a_conversation_goes_on_by_its_id(client: openai.OpenAI, model: str) -> None:
    first = ask(client, model, d.QUESTION)
    second = ask(client, model, d.FOOD_QUESTION, previous_response_id=first.id)
    assert second.output_text == d.FOOD
    assert second.usage.input_tokens > first.usage.input_tokens
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, model, d.FOOD_QUESTION, previous_response_id=first.id)
    assert caught.value.code == "previous_response_not_found"
    assert client.responses.retrieve(second.id).output_text == d.FOOD


def test_tools_there_and_back(client: openai.OpenAI, model: str) -> None:
    fields: Any = {"tools": [TOOL]}
    response = ask(client, model, d.WEATHER_QUESTION, **fields)
    (call,) = response.output
    assert (call.type, call.name) == ("function_call", "get_weather")
    assert call.arguments.replace(" ", "") == '{"city":"Paris"}'
    result = {"type": "function_call_output", "call_id": call.call_id}
    result["output"] = d.WEATHER_TOOL_RESULT
    kept = ask(client, model, [result], previous_response_id=response.id, **fields)
    question = {"role": "user", "content": d.WEATHER_QUESTION}
    told = ask(client, model, [question, call.model_dump(), result], **fields)
    assert kept.output_text == told.output_text == d.WEATHER
    with client.responses.stream(
        model=model, input=d.WEATHER_QUESTION, temperature=0, tools=[TOOL]
    ) as stream:
        (streamed,) = stream.get_final_response().output
    assert streamed.type == "function_call"
    assert streamed.arguments == call.arguments


def test_an_answer_of_a_demanded_form(client: openai.OpenAI, model: str) -> None:
    response = client.responses.parse(
        model=model, input=d.QUESTION, temperature=0, text_format=Size, max_output_tokens=200
    )
    assert response.output_parsed
    assert response.output_parsed.size in ("small", "big")


def test_an_answer_that_is_cut_off(client: openai.OpenAI, model: str) -> None:
    response = ask(client, model, d.QUESTION, max_output_tokens=3)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage.output_tokens == 3


def test_a_call_that_was_cut_off_ends_no_session(client: openai.OpenAI, model: str) -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": '{"ci'}
    result = {"type": "function_call_output", "call_id": "c1", "output": "Arguments are no JSON."}
    question = {"role": "user", "content": d.WEATHER_QUESTION}
    assert ask(client, model, [question, call, result], tools=[TOOL], max_output_tokens=9).output


def test_errors(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.NotFoundError):
        ask(client, "absent", d.QUESTION)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, model, [{"type": "computer_call"}])
    assert caught.value.param == "input.0.type"
    picture = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}
    with pytest.raises(openai.BadRequestError, match="cannot see"):
        ask(client, model, [{"role": "user", "content": [picture]}], stream=True)


def test_a_client_that_leaves_ends_the_answer(
    client: openai.OpenAI, daemon: Daemon, model: str
) -> None:
    with ask(client, model, d.SONG_QUESTION, stream=True) as events:
        next(event for event in events if event.type == "response.output_text.delta")
    assert ask(client, model, d.QUESTION).output_text == d.SENTENCE
    (status,) = [one for one in daemon.status()["instances"] if one["model"] == model]
    assert status["leases"] == 0
