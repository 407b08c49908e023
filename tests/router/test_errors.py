from __future__ import annotations

import json
import re

import pytest

from backends import errors as engine_errors
from backends.errors import (
    BadRequestError,
    EngineBusyError,
    EngineDiedError,
    EngineError,
    EngineMissingError,
    EngineProtocolError,
    EngineStartError,
    TooLongError,
)
from router import errors
from router.errors import RouterError, as_router_error

ROW = re.compile(r"^([│├└─ ]*)(\w+Error)\b *(\d{3})?", re.MULTILINE)


def subclasses(kind: type[Exception]) -> list[type[Exception]]:
    below = [c for c in kind.__subclasses__() if c.__module__ == kind.__module__]
    return [kind, *(c for direct in below for c in subclasses(direct))]


def drawn(doc: str) -> dict[str, str]:
    """Each class of a docstring's tree with the class it hangs from."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for prefix, name, _ in ROW.findall(doc):
        depth = len(prefix) // 4
        path[depth:] = [name]
        parents[name] = path[depth - 1] if depth else "Exception"
    return parents


@pytest.mark.parametrize("module", [errors, engine_errors])
def test_the_tree_in_the_docstring_is_the_tree_of_the_classes(module: object) -> None:
    real = {
        name: kind.__bases__[0].__name__
        for name, kind in vars(module).items()
        if isinstance(kind, type)
        and issubclass(kind, Exception)
        and kind.__module__ == getattr(module, "__name__", "")
    }
    assert drawn(module.__doc__ or "") == real


def test_the_statuses_in_the_docstring_are_the_real_ones() -> None:
    told = {name: int(status) for _, name, status in ROW.findall(errors.__doc__ or "") if status}
    real = {k.__name__: getattr(k, "status") for k in subclasses(RouterError)[1:]}  # noqa: B009
    assert told == real


@pytest.mark.parametrize("kind", subclasses(RouterError))
def test_every_error_has_a_status_a_type_and_a_code_of_its_own(kind: type[RouterError]) -> None:
    assert 400 <= kind.status < 600
    assert kind.type.endswith("_error")
    assert re.fullmatch(r"[a-z_.]+", kind.code)
    assert (kind.type == "server_error") == (kind.status >= 500)
    others = {k.code for k in subclasses(RouterError) if k is not kind}  # type: ignore[attr-defined]
    assert kind.code not in others


def test_an_error_is_rendered_in_openais_shape() -> None:
    error = errors.InvalidRequestError("`model` is missing.", param="model")
    assert json.loads(json.dumps(error.body())) == {
        "error": {
            "message": "`model` is missing.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "invalid_request",
        }
    }


@pytest.mark.parametrize(
    ("raised", "kind", "code"),
    [
        (BadRequestError("no", param="messages[0]"), errors.InvalidRequestError, None),
        (TooLongError("no", param="prompt"), errors.TooLongError, "context_length_exceeded"),
        (EngineBusyError("no"), errors.ShuttingDownError, "engine_busy"),
        (EngineMissingError("no"), errors.EngineUnavailableError, None),
        (EngineStartError("no"), errors.EngineFailedError, None),
        (EngineDiedError("no"), errors.EngineFailedError, None),
        (EngineProtocolError("no"), errors.EngineFailedError, None),
        (EngineError("no"), errors.EngineFailedError, None),
    ],
)
def test_what_an_engine_raised_is_translated(
    raised: EngineError, kind: type[RouterError], code: str | None
) -> None:
    error = as_router_error(raised)
    assert type(error) is kind
    assert error.message == "no"
    assert error.code == (code or kind.code)
    assert error.param == getattr(raised, "param", error.param)


def test_every_engine_error_is_translated_to_something_that_is_not_our_own_failure() -> None:
    for kind in subclasses(EngineError):
        assert as_router_error(kind("no")).code != RouterError.code


def test_a_busy_engine_is_worth_asking_again_and_others_keep_their_code() -> None:
    assert as_router_error(EngineBusyError("no")).retry_after_seconds == 1
    assert errors.ShuttingDownError("no").code == "shutting_down"


def test_an_engines_last_words_stay_here() -> None:
    died = EngineDiedError("It ended.", last_words=["cannot open /home/me/secret.gguf"])
    assert "secret" not in json.dumps(as_router_error(died).body())


def test_a_router_error_stays_itself() -> None:
    error = errors.QueueFullError("no")
    assert as_router_error(error) is error


def test_what_nobody_foresaw_becomes_a_500_that_tells_nothing() -> None:
    error = as_router_error(KeyError("/home/me/secret"))
    assert error.status == 500
    assert "secret" not in json.dumps(error.body())
