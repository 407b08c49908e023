"""Which stop string the engine has met, which it does not say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from backends.mistral_rs.answer import Answer
from backends.wire.dialect import dialect_of
from backends.wire.events import Finished
from backends.wire.request import GenerationRequest


def chunk(token: bytes | None, told: bytes | None = None, reason: str | None = None) -> Any:
    """`told` are the bytes that are left of the last token."""
    likelihood = None
    if token is not None:
        spelled = token.decode("utf-8", "replace")
        likelihood = SimpleNamespace(bytes=token if told is None else told, token=spelled)
    delta = SimpleNamespace(content="", reasoning_content=None, tool_calls=None)
    choice = SimpleNamespace(delta=delta, logprobs=likelihood, finish_reason=reason)
    return SimpleNamespace(choices=[choice], usage=None)


def met(stops: tuple[str, ...], *tokens: bytes, last: Any) -> str:
    request = GenerationRequest(messages=({"role": "user", "content": "a"},), stop=stops)
    answer = Answer(dialect_of("").parser(request, ""), chat=True, stops=stops)
    for one in (*map(chunk, tokens), last):
        assert not list(answer.add(one))
    *_, finished = answer.finish()
    assert isinstance(finished, Finished)
    return finished.met


@pytest.mark.parametrize(
    ("stops", "tokens", "last", "expected"),
    [
        # As mistralrs 0.9.5 ends: with the token that the stop string begins in, cut before it.
        (("parrot",), (b" a",), (b" parrot", b" "), "parrot"),
        (("and I say", "rot, and"), (b" a",), (b" parrot", b" par"), "rot, and"),
        ((" parrot", "crow"), (b" a",), (b" parrot", b""), " parrot"),
        (("caf\u00e9s",), (b"a ", b"caf", b"\xc3"), (b"\xa9s", b""), "caf\u00e9s"),
        # The model has ended, with or without what might have begun a stop string.
        (("crow",), (b" parrot",), (None, None), ""),
        ((".zzz",), (b" parrot",), (b".", b"."), ""),
        ((), (b" parrot",), (b" x", b""), ""),
    ],
)
def test_the_stop_string_is_told_by_what_is_cut_off(
    stops: tuple[str, ...],
    tokens: tuple[bytes, ...],
    last: tuple[bytes | None, bytes | None],
    expected: str,
) -> None:
    assert met(stops, *tokens, last=chunk(*last, "stop")) == expected
