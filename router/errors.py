"""
RouterError                     has a status, a type and a code in OpenAI's terms
├── InvalidRequestError    400  the body is not what the endpoint takes; `param` names the field
│   └── TooLongError       400  … because the model's context is too small for it
├── UnauthorizedError      401  no key, or a wrong one
├── ForbiddenError         403  a Host or Origin that may not use this daemon
├── UnknownModelError      404  no such model; near matches are listed
├── UnknownResponseError   404  no such response is kept
├── LostResponseError      400  the response that a request refers to is not kept
├── UnknownPathError       404  no such endpoint
├── MethodNotAllowedError  405  the endpoint exists and takes other methods
├── ModelBusyError         409  it cannot be unloaded while it is used
├── BodyTooLargeError      413
├── UnservableModelError   422  known, and no engine can run it: a verdict per engine
│   └── EngineUnavailableError 503  an engine that could run it is not installed
├── ModelTooBigError       422  needs more memory than the whole budget
├── QueueFullError         429  too many requests wait already
├── QueueTimeoutError      503  waited for memory longer than allowed
├── ShuttingDownError      503
├── CircuitOpenError       503  it failed several times in a row, and is left alone for a while
├── StartFailedError       502  the engine did not become ready
│   └── OutOfMemoryError   503  … because memory ran out although the budget had it
├── UnsupportedError       501  the engine that runs the model cannot do it
├── EngineRefusedError     502  the engine's own words, with its status and code if it told them
├── EngineFailedError      502  the engine ended, or answered with something else than HTTP
└── EngineSilentError      504  the engine did not begin its answer in time
SettingsError                   the settings cannot be honoured (exit 2)
ClientGoneError                 nobody is left to answer; never rendered

Engines raise `backends.errors`; `as_router_error` translates them once, at the edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backends.base import Verdict
from backends.errors import (
    BadRequestError,
    EngineBusyError,
    EngineError,
    EngineMissingError,
)
from backends.errors import EngineSilentError as BackendSilentError
from backends.errors import TooLongError as BackendTooLongError


class RouterError(Exception):
    status = 500
    type = "server_error"
    code = "internal_error"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_seconds: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds

    def body(self) -> dict[str, Any]:
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


class InvalidRequestError(RouterError):
    status, type, code = 400, "invalid_request_error", "invalid_request"


class TooLongError(InvalidRequestError):
    code = BackendTooLongError.code


class UnauthorizedError(RouterError):
    status, type, code = 401, "authentication_error", "invalid_api_key"


class ForbiddenError(RouterError):
    status, type, code = 403, "permission_error", "forbidden"


class UnknownModelError(RouterError):
    status, type, code = 404, "invalid_request_error", "model_not_found"


class UnknownResponseError(RouterError):
    status, type, code = 404, "invalid_request_error", "response_not_found"


class LostResponseError(RouterError):
    """OpenAI's status and code for it."""

    status, type, code = 400, "invalid_request_error", "previous_response_not_found"


class UnknownPathError(RouterError):
    status, type, code = 404, "invalid_request_error", "unknown_path"


class MethodNotAllowedError(RouterError):
    status, type, code = 405, "invalid_request_error", "method_not_allowed"


class ModelBusyError(RouterError):
    status, type, code = 409, "invalid_request_error", "model_busy"


class BodyTooLargeError(RouterError):
    status, type, code = 413, "invalid_request_error", "body_too_large"


class UnservableModelError(RouterError):
    """Carries the same codes and sentences as `router inspect`."""

    status, type, code = 422, "invalid_request_error", "model_not_servable"

    def __init__(self, message: str, verdicts: Sequence[Verdict]) -> None:
        super().__init__(message, param="model")
        self.verdicts = tuple(verdicts)

    def body(self) -> dict[str, Any]:
        body = super().body()
        body["error"]["verdicts"] = [
            {"engine": v.engine, "code": v.code, "reason": v.reason, "remedy": v.remedy}
            for v in self.verdicts
        ]
        return body


class EngineUnavailableError(UnservableModelError):
    status, type, code = 503, "server_error", "engine_not_installed"


class ModelTooBigError(RouterError):
    status, type, code = 422, "invalid_request_error", "memory.too_big"


class QueueFullError(RouterError):
    status, type, code = 429, "rate_limit_error", "queue_full"


class QueueTimeoutError(RouterError):
    status, type, code = 503, "server_error", "queue_timeout"


class ShuttingDownError(RouterError):
    status, type, code = 503, "server_error", "shutting_down"


class CircuitOpenError(RouterError):
    status, type, code = 503, "server_error", "model_failing"


class StartFailedError(RouterError):
    """`engine_said` are the engine's last lines, fit for clients."""

    status, type, code = 502, "server_error", "engine_start_failed"

    def __init__(self, message: str, engine_said: Sequence[str] = ()) -> None:
        super().__init__(message, param="model")
        self.engine_said = tuple(engine_said)

    def body(self) -> dict[str, Any]:
        body = super().body()
        body["error"]["engine_said"] = list(self.engine_said)
        return body


class OutOfMemoryError(StartFailedError):
    status, type, code = 503, "server_error", "memory.ran_out"


class UnsupportedError(RouterError):
    status, type, code = 501, "server_error", "unsupported_by_engine"


class EngineRefusedError(RouterError):
    """`router.api.engine_error` has read it."""

    status, type, code = 502, "server_error", "engine_refused"

    def __init__(
        self, message: str, *, status: int, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message, param=param)
        self.status = status
        self.type = "invalid_request_error" if status < 500 else "server_error"
        self.code = code or type(self).code


class EngineFailedError(RouterError):
    status, type, code = 502, "server_error", "engine_failed"


class EngineSilentError(RouterError):
    status, type, code = 504, "server_error", "engine_silent"


class SettingsError(Exception):
    """One sentence that names the option and what it takes."""


class ClientGoneError(Exception):
    """The client left while its request waited."""


def as_router_error(error: BaseException) -> RouterError:
    """The one translation: what an engine raised, as the client sees it.

    An engine's last words stay in the log and in `router status`: they may name paths.
    """
    match error:
        case RouterError():
            return error
        case BackendTooLongError():
            return TooLongError(error.message, param=error.param)
        case BadRequestError():
            return InvalidRequestError(error.message, param=error.param)
        case EngineBusyError():
            busy = ShuttingDownError(error.message, retry_after_seconds=1)
            busy.code = "engine_busy"
            return busy
        case EngineMissingError():
            return EngineUnavailableError(error.message, ())
        case BackendSilentError():
            return EngineSilentError(error.message)
        case EngineError():
            return EngineFailedError(error.message)
        case _:
            return RouterError("The router failed on this request; its log says why.")
