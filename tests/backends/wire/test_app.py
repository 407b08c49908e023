from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from backends.errors import BadRequestError, EngineDiedError
from backends.wire.app import HEALTH_PATH, EngineApp, completion_handlers, embedding_handlers
from backends.wire.embeddings import EMBEDDINGS_PATH, EmbeddingRequest, Embeddings
from backends.wire.events import Event, Finished, TextDelta, Usage
from backends.wire.request import CHAT_PATH, COUNT_PATH, TEXT_PATH, GenerationRequest
from tests.backends.messages import Exchange, scope
from tests.serving import client, serving
from tests.slack import run

FAILURES: dict[str, Exception] = {
    "refuse": BadRequestError("Not like this.", param="prompt"),
    "die": EngineDiedError("It died."),
}


async def echo(request: GenerationRequest) -> AsyncGenerator[Event, None]:
    """Says the prompt, unless it is told to fail: at once, or `later`."""
    words = request.prompt if isinstance(request.prompt, str) else ""
    first, _, when = words.partition(" ")
    if when:
        yield TextDelta("a")
    if first in FAILURES:
        raise FAILURES[first]
    yield TextDelta(words or str(request.messages[0]["content"]))
    yield Finished("stop", Usage(1, 1))


async def length(request: GenerationRequest) -> int:
    return len(request.messages)


HANDLERS = completion_handlers(
    echo, length, engine="fake", model="m", supported=frozenset({"seed"})
)
APP = EngineApp(HANDLERS, engine="fake")


def ask(method: str, path: str, body: bytes = b"", app: EngineApp = APP) -> Exchange:
    async def main() -> Exchange:
        exchange = Exchange(body[:5], body[5:])
        await app(scope(method, path), exchange.receive, exchange.send)
        return exchange

    exchange = run(main())
    assert exchange.complete
    return exchange


def post(path: str, **fields: Any) -> tuple[int | None, Any]:
    exchange = ask("POST", path, json.dumps(fields).encode())
    return exchange.status, json.loads(exchange.body)


def test_it_is_healthy() -> None:
    exchange = ask("GET", HEALTH_PATH)
    assert (exchange.status, json.loads(exchange.body)) == (
        200,
        {"status": "ok", "prefix_cache": None},
    )


def test_it_tells_how_long_a_prompt_is() -> None:
    message = {"role": "user", "content": "a"}
    answer = {"object": "response.input_tokens", "input_tokens": 2}
    assert post(COUNT_PATH, messages=[message, message]) == (200, answer)
    status, refused = post(COUNT_PATH, messages=[])
    assert (status, refused["error"]["param"]) == (400, "messages")


def test_it_answers_both_kinds_of_requests() -> None:
    status, body = post(TEXT_PATH, prompt="hello")
    assert (status, body["choices"][0]["text"], body["model"]) == (200, "hello", "m")
    status, body = post(CHAT_PATH, messages=[{"role": "user", "content": "hi"}])
    assert (status, body["choices"][0]["message"]["content"]) == (200, "hi")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", CHAT_PATH), ("POST", HEALTH_PATH), ("POST", "/v1/chat"),
     ("DELETE", TEXT_PATH), ("POST", CHAT_PATH + "/")],
)  # fmt: skip
def test_there_is_nothing_else(method: str, path: str) -> None:
    exchange = ask(method, path)
    assert exchange.status == 404
    assert json.loads(exchange.body)["error"]["message"] == "fake does not serve this path."


def test_a_request_that_is_wrong_is_answered_with_its_field() -> None:
    status, body = post(TEXT_PATH, prompt=1)
    assert status == 400
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["param"] == "prompt"
    assert post(TEXT_PATH, prompt="a", grammar="x")[1]["error"]["param"] == "grammar"
    assert post(TEXT_PATH, prompt="a", seed=1)[0] == 200


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("word", "status", "code"), [("refuse", 400, "invalid_request"), ("die", 502, "engine.died")]
)
def test_an_error_before_the_first_byte_is_an_answer(
    word: str, status: int, code: str, stream: bool
) -> None:
    answered, body = post(TEXT_PATH, prompt=word, stream=stream)
    assert (answered, body["error"]["code"]) == (status, code)


def test_letters_of_every_kind_survive_an_error() -> None:
    status, body = post(CHAT_PATH, messages=[{"role": "user", "content": [{"type": "é🦜"}]}])
    assert (status, body["error"]["param"]) == (400, "messages[0].content[0]")
    assert "é🦜" in body["error"]["message"]


def test_an_error_after_the_first_byte_cuts_the_connection() -> None:
    async def main() -> None:
        pieces: list[bytes] = []
        async with serving(APP) as port, client(port) as asker:
            body = {"prompt": "die later", "stream": True}
            async with asker.stream("POST", TEXT_PATH, json=body) as answer:
                with pytest.raises(httpx.RemoteProtocolError):
                    await collect(answer, pieces)
        got = b"".join(pieces)
        assert b"engine.died" in got
        assert b"[DONE]" not in got

    run(main())


async def collect(answer: httpx.Response, pieces: list[bytes]) -> None:
    async for piece in answer.aiter_raw():
        pieces.append(piece)


async def measure(request: EmbeddingRequest) -> Embeddings:
    if "die" in request.inputs:
        raise FAILURES["die"]
    return Embeddings([bytes(8)] * len(request.inputs), 3)


@pytest.mark.parametrize(
    ("path", "fields", "status", "said"),
    [
        (EMBEDDINGS_PATH, {"input": ["a", "b"]}, 200, '"total_tokens": 3'),
        (EMBEDDINGS_PATH, {"input": 1}, 400, '"param": "input"'),
        (EMBEDDINGS_PATH, {"input": "die"}, 502, "engine.died"),
        (CHAT_PATH, {"messages": []}, 400, "ask at /v1/embeddings"),
        (TEXT_PATH, {"prompt": "a"}, 400, "ask at /v1/embeddings"),
    ],
)
def test_an_embedder_answers_with_vectors_alone(
    path: str, fields: dict[str, Any], status: int, said: str
) -> None:
    app = EngineApp(embedding_handlers(measure, model="m"), engine="fake")
    exchange = ask("POST", path, json.dumps(fields).encode(), app)
    assert exchange.status == status
    assert said in json.dumps(json.loads(exchange.body))


def test_a_model_that_writes_says_what_it_would_need_to_embed() -> None:
    status, body = post(EMBEDDINGS_PATH, input="a")
    assert (status, body["error"]["param"]) == (400, "model")
    assert "modules.json" in body["error"]["message"]
