"""Vectors, ranks and llama.cpp's helpers at the real daemon, by the official client and plain."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import ollama
import openai
import pytest

from tests.e2e.daemon import Daemon, serving
from tests.tiny import dialogues as d
from tests.tiny.variants import build
from tests.truth import ggufs
from tests.truth.embedders import embedder

EMBEDDERS = {"vectors-mlx": "mlx", "vectors-gguf": "llama.cpp"}
CHAT, RANKER = "parrot-gguf", "ranker-gguf"
TEXTS = ["hello", "a b c", d.SENTENCE]
CLOSE = 1e-3


@pytest.fixture(scope="module", params=["daemon", "worker"])
def daemon(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("vectors")
    embedder(folder / "vectors-mlx")
    build("mlx-4bit", folder / "parrot-mlx")
    ggufs.network(folder / "vectors-gguf.gguf", architecture="qwen3", changes=ggufs.pools)
    ggufs.network(folder / f"{RANKER}.gguf", changes=ggufs.ranks)
    ggufs.parrot(folder / f"{CHAT}.gguf")
    with serving(folder, flags=("--isolation", request.param)) as running:
        yield running


def client(daemon: Daemon) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0)


def post(daemon: Daemon, path: str, **body: Any) -> tuple[int, Any]:
    with daemon.client() as asker:
        answer = asker.post(path, json=body)
    return answer.status_code, answer.json()


@pytest.mark.parametrize("model", EMBEDDERS)
def test_the_official_client_gets_vectors(daemon: Daemon, model: str) -> None:
    """It asks for base64 by itself, and decodes it."""
    with client(daemon) as asking:
        found = asking.embeddings.create(model=model, input=TEXTS)
        floats = asking.embeddings.create(model=model, input=TEXTS, encoding_format="float")
        one = asking.embeddings.create(model=model, input=TEXTS[1])
        ids = asking.embeddings.create(model=model, input=[[5, 6], [7]])
    vectors = np.array([item.embedding for item in found.data])
    assert [item.index for item in found.data] == [0, 1, 2]
    assert found.model == model
    assert found.usage.prompt_tokens == found.usage.total_tokens > len(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=CLOSE)
    np.testing.assert_allclose([i.embedding for i in floats.data], vectors, atol=CLOSE)
    np.testing.assert_allclose(one.data[0].embedding, vectors[1], atol=CLOSE)
    assert (len(ids.data), ids.usage.prompt_tokens) == (2, 3)


@pytest.mark.parametrize("model", EMBEDDERS)
def test_they_are_run_by_the_engine_that_was_foretold(daemon: Daemon, model: str) -> None:
    assert post(daemon, "/v1/embeddings", model=model, input="a")[0] == 200
    (instance,) = [i for i in daemon.status()["instances"] if i["model"] == model]
    assert instance["engine"] == EMBEDDERS[model]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "input"),
    ({"input": []}, "input"),
    ({"input": ["a", 1]}, "input[1]"),
    ({"input": {"a": 1}}, "input"),
    ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
    ({"input": "a", "dimensions": 8}, "dimensions"),
    ({"input": "a", "dimensions": -1}, "dimensions"),
    ({"input": "a", "prompt_name": "nothing"}, "prompt_name"),
    ({"input": "hello " * 2000}, "input"),
]


@pytest.mark.parametrize("model", EMBEDDERS)
@pytest.mark.parametrize(("fields", "param"), WRONG, ids=[str(w)[:30] for w, _ in WRONG])
def test_what_is_wrong_is_a_400(
    daemon: Daemon, model: str, fields: dict[str, Any], param: str
) -> None:
    status, body = post(daemon, "/v1/embeddings", model=model, **fields)
    assert status == 400, body
    told = body["error"]
    # llama.cpp's own words about its context name the numbers instead.
    assert told.get("param") == param or "context" in told["message"]


def test_a_text_longer_than_llama_servers_usual_batch_is_embedded(daemon: Daemon) -> None:
    status, body = post(daemon, "/v1/embeddings", model="vectors-gguf", input="hello " * 300)
    assert status == 200, body
    assert body["usage"]["prompt_tokens"] > 512


def test_each_endpoint_says_which_models_it_is_for(daemon: Daemon) -> None:
    status, body = post(daemon, "/v1/embeddings", model=CHAT, input="a")
    assert status == 400
    assert all(repr(name) in body["error"]["message"] for name in EMBEDDERS)
    assert daemon.chat("vectors-mlx", "hi").status_code == 400
    assert daemon.chat(RANKER, "hi").status_code == 400
    status, body = post(daemon, "/v1/rerank", model="vectors-mlx", query="a", documents=["b"])
    assert (status, RANKER in body["error"]["message"]) == (400, True)


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
def test_documents_are_ranked(daemon: Daemon, path: str) -> None:
    documents: list[Any] = ["hello", {"text": "a b c"}, "x"]
    asked = {"model": RANKER, "query": "hello", "documents": documents}
    status, body = post(daemon, path, **asked)
    assert status == 200, body
    assert {result["index"] for result in body["results"]} == {0, 1, 2}
    assert body["usage"]["total_tokens"] > 0
    status, body = post(daemon, path, **asked, top_n=1, return_documents=True)
    (best,) = body["results"]
    assert best["document"]["text"] == ["hello", "a b c", "x"][best["index"]]
    assert post(daemon, path, **asked, top_n=-1)[0] == 400


def test_the_helpers_of_llama_cpp_answer_where_it_runs_the_model(daemon: Daemon) -> None:
    status, body = post(daemon, "/tokenize", model=CHAT, content="hello")
    assert status == 200
    back = post(daemon, "/detokenize", model=CHAT, tokens=body["tokens"])
    assert back == (200, {"content": "hello"})
    hello = [d.user("hello")]
    status, body = post(daemon, "/apply-template", model=CHAT, messages=hello)
    assert (status, "hello" in body["prompt"]) == (200, True)
    status, body = post(daemon, "/infill", model=CHAT, input_prefix="a", input_suffix="b")
    assert (status, "not supported by this model" in body["error"]["message"]) == (501, True)
    status, body = post(daemon, "/tokenize", model="parrot-mlx", content="hello")
    assert (status, "is run by mlx" in body["error"]["message"]) == (501, True)


@pytest.mark.parametrize("model", EMBEDDERS)
def test_ollamas_client_gets_the_same_vectors(daemon: Daemon, model: str) -> None:
    with ollama.Client(host=daemon.url, timeout=300, trust_env=False) as asking:
        found = asking.embed(model, TEXTS)
        single = asking.embeddings(model, TEXTS[0]).embedding
        assert list(asking.embed(model, []).embeddings) == []
        assert asking.show(model).capabilities == ["embedding"]
        with pytest.raises(ollama.ResponseError) as caught:
            asking.embed(CHAT, TEXTS)
        assert caught.value.status_code == 400
        with pytest.raises(ollama.ResponseError, match="dimensions"):
            asking.embed(model, TEXTS, dimensions=2)
    with client(daemon) as plain:
        vectors = [
            item.embedding for item in plain.embeddings.create(model=model, input=TEXTS).data
        ]
    np.testing.assert_allclose(np.array(found.embeddings), np.array(vectors), atol=CLOSE)
    np.testing.assert_allclose(np.array(single), np.array(vectors[0]), atol=CLOSE)
    assert found.prompt_eval_count


def test_a_chat_goes_on_while_a_hundred_texts_are_embedded(daemon: Daemon) -> None:
    assert daemon.chat("parrot-mlx", d.QUESTION).status_code == 200
    texts = [f"{n} {d.SENTENCE * 4}" for n in range(100)]
    answers: list[tuple[int, Any]] = []
    embedding = threading.Thread(
        target=lambda: answers.append(
            post(daemon, "/v1/embeddings", model="vectors-mlx", input=texts)
        )
    )
    embedding.start()
    chat = daemon.chat("parrot-mlx", d.QUESTION)
    assert chat.json()["choices"][0]["message"]["content"] == d.SENTENCE
    embedding.join()
    ((status, body),) = answers
    assert (status, len(body["data"])) == (200, 100)
