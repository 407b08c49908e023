"""Other dialects than OpenAI's: a request is put to the engine as a chat completion, and the answer
is put back into the dialect.

A dialect is a function from a request's body to a `Translation`, which is pure. `Translated` is the
endpoint for it: admission, lease, keep-alive and errors are the same for all of them. To add one:
write the function, a row per engine in `router.api.fluency`, the shape of its errors in
`router.api.error_shape`, and a route in `router.app`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from backends.asgi import parsed, send_whole
from backends.base import Instance, Message, Receive, Scope, Send
from backends.errors import EngineError
from router.api.admission import Admission
from router.api.answer import send_json
from router.api.body import Asked, read_body, replay
from router.api.engine_body import for_engine
from router.api.fluency import Fluency, fluency
from router.api.outlet import AnswerStream, StreamOutlet, WholeOutlet
from router.api.task import BY_PATH, CHAT, Task
from router.configuration import Configuration
from router.entry import ModelEntry
from router.errors import InvalidRequestError, RouterError, UnsupportedError

Json = dict[str, Any]


class Translation(Protocol):
    """One request, read and found right."""

    @property
    def asked(self) -> Asked:
        """What the router needs to know of it; `fields` are those of `question`."""

    @property
    def path(self) -> str:
        """The path of the engine that is asked."""

    @property
    def question(self) -> Json | None:
        """The body for that path, in OpenAI's terms. None where the request is about the model's
        stay alone: then it is loaded or let go, and the engine's answer is empty."""

    def whole(self, answer: Json) -> Json:
        """The engine's answer, in the dialect. What it lacks is empty; nothing is raised."""

    def stream(self) -> AnswerStream:
        """For the one answer that is streamed."""


@runtime_checkable
class Timed(Protocol):
    """A translation whose answer tells times."""

    def loaded(self) -> None:
        """The model is there, and is asked now."""


Dialect = Callable[[bytes], Translation]
"""Raises InvalidRequestError, with the field's path in the dialect's own terms; RecursionError and
ValueError for values that can be read and not written."""


class Translated:
    """The endpoint of a dialect, at the path `endpoint` of `router.api.fluency`; `task` says which
    models it is for."""

    def __init__(
        self,
        configuration: Configuration,
        admission: Admission,
        endpoint: str,
        dialect: Dialect,
        task: Task = CHAT,
    ) -> None:
        self.configuration = configuration
        self.admission = admission
        self.endpoint = endpoint
        self.dialect = dialect
        self.task = task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, self.configuration.settings.max_body)
        translation, asked, question = await parsed(body, self._read)
        if question is None and asked.leaving:
            self.admission.let_go(asked)
            await send_json(send, 200, translation.whole({}))
            return
        client = _Client(receive)
        outlet = _outlet(translation, send)

        async def ask(entry: ModelEntry, instance: Instance) -> None:
            if isinstance(translation, Timed):
                translation.loaded()
            if question is None:
                await send_whole(outlet.send, 200, b"application/json", b"{}")
            elif self._goes_through(entry, instance, outlet):
                outlet.passing = True
                await instance(scope, replay(body, client.receive), send)
            else:
                mending = await for_engine(question, asked, entry, self.task)
                theirs = _question_scope(scope, translation.path)
                again = replay(mending.body, client.receive)
                await instance(theirs, again, mending.send(outlet.send))

        async with outlet.keeping_alive():
            try:
                await self.admission.answer(asked, client.receive, ask, check=self.task.check)
                if not client.gone:
                    await outlet.finish()
            except (RouterError, EngineError) as error:
                await outlet.fail(error)
                raise

    def _goes_through(
        self, entry: ModelEntry, instance: Instance, outlet: WholeOutlet | StreamOutlet
    ) -> bool:
        """A stream that has begun with a keep-alive is ours to go on with, in any case."""
        engine = instance.status().engine
        fluent = fluency(self.endpoint, engine)
        if fluent is Fluency.NONE:
            raise UnsupportedError(
                f"{engine}, which runs {entry.id}, does not serve {self.endpoint}.", param="model"
            )
        return fluent is Fluency.NATIVE and not outlet.began

    def _read(self, body: bytes) -> tuple[Translation, Asked, bytes | None]:
        try:
            translation = self.dialect(body)
            question = translation.question
            if question is None:
                return translation, translation.asked, None
            asks = BY_PATH.get(translation.path, self.task).asks
            asked = replace(translation.asked, features=asks(question))
            return translation, asked, json.dumps(question, allow_nan=False).encode()
        except RecursionError:
            raise InvalidRequestError("The request body is nested too deeply.") from None
        except ValueError:
            raise InvalidRequestError("The request body has a number that is too large.") from None


def _outlet(translation: Translation, send: Send) -> WholeOutlet | StreamOutlet:
    if translation.asked.stream:
        return StreamOutlet(send, translation.stream())
    return WholeOutlet(send, translation.whole)


class _Client:
    """Knows whether the client has left: then an answer that breaks off is nobody's failure."""

    def __init__(self, receive: Receive) -> None:
        self.gone = False
        self._receive = receive

    async def receive(self) -> Message:
        message = await self._receive()
        self.gone = self.gone or message["type"] == "http.disconnect"
        return message


def _question_scope(scope: Scope, path: str) -> Scope:
    """A request of our own: the client's headers are about its dialect."""
    headers = [(b"content-type", b"application/json")]
    own = {"path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers}
    return {**scope, "method": "POST", **own}
