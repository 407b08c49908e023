"""The interface that every engine satisfies. The router knows no other."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from detect.types import ModelInfo

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Support(StrEnum):
    YES = "yes"
    LIMITED = "limited"
    NO = "no"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether one engine, in its installed version and on this platform, can run one model.

    `code` is a stable reason code (`docs/formats.md`) and empty for a plain yes. `reason` is
    one clause that completes "<engine>: …"; `remedy` says what to do, or is empty.
    """

    engine: str
    support: Support
    code: str = ""
    reason: str = ""
    remedy: str = ""

    @property
    def ok(self) -> bool:
        return self.support is not Support.NO


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """The memory one instance needs, in bytes, estimated from the headers.

    `growing_bytes` of them are not taken when the model is loaded, but as it is used.
    """

    weights_bytes: int
    kv_bytes: int
    overhead_bytes: int
    growing_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.overhead_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """One engine as found on this machine.

    `how` is `in-process`, `binary` or `worker`; `path` is the binary or package folder.
    When it is not usable, `problem` is a sentence and `remedy` the command that installs it.
    """

    engine: str
    version: str | None = None
    how: str = ""
    path: Path | None = None
    capabilities: tuple[str, ...] = ()
    problem: str = ""
    remedy: str = ""

    @property
    def usable(self) -> bool:
        return not self.problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long an engine that has a request may be silent, in seconds; infinite by default."""

    first_seconds: float = math.inf
    """Until the answer begins: loading the prompt takes its time."""
    next_seconds: float = math.inf
    """Between two pieces of an answer."""
    stall_seconds: float = math.inf
    """Without computing anything either."""


ENDLESS = Patience()


class Isolation(StrEnum):
    """Where an engine that is a library runs."""

    DAEMON = "daemon"
    WORKER = "worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceOptions:
    """What the user may set for one served model, the same for every engine."""

    context_length: int | None = None
    """Tokens; None takes the model's own, within what the engine's default allows."""
    parallel: int = 4
    """Requests the engine should decode at once, where it can."""
    start_timeout_seconds: float = 600.0
    patience: Patience = ENDLESS
    isolation: Isolation = Isolation.DAEMON
    """Matters to engines that can run in the daemon's own process."""
    prefix_bytes: int = 2**30
    """Memory for prompts that were computed before, where the engine leaves that to us."""
    prefix_disk_bytes: int = 0
    """The same on disk, below `cache_dir`."""
    cache_dir: Path | None = None
    kv_bits: int | None = None
    """Of keys and values, where they are not to be held as they are computed."""
    adapter: Path | None = None
    """A folder with what fine-tuning has changed."""
    draft: Path | None = None
    """A folder with a smaller model that guesses tokens for this one."""
    runtime_dir: Path = field(default_factory=lambda: Path())
    """A private (0700) folder for sockets; the pool owns it."""


class InstanceState(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    FAILED = "failed"


ALLOWED_TRANSITIONS: dict[InstanceState, frozenset[InstanceState]] = {
    InstanceState.STOPPED: frozenset({InstanceState.STARTING}),
    InstanceState.STARTING: frozenset(
        {InstanceState.READY, InstanceState.FAILED, InstanceState.STOPPING}
    ),
    InstanceState.READY: frozenset({InstanceState.STOPPING, InstanceState.FAILED}),
    InstanceState.STOPPING: frozenset({InstanceState.STOPPED, InstanceState.FAILED}),
    InstanceState.FAILED: frozenset({InstanceState.STARTING, InstanceState.STOPPING}),
}


class Lifecycle:
    """The state of one instance; every transition is checked here and nowhere else."""

    def __init__(self) -> None:
        self.state = InstanceState.STOPPED
        self.reason = ""

    def to(self, state: InstanceState, reason: str = "") -> None:
        if state not in ALLOWED_TRANSITIONS[self.state]:
            raise RuntimeError(f"an instance cannot go from {self.state} to {state}")
        self.state = state
        self.reason = reason

    def __repr__(self) -> str:
        return f"<{self.state}{': ' + self.reason if self.reason else ''}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixCacheStatus:
    """Beginnings of prompts that an engine keeps, and of what use they were since it was loaded."""

    entries: int
    nbytes: int
    hits: int
    misses: int
    evicted: int
    prompt_tokens: int
    """Of all requests."""
    cached_tokens: int
    """Of these, those that did not have to be computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceStatus:
    """One snapshot for logs, tests and the status endpoint."""

    model: str
    engine: str
    version: str | None
    state: InstanceState
    reason: str = ""
    pid: int | None = None
    load_seconds: float | None = None
    last_words: tuple[str, ...] = ()
    prefix_cache: PrefixCacheStatus | None = None
    """None where the engine does not tell."""


class Instance(Protocol):
    """One running engine with one model: an ASGI app with a life.

    As an app it serves the OpenAI paths (`/v1/chat/completions`, `/v1/completions`) and raises
    `EngineError` only before the first byte of the response.
    """

    def status(self) -> InstanceStatus: ...

    def used_bytes(self) -> int | None:
        """The memory it really holds now; None when it holds none. Takes milliseconds, and may be
        called from another thread."""

    async def ensure_ready(self) -> None:
        """Start if needed and return when one token was generated. Coalesces callers.

        Raises:
            EngineMissingError, EngineStartError: with the engine's last words.
        """

    async def stop(self, grace_seconds: float) -> None:
        """End it and free what it holds; returns when it is gone. Idempotent."""

    async def wait_failed(self) -> None:
        """Return when the instance has failed on its own after it was ready."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class Backend(Protocol):
    """One kind of engine. Its questions have no effects and are cheap after the first."""

    name: str

    def installation(self) -> Installation: ...

    def honoured(self) -> frozenset[str] | None:
        """What its instances have of `backends.wire.features`; None: they say so themselves."""

    def prepare(self, infos: Sequence[ModelInfo]) -> None:
        """Verdicts on all of these are wanted next: find out at once what they take."""

    def verdict(self, info: ModelInfo) -> Verdict: ...

    def footprint(self, info: ModelInfo, options: InstanceOptions) -> Footprint: ...

    def create(self, model_id: str, info: ModelInfo, options: InstanceOptions) -> Instance: ...
