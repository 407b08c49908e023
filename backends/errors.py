"""
EngineError                     what an engine, or the lack of one, did to a request
├── EngineMissingError          the engine is not installed or cannot be run
├── EngineStartError            it was started and did not become ready
│   ├── EngineRefusedError      … because of this model: another engine may run it
│   └── EngineMemoryError       … because memory ran out: less beside it may help
├── EngineDiedError             it ended while it was needed
│   ├── EngineGoneError         … before it was asked: another one can be, instead
│   └── EngineSilentError       it said nothing for longer than allowed
├── EngineBusyError             it is stopping or draining; asking again helps
├── EngineProtocolError         its answer is not what the interface promises
└── BadRequestError             the request itself cannot be served; `param` names the field
    └── TooLongError            … because the model's context is too small for it
"""

from __future__ import annotations

from collections.abc import Sequence


class EngineError(Exception):
    """Base of all errors of this package.

    `engine` and `model` name the two parties, `message` is one sentence for people, and
    `last_words` are the last lines the engine printed: for logs and `router status`, never
    sent to clients as they are.
    """

    code = "engine.error"

    def __init__(
        self,
        message: str,
        *,
        engine: str = "",
        model: str = "",
        last_words: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.engine = engine
        self.model = model
        self.last_words = tuple(last_words)


class EngineMissingError(EngineError):
    code = "backend.absent"


class EngineStartError(EngineError):
    code = "engine.start_failed"


class EngineRefusedError(EngineStartError):
    pass


class EngineMemoryError(EngineStartError):
    code = "engine.out_of_memory"


class EngineDiedError(EngineError):
    code = "engine.died"


class EngineGoneError(EngineDiedError):
    """Nothing of the request has reached the engine."""


class EngineSilentError(EngineDiedError):
    code = "engine.silent"


class EngineBusyError(EngineError):
    code = "engine.busy"


class EngineProtocolError(EngineError):
    code = "engine.protocol"


class BadRequestError(EngineError):
    """`param` is the path of the offending field in the request body, e.g. `messages[0].role`."""

    code = "invalid_request"

    def __init__(self, message: str, *, param: str | None = None, engine: str = "") -> None:
        super().__init__(message, engine=engine)
        self.param = param


class TooLongError(BadRequestError):
    """The code is OpenAI's: by it, clients know that they have to shorten the conversation. Those
    of Anthropic know it by "prompt is too long"."""

    code = "context_length_exceeded"

    @classmethod
    def prompt(cls, tokens: int, model: str, context_length: int, *, param: str) -> TooLongError:
        """`tokens` leave no room for an answer."""
        return cls(
            f"The prompt is too long: it has {tokens} tokens, and {model} takes {context_length} "
            "with the answer. Shorten it, or raise --context-length where the model allows more.",
            param=param,
        )
