"""What an endpoint wants done with a model: which models can, on which engines, and what a request
for it must say. Decided before anything is loaded. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from backends.wire import embeddings, request
from backends.wire.features import EMBEDDING_FEATURES, LLAMA_CPP, asked_for
from detect.types import ModelInfo, Role, WeightFormat
from router.api import rerank
from router.api.body import Asks
from router.api.mending import Mending, blamed_on, unchanged
from router.entry import ModelEntry
from router.errors import InvalidRequestError, UnsupportedError
from router.registry import Registry

TEXT_ROLES = frozenset(Role) - {Role.EMBEDDING, Role.RERANKER}

MADE_FOR = {
    Role.EMBEDDING: ("an embedding model", "/v1/embeddings"),
    Role.RERANKER: ("a reranker", "/v1/rerank"),
}
"""What a model of that role is, and the endpoint that OpenAI and its followers have for it."""

SHOWN_MODELS = 5

Json = dict[str, Any]


def _asks_nothing(body: Json) -> frozenset[str]:
    return frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """`verb` completes "models that …". `engines` are those that serve it; None: every one."""

    path: str
    required: str
    verb: str = "write text"
    roles: frozenset[Role] = TEXT_ROLES
    engines: frozenset[str] | None = None
    asks: Asks = _asks_nothing
    mending: Callable[[bytes], Mending] = unchanged
    """Of a body that `asks` found nothing wrong with."""
    writes: bool = False
    """Whether sampling defaults mean something to it."""

    def check(self, entry: ModelEntry, registry: Registry) -> None:
        """
        Raises:
            InvalidRequestError: the model is not made for it.
            UnsupportedError: the engine that runs the model does not do it at all.
        """
        self._check_role(entry.info, registry)
        if entry.servable:
            self._check_engine(entry)

    def _check_role(self, info: ModelInfo, registry: Registry) -> None:
        """An engine would load the model first and then fail, each with other words."""
        if info.role in self.roles:
            return
        if self.roles == TEXT_ROLES:
            kind, endpoint = MADE_FOR[info.role]
            what = f"{info.id} is {kind} and writes no text: the endpoint for it is {endpoint}."
            raise InvalidRequestError(f"{what} Take another model for this request.", param="model")
        able = [e.id for e in registry.servable if e.info.role in self.roles]
        raise InvalidRequestError(
            f"{info.id} is none of the models that {self.verb}. {_listed(able)}{_hint(self, info)}",
            param="model",
        )

    def _check_engine(self, entry: ModelEntry) -> None:
        engine = entry.choice.engine
        if self.engines is not None and engine not in self.engines:
            raise UnsupportedError(
                f"{entry.id} is run by {engine}, which has no {self.path}; "
                f"{' and '.join(sorted(self.engines))} has it.",
                param="model",
            )


def _listed(able: list[str]) -> str:
    if not able:
        return "There is none here."
    more = f" and {len(able) - SHOWN_MODELS} more" if len(able) > SHOWN_MODELS else ""
    return f"Those here are {', '.join(map(repr, able[:SHOWN_MODELS]))}{more}."


def _hint(task: Task, info: ModelInfo) -> str:
    """Conversions often leave the files behind that make an embedding model one."""
    folder = info.format in (WeightFormat.MLX, WeightFormat.SAFETENSORS)
    if Role.EMBEDDING not in task.roles or not folder or info.role is not Role.GENERATIVE:
        return ""
    return (
        " If it was made for that, copy modules.json and the folder 1_Pooling of the original "
        "beside its weights."
    )


def _of_embeddings(body: Json) -> frozenset[str]:
    embeddings.read(body)
    return asked_for(body, EMBEDDING_FEATURES)


def _checked(check: Callable[[Json], object]) -> Asks:
    def asks(body: Json) -> frozenset[str]:
        check(body)
        return frozenset()

    return asks


CHAT = Task(
    path=request.CHAT_PATH,
    required="messages",
    asks=partial(request.check, chat=True),
    mending=blamed_on("messages"),
    writes=True,
)
TEXT = Task(
    path=request.TEXT_PATH,
    required="prompt",
    asks=partial(request.check, chat=False),
    mending=blamed_on("prompt"),
    writes=True,
)
EMBEDDINGS = Task(
    path="/v1/embeddings",
    required="input",
    verb="make vectors of texts",
    roles=frozenset({Role.EMBEDDING}),
    asks=_of_embeddings,
    mending=blamed_on("input"),
)
RERANKING = tuple(
    Task(
        path=path,
        required="query",
        verb="rank documents",
        roles=frozenset({Role.RERANKER}),
        engines=frozenset({LLAMA_CPP}),
        asks=_checked(rerank.read),
        mending=rerank.mending,
    )
    for path in ("/v1/rerank", "/rerank")
)
ANY_ROLE = frozenset(Role)
HELPERS = tuple(
    Task(path=path, required=required, roles=roles, engines=frozenset({LLAMA_CPP}))
    for path, required, roles in (
        ("/tokenize", "content", ANY_ROLE),
        ("/detokenize", "tokens", ANY_ROLE),
        ("/apply-template", "messages", TEXT_ROLES),
        ("/infill", "input_prefix", TEXT_ROLES),
    )
)
"""What llama.cpp has beside."""

TASKS: Sequence[Task] = (CHAT, TEXT, EMBEDDINGS, *RERANKING, *HELPERS)
BY_PATH: Mapping[str, Task] = {task.path: task for task in TASKS}
