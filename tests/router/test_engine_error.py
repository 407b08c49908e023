"""What an engine says went wrong leaves in our terms, whole and in streams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import EngineDiedError
from backends.proxy import error_event
from router.api.engine_error import UNKNOWN, Blame, in_our_terms
from router.api.error_events import MARK, MAX_ERROR_BYTES, ErrorEvents
from router.errors import EngineRefusedError, RouterError
from tests.fake_engine import asking
from tests.router.entries import entry
from tests.router.pools import Engines
from tests.router.sites import serving
from tests.router.test_api import CHAT, error, read
from tests.slack import run
from tests.waiting import until

A = entry("a")
THEIRS = {"error": {"code": 500, "message": "Out of slots.", "type": "server_error"}}
TOLD = b'data: {"error":' + json.dumps(THEIRS["error"]).encode() + b"}\n\n"


@pytest.fixture
def fake(tmp_path: Path) -> Engines:
    return Engines(tmp_path)


def said(message: str, kind: str = "invalid_request_error", code: int = 400) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "type": kind}}


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        (400, said("No."), (400, "invalid_request_error", "invalid_request", None)),
        (404, said("No.", "not_found_error"),
         (404, "invalid_request_error", "engine_refused", None)),
        (500, said("No.", "server_error"), (500, "server_error", "engine_refused", None)),
        (501, said("No.", "not_supported_error"),
         (501, "server_error", "unsupported_by_engine", None)),
        (503, said("No.", "unavailable_error"), (503, "server_error", "engine_busy", None)),
        (500, said("[json.exception.type_error.302] No.", "server_error"),
         (400, "invalid_request_error", "invalid_request", None)),
        (400, said("Field 'n': No."), (400, "invalid_request_error", "invalid_request", "n")),
        (500, said("Failed to parse tools: No.", "server_error"),
         (400, "invalid_request_error", "invalid_request", "tools")),
        (500, said("audio input is not supported - hint: No.", "server_error"),
         (400, "invalid_request_error", "invalid_request", "messages")),
        (400, {"error": "No."}, (400, "invalid_request_error", "invalid_request", None)),
        (500, {"error": {"message": "No.", "code": "own", "param": 5}},
         (500, "server_error", "own", None)),
    ],
)  # fmt: skip
def test_an_error_gets_our_type_code_and_param(
    status: int, answer: Any, expected: tuple[int, str, str, str | None]
) -> None:
    found = in_our_terms(json.dumps(answer).encode(), status, Blame("messages"))
    assert found is not None
    raised, body = found
    told = json.loads(body)["error"]
    assert (raised.status, told["type"], told["code"], told["param"]) == expected
    assert told["message"].endswith("No.")


@pytest.mark.parametrize("value", [None, 5, [], {}, {"message": 5}, {"message": ""}])
def test_an_error_without_words_gets_some(value: Any) -> None:
    found = in_our_terms(json.dumps({"error": value}).encode(), 500, UNKNOWN)
    assert found is not None
    assert json.loads(found[1])["error"]["message"] == "The engine failed."


def test_words_without_end_are_cut() -> None:
    found = in_our_terms(json.dumps(said("x" * 10_000)).encode(), 400, UNKNOWN)
    assert found is not None
    assert found[0].message == "x" * 2000


@pytest.mark.parametrize(
    "body",
    [b"", b"no JSON", b"[" * 100_000, b'{"message": "x"}', b"[1]", b'"error"',
     json.dumps(EngineRefusedError("x", status=400, param="a").body()).encode()],
)  # fmt: skip
def test_what_is_no_error_or_ours_already_stays_as_it_is(body: bytes) -> None:
    assert in_our_terms(body, 400, Blame("messages")) is None


# Streams


def through(*pieces: bytes) -> tuple[bytes, RouterError | None]:
    events, out = ErrorEvents(Blame("messages")), b""
    for piece in pieces:
        passed = events.add(piece)
        out += passed.body
        if passed.error:
            return out, passed.error
    rest = events.finish()
    return out + rest.body, rest.error


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted(place % (len(data) + 1) for place in places)
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


PARTS = [
    b"data: ", b"\n", b"\n\n", b"\r\n\r\n", b"{", b'{"error', b'"', b'{"choices":[]}', b": x",
    b"data: [DONE]", MARK[:-1], b'x data: {"error": 1}', "é".encode(),
]  # fmt: skip


@given(st.lists(st.sampled_from(PARTS)), st.lists(st.integers(0, 500), max_size=8))
def test_whatever_is_no_error_comes_out_as_it_went_in(
    parts: list[bytes], places: list[int]
) -> None:
    data = b"".join(parts)
    if b"\n" + MARK in data or data.startswith(MARK):
        return
    assert through(*cut(data, places)) == (data, None)


@pytest.mark.parametrize("before", [b"", b'data: {"choices": []}\n\n', b": waiting\n\n"])
def test_an_error_is_found_wherever_its_stream_is_cut(before: bytes) -> None:
    data = before + TOLD
    for place in range(len(data) + 1):
        out, raised = through(data[:place], data[place:])
        assert raised is not None
        assert out.startswith(before + b"data: ")
        assert out.endswith(b"\n\n")
        assert json.loads(out.removeprefix(before + b"data: ")) == raised.body()
        assert (raised.status, raised.code) == (500, "engine_refused")


def test_an_error_that_its_engine_leaves_open_is_told_at_the_end() -> None:
    out, raised = through(TOLD.rstrip())
    assert raised is not None
    assert out.endswith(b"\n\n")


def test_our_own_errors_pass_and_so_does_what_only_looks_like_one() -> None:
    ours = error_event(EngineDiedError("It died."))
    assert through(ours) == (ours, None)
    for odd in (b'data: {"error": no JSON\n\ndata: 1\n\n', MARK + b"x" * MAX_ERROR_BYTES):
        assert through(odd) == (odd, None)


# Behind the daemon


def test_a_whole_error_leaves_in_our_terms(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            for stream in (False, True):
                chunks = [json.dumps(said("No such thing."))]
                answer = await site.chat(asking(stream=stream, status=400, chunks=chunks))
                told = error(answer, 400, "invalid_request")
                assert (told["message"], told["param"]) == ("No such thing.", None)

    run(main())


def test_a_prompt_that_is_too_long_is_told_with_the_models_name(fake: Engines) -> None:
    long = {
        **said("too long", "exceed_context_size_error")["error"],
        "n_prompt_tokens": 9,
        "n_ctx": 8,
    }

    async def main() -> None:
        async with serving(fake, A) as site:
            answer = await site.chat(asking(status=400, chunks=[json.dumps({"error": long})]))
            told = error(answer, 400, "context_length_exceeded")
            assert "it has 9 tokens, and a takes 8" in told["message"]
            assert told["param"] == "messages"

    run(main())


def test_an_error_in_a_stream_leaves_in_our_terms_and_ends_it(fake: Engines) -> None:
    chunks = ['data: {"choices": []}\n\n', TOLD.decode(), "data: [DONE]\n\n"]

    async def main() -> None:
        async with serving(fake, A) as site:
            came: list[bytes] = []
            async with site.stream(asking(stream=True, chunks=chunks)) as answer:
                with pytest.raises(httpx.RemoteProtocolError):
                    await read(answer, came)
            *_, last, end = b"".join(came).split(b"\n\n")
            told = json.loads(last.removeprefix(b"data: "))["error"]
            assert told == {
                "message": "Out of slots.", "type": "server_error", "param": None,
                "code": "engine_refused",
            }  # fmt: skip
            assert end == b""
            await until(lambda: site.leases == {"a": 0})

    run(main())


# What an engine lacks


class Plain(Engines):
    def honoured(self) -> frozenset[str]:
        return frozenset({"seed"})


def test_what_its_engine_lacks_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Plain(tmp_path), A) as site:
            asked = {**asking(), "n": 2, "seed": 5}
            told = error(await site.chat(asked, CHAT), 400, "invalid_request")
            assert told["param"] == "n"
            assert "`n` is not supported by fake; llama.cpp and mlx have it" in told["message"]
            assert site.leases == {}
            assert (await site.chat({**asking(), "seed": 5})).status_code == 200

    run(main())


def test_what_no_engine_would_take_is_refused_before_the_model_is_loaded(fake: Engines) -> None:
    async def main() -> None:
        async with serving(fake, A) as site:
            told = error(
                await site.chat({**asking(), "temperature": "hot"}), 400, "invalid_request"
            )
            assert told["param"] == "temperature"
            raw = json.dumps({**asking(), "user": "\ud800"})
            headers = {"content-type": "application/json"}
            answer = await site.client.post(CHAT, content=raw, headers=headers)
            assert "half a surrogate pair" in error(answer, 400, "invalid_request")["message"]
            assert site.leases == {}

    run(main())
