"""A fake engine that is a real process: `engine.py` is the program, here is how tests hold it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from backends.base import Footprint, Installation, InstanceOptions, Support, Verdict
from backends.proxy import Endpoint, UnixEndpoint
from backends.served import ServedByChild, Service
from detect.types import ModelInfo, WeightFormat
from tests.fake_engine.engine import ANSWER, BEHAVIOUR

PROGRAM = Path(__file__).with_name("engine.py")


class FakeEngine:
    """How one fake engine behaves from its next start on, and what it has recorded so far."""

    def __init__(self, folder: Path, **behaviour: Any) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.behave(**behaviour)

    def behave(self, **behaviour: Any) -> None:
        assert behaviour.keys() <= BEHAVIOUR.keys(), behaviour
        (self.folder / "behaviour.json").write_text(json.dumps(behaviour))

    def command(self, *where: str) -> list[str]:
        program = [sys.executable, "-S", str(PROGRAM), *where]
        behaviour, record = self.folder / "behaviour.json", self.folder / "record.jsonl"
        return [*program, "--behaviour", str(behaviour), "--record", str(record)]

    def command_at(self, endpoint: Endpoint) -> list[str]:
        return self.command(*_where(endpoint))

    def service(self, *, unix: bool = True, command: list[str] | None = None) -> Service:
        return Service(
            engine="fake",
            version="1",
            command=lambda endpoint: command or self.command_at(endpoint),
            unix=unix,
            canary={"prompt": "a", "max_tokens": 1, "canary": True},
        )

    def records(self, event: str) -> list[dict[str, Any]]:
        try:
            lines = (self.folder / "record.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [record for line in lines if (record := json.loads(line))["event"] == event]

    def pids(self) -> list[int]:
        """Of every process that this engine has been, grandchildren too."""
        found = self.records("listening") + self.records("grandchild")
        return [record["pid"] for record in found]


def _where(endpoint: Endpoint) -> tuple[str, str]:
    if isinstance(endpoint, UnixEndpoint):
        return "--unix", str(endpoint.socket)
    return "--port", str(endpoint.port)


def asking(model: str = "a", *, stream: bool = False, **how: Any) -> dict[str, Any]:
    """A chat request that tells the fake engine how to answer: `ANSWER`'s keys."""
    assert how.keys() <= ANSWER.keys(), how
    messages = [{"role": "user", "content": "Who are you?"}]
    return {"model": model, "messages": messages, "stream": stream, "fake": how}


async def release(endpoint: Endpoint | Path, count: int = 1) -> None:
    """Let `count` gated chunks of the engine behind `endpoint`, or its Unix socket, pass."""
    where = UnixEndpoint(endpoint) if isinstance(endpoint, Path) else endpoint
    async with httpx.AsyncClient(transport=where.transport(), base_url=where.url) as client:
        answer = await client.post("/fake/release", content=str(count).encode())
        assert answer.status_code == 200


class FakeBackend:
    """A `Backend` whose engines are fake ones: one per model, made when it is first named."""

    name = "fake"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._engines: dict[str, FakeEngine] = {}

    def engine(self, model: str) -> FakeEngine:
        return self._engines.setdefault(model, FakeEngine(self._folder / model))

    def installation(self) -> Installation:
        return Installation(engine=self.name, version="1", how="worker")

    def honoured(self) -> frozenset[str] | None:
        return None

    def prepare(self, infos: Sequence[ModelInfo]) -> None:
        pass

    def verdict(self, info: ModelInfo) -> Verdict:
        return Verdict(engine=self.name, support=Support.YES)

    def footprint(self, info: ModelInfo, options: InstanceOptions) -> Footprint:
        return Footprint(weights_bytes=info.weights_bytes, kv_bytes=0, overhead_bytes=0)

    def create(self, model_id: str, info: ModelInfo, options: InstanceOptions) -> ServedByChild:
        return ServedByChild(model_id, self.engine(model_id).service(), options)


def model(model_id: str, **facts: Any) -> ModelInfo:
    """A model that is nowhere on disk; ten bytes big unless told otherwise."""
    path = Path("/models") / model_id
    defaults: Mapping[str, Any] = {"format": WeightFormat.GGUF, "weights_bytes": 10}
    return ModelInfo(id=model_id, path=path, files=(path,), **{**defaults, **facts})
