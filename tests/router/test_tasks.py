"""What is asked for besides text: refused before anything is loaded, or passed on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backends.asgi import send_whole
from backends.base import Message
from backends.errors import BadRequestError
from detect.types import Role, WeightFormat
from router.api import rerank
from router.api.engine_error import Blame
from router.api.mending import Mending
from router.api.task import CHAT
from tests.router.entries import entry
from tests.router.pools import Engines
from tests.router.sites import serving
from tests.router.test_api import error
from tests.slack import run

EMBED, RERANK = "/v1/embeddings", "/v1/rerank"
WRITER = entry("writer")
EMBEDDERS = tuple(entry(f"e{n}", role=Role.EMBEDDING) for n in range(7))
RANKER = entry("ranker", role=Role.RERANKER)


@pytest.fixture
def fake(tmp_path: Path) -> Engines:
    return Engines(tmp_path)


def test_only_models_that_embed_are_asked_to_and_others_are_told_which_do(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, WRITER, RANKER, *EMBEDDERS) as site:
            for model in ("writer", "ranker"):
                asked = {"model": model, "input": "a"}
                told = error(await site.chat(asked, EMBED), 400, "invalid_request")
                assert told["param"] == "model"
                assert "make vectors of texts" in told["message"]
                assert "'e0', 'e1', 'e2', 'e3', 'e4' and 2 more" in told["message"]
            told = error(
                await site.chat({"model": "e0", "query": "a", "documents": ["a"]}, RERANK),
                400, "invalid_request",
            )  # fmt: skip
            assert "Those here are 'ranker'" in told["message"]
            assert site.leases == {}
            assert (await site.chat({"model": "e0", "input": "a"}, EMBED)).status_code == 200
        async with serving(fake, WRITER) as site:
            told = error(await site.chat({"model": "writer", "input": "a"}, EMBED), 400,
                         "invalid_request")  # fmt: skip
            assert "There is none here." in told["message"]

    run(main())


def test_a_conversion_that_lost_its_files_is_told_which(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, WRITER, entry("mlx", format=WeightFormat.MLX)) as site:
            for model, known in (("mlx", True), ("writer", False)):
                answer = await site.chat({"model": model, "input": "a"}, EMBED)
                told = error(answer, 400, "invalid_request")
                assert ("copy modules.json" in told["message"]) is known

    run(main())


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (EMBED, {}, "input"),
        (EMBED, {"input": 1}, "input"),
        (EMBED, {"input": ["a", 1]}, "input[1]"),
        (EMBED, {"input": "a", "dimensions": 0}, "dimensions"),
    ],
)
def test_a_wrong_request_is_refused_before_the_model_is_loaded(
    fake: Engines, path: str, fields: dict[str, Any], param: str
) -> None:
    async def main() -> None:
        async with serving(fake, *EMBEDDERS, RANKER) as site:
            told = error(await site.chat({"model": "e0", **fields}, path), 400, "invalid_request")
            assert told["param"] == param
            assert site.leases == {}

    run(main())


@pytest.mark.parametrize(
    ("path", "fields", "model"),
    [
        ("/tokenize", {"content": "a"}, "writer"),
        ("/detokenize", {"tokens": [1]}, "writer"),
        ("/apply-template", {"messages": [{"role": "user", "content": "a"}]}, "writer"),
        ("/infill", {"input_prefix": "a", "input_suffix": "b"}, "writer"),
        (RERANK, {"query": "a", "documents": ["a"]}, "ranker"),
        ("/rerank", {"query": "a", "documents": ["a"]}, "ranker"),
    ],
)
def test_what_the_engine_does_not_have_is_a_501_with_its_name(
    fake: Engines, path: str, fields: dict[str, Any], model: str
) -> None:
    async def main() -> None:
        async with serving(fake, WRITER, RANKER) as site:
            told = error(
                await site.chat({"model": model, **fields}, path), 501, "unsupported_by_engine"
            )
            assert f"is run by fake, which has no {path}; llama.cpp has it" in told["message"]
            assert site.leases == {}

    run(main())


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"documents": ["a"]}, "query"),
    ({"query": ["a"], "documents": ["a"]}, "query"),
    ({"query": "a"}, "documents"),
    ({"query": "a", "documents": []}, "documents"),
    ({"query": "a", "documents": "b"}, "documents"),
    ({"query": "a", "documents": ["b", 1]}, "documents[1]"),
    ({"query": "a", "documents": [{"image": "b"}]}, "documents[0]"),
    ({"query": "a", "texts": [None]}, "texts[0]"),
    ({"query": "a", "documents": ["b"] * (rerank.MAX_DOCUMENTS + 1)}, "documents"),
    ({"query": "a", "documents": ["b"], "top_n": 0}, "top_n"),
    ({"query": "a", "documents": ["b"], "top_n": "1"}, "top_n"),
    ({"query": "a", "documents": ["b"], "return_documents": 1}, "return_documents"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=[str(w)[:40] for w, _ in WRONG])
def test_what_is_wrong_with_documents_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        rerank.parse(json.dumps(fields).encode())
    assert refused.value.param == param


def test_documents_that_are_objects_become_texts_and_nothing_else_changes() -> None:
    plain = b'{"query": "\\u00e9", "documents" : ["a"], "odd":1e3}'
    assert rerank.mending(plain).body == plain
    objects = b'{"query": "\\u00e9", "documents" : [{"text": "a"}, "b"], "odd":1e3}'
    body = rerank.mending(objects).body
    assert body == b'{"query": "\\u00e9", "odd":1e3, "documents": ["a", "b"]}'


async def through(mending: Mending, status: int, *parts: bytes) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    out = mending.send(send)
    await out({"type": "http.response.start", "status": status,
               "headers": [(b"x-own", b"kept"), (b"content-length", b"1")]})  # fmt: skip
    for i, part in enumerate(parts):
        await out({"type": "http.response.body", "body": part, "more_body": i + 1 < len(parts)})
    return sent


def test_documents_are_put_into_the_answer_when_they_are_asked_for() -> None:
    body = b'{"query": "a", "documents": ["x", {"text": "y"}], "return_documents": true}'
    answer = b'{"results":[{"index":1,"relevance_score":0.5}]}'
    start, whole = run(through(rerank.mending(body), 200, answer[:9], answer[9:]))
    assert json.loads(whole["body"])["results"] == [
        {"index": 1, "relevance_score": 0.5, "document": {"text": "y"}}
    ]
    assert dict(start["headers"])[b"content-length"] == str(len(whole["body"])).encode()
    assert dict(start["headers"])[b"x-own"] == b"kept"


def test_answers_that_are_right_pass_as_they_come() -> None:
    mending = Mending(body=b"", blame=Blame("input"))
    _, *parts = run(through(mending, 200, b"{ ", b"}"))
    assert [part["body"] for part in parts] == [b"{ ", b"}"]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (500, b'{"error":{"message":"input (9 tokens) is too large to process. x"}}', 400),
        (500, b'{"error":{"message":"out of memory"}}', 500),
        (502, b"[" * 100_000, 502),
        (500, b"too large to process", 500),
        (400, b'{"error":{"message":"too large to process"}}', 400),
    ],
)
def test_a_text_that_is_too_long_is_the_requests_fault(
    status: int, body: bytes, expected: int
) -> None:
    mending = Mending(body=b"", blame=Blame("input"))
    start, whole = run(through(mending, status, body))
    assert start["status"] == expected
    if status != expected:
        assert json.loads(whole["body"])["error"]["param"] == "input"
    elif b'"error"' in body:
        assert json.loads(whole["body"])["error"]["param"] is None
    else:
        assert whole["body"] == body


TOO_LONG = {
    "code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 3018, "n_ctx": 2048,
    "message": "request (3018 tokens) exceeds the available context size (2048 tokens)",
}  # fmt: skip
INVALID = {"code": 400, "type": "invalid_request_error", "message": "Field 'seed': no number"}
MISREAD = {"code": 500, "type": "server_error", "message": "Failed to parse tools: none"}


@pytest.mark.parametrize(
    ("said", "status", "code", "param"),
    [
        (TOO_LONG, 400, "context_length_exceeded", "messages"),
        (INVALID, 400, "invalid_request", "seed"),
        ({**INVALID, "message": "It is wrong."}, 400, "invalid_request", None),
        (MISREAD, 400, "invalid_request", "tools"),
        ({**MISREAD, "message": "It broke."}, 500, "engine_refused", None),
    ],
)
def test_errors_of_llama_cpp_are_told_as_those_of_the_other_engines(
    said: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    mending = CHAT.mending(b"{}")
    start, whole = run(through(mending, said["code"], json.dumps({"error": said}).encode()))
    told = json.loads(whole["body"])["error"]
    kind = "server_error" if status >= 500 else "invalid_request_error"
    assert (start["status"], told["code"], told["param"]) == (status, code, param)
    assert told["type"] == kind
    if said is TOO_LONG:
        assert "prompt is too long" in told["message"]
        assert all(size in told["message"] for size in ("3018", "2048"))
    else:
        assert told["message"] == said["message"]


def test_a_mended_answer_is_whole() -> None:
    sent: list[Message] = []

    async def main() -> None:
        async def send(message: Message) -> None:
            sent.append(message)

        mended = Mending(body=b"", mend=lambda body: b"{}")
        await send_whole(mended.send(send), 200, b"text/plain", b"long ago")

    run(main())
    assert (sent[0]["status"], sent[1]["body"]) == (200, b"{}")
