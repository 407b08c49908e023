"""Ask an engine about a model, then make it load the model and answer, whatever it said.

Everything happens in a child process, because some engines end theirs; the next cell gets a new
one then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from backends.base import Backend, Instance, InstanceOptions, Support, Verdict
from backends.errors import EngineError
from backends.llama_cpp import LlamaCppBackend
from backends.mistral_rs.backend import MistralRsBackend
from backends.mlx.backend import MLXBackend
from detect.errors import NotAModelError
from detect.scan import inspect_path
from detect.types import ModelInfo, Role
from tests.slack import within
from tests.tiny import dialogues as d

ENGINES = ("mlx", "llama.cpp", "mistral.rs")
CELL_SECONDS = 12.0
START_SECONDS = 8.0
WORDS = 300


@dataclass(frozen=True, slots=True)
class Cell:
    """One model on one engine: what was said of it, and what came of it.

    `works` means that it was loaded and answered, and said the right thing where there is one.
    `words` are its answer, or the engine's last ones.
    """

    verdict: Verdict
    works: bool
    words: str
    seconds: float = 0.0

    @property
    def agrees(self) -> bool:
        return self.verdict.ok == self.works


class Bench:
    """Cells, one at a time. `with Bench() as bench: bench.cell(...)`."""

    def __init__(self) -> None:
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def cell(self, path: Path, engine: str, *, recites: bool) -> Cell:
        began = time.monotonic()
        verdict = judge(path, engine)
        works, words = self._try(path, engine, recites)
        return Cell(verdict, works, words, time.monotonic() - began)

    def _try(self, path: Path, engine: str, recites: bool) -> tuple[bool, str]:
        connection = self._connected()
        connection.send((path, engine, recites))
        try:
            if connection.poll(within(CELL_SECONDS)):
                works, words = connection.recv()
                return bool(works), str(words)
            words = "it did not come to an end"
        except (EOFError, ConnectionError):
            words = "it ended the process"
        self._end()
        return False, words

    def _connected(self) -> Connection:
        if self._connection is None:
            context = get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs,))
            self._process.start()
            theirs.close()
        return self._connection

    def _end(self) -> None:
        if self._process is not None and self._connection is not None:
            self._connection.close()
            self._process.kill()
            self._process.join()
        self._process = self._connection = None


@cache
def backends() -> Mapping[str, Backend]:
    folder = Path(tempfile.gettempdir(), f"router-truth-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    engines: tuple[Backend, ...] = (
        MLXBackend(),
        LlamaCppBackend(binary=None, cache_dir=folder),
        MistralRsBackend(binary=None, cache_dir=folder),
    )
    return {engine.name: engine for engine in engines}


def judge(path: Path, engine: str) -> Verdict:
    """What the router says of it; of what is no model at all, the detector speaks."""
    try:
        info = inspect_path(path)
    except NotAModelError as error:
        return Verdict(engine=engine, support=Support.NO, code=error.code, reason=error.message)
    return backends()[engine].verdict(info)


def _serve(connection: Connection) -> None:
    """The child process: cells until nobody asks any more."""
    logging.disable(logging.ERROR)
    _silence()
    while True:
        try:
            path, engine, recites = connection.recv()
        except EOFError:
            os._exit(0)
        connection.send(asyncio.run(_outcome(path, engine, recites)))


def _silence() -> None:
    """What engines print is told by their last words."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)


async def _outcome(path: Path, engine: str, recites: bool) -> tuple[bool, str]:
    try:
        info = inspect_path(path)
    except NotAModelError as error:
        return False, f"nothing to load: {error.message}"
    with tempfile.TemporaryDirectory(prefix="truth-") as folder:
        options = InstanceOptions(
            runtime_dir=Path(folder), start_timeout_seconds=within(START_SECONDS), parallel=1
        )
        try:
            instance = backends()[engine].create("m", info, options)
        except (LookupError, AssertionError) as error:
            return False, f"cannot even be started: {error!r}"
        try:
            await instance.ensure_ready()
            return await _answer(instance, info, recites)
        except Exception as error:
            return False, _last_words(error, instance)
        finally:
            await instance.stop(0.5)


def _last_words(error: Exception, instance: Instance) -> str:
    said = error.last_words if isinstance(error, EngineError) else ()
    lines = [line for line in (*said, *instance.status().last_words) if line.strip()]
    last = lines[-1] if lines else ""
    return f"{error} {last}"[:WORDS]


async def _answer(instance: Instance, info: ModelInfo, recites: bool) -> tuple[bool, str]:
    """A role that is no conversation is asked for what it does."""
    if info.role is Role.EMBEDDING:
        answer = await _post(instance, "/v1/embeddings", input="a")
        return bool(answer["data"][0]["embedding"]), "a vector"
    if info.role is Role.RERANKER:
        answer = await _post(instance, "/v1/rerank", query="a", documents=["a", "b"])
        return len(answer["results"]) == 2, "an order"
    if recites:
        question = [d.user(d.QUESTION)]
        answer = await _post(instance, "/v1/chat/completions", messages=question, temperature=0)
        text = str(answer["choices"][0]["message"]["content"])
        return text == d.SENTENCE, text[:WORDS]
    answer = await _post(instance, "/v1/completions", prompt="a", max_tokens=8, temperature=0)
    text = str(answer["choices"][0]["text"])
    return answer["usage"]["completion_tokens"] > 0, text[:WORDS]


async def _post(instance: Instance, path: str, **body: Any) -> Any:
    transport = httpx.ASGITransport(app=instance)
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        response = await client.post(path, json={"model": "m", **body}, timeout=None)
    response.raise_for_status()
    return response.json()
