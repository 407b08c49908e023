"""One model that makes vectors of texts, on the engine thread."""

from __future__ import annotations

import asyncio
import logging
import math
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from backends.errors import (
    BadRequestError,
    EngineDiedError,
    EngineError,
    EngineSilentError,
    TooLongError,
)
from backends.mlx import library
from backends.mlx.model import Text, Weights, give_back_memory, load_weights
from backends.mlx.options import EngineOptions
from backends.mlx.pace import Pace
from backends.mlx.pooling import Mode, Pool, mode_of
from backends.mlx.thread import EngineThread, Work, once
from backends.mlx.waiting_texts import WaitingTexts
from backends.wire.app import Handlers, embedding_handlers
from backends.wire.embeddings import EmbeddingRequest, Embeddings
from backends.wire.feed import Feed
from backends.wire.json_file import json_object
from detect.listing import list_folder
from detect.pooling import read_pooling

log = logging.getLogger("router.engine")

CANARY = EmbeddingRequest(inputs=("a",))
FLOAT_BYTES = 4
SHOWN_PROMPTS = 10


@dataclass(slots=True, eq=False)
class _Asked:
    """One request: `vectors` is full when `feed` gets it."""

    feed: Feed[list[bytes]]
    vectors: list[bytes]
    dimensions: int | None
    left: int

    def add(self, index: int, vector: bytes) -> None:
        self.vectors[index] = vector
        self.left -= 1
        if not self.left:
            self.feed.put(self.vectors)
            self.feed.put(None)


@dataclass(slots=True, eq=False)
class _Row:
    ids: list[int]
    index: int
    asked: _Asked

    @property
    def length(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What the files beside the weights say of the vectors."""

    mode: Mode
    normalized: bool
    prompts: Mapping[str, str] = field(default_factory=dict)
    prompts_count: bool = True
    shorter: bool | frozenset[int] = False
    """Whether a vector's beginning is a vector as well: at any length, or at these."""


class Embedder:
    """Loads a model, makes vectors of texts, and frees what it held.

    Texts of all requests are computed together where they are of about one length, and the longest
    in pieces: a step takes no longer than one of a prompt beside answers that run.
    """

    def __init__(
        self, model: str, folder: Path, options: EngineOptions, *, thread: EngineThread
    ) -> None:
        self.model = model
        self._folder = folder
        self._options = options
        self._thread = thread
        self._text_thread: ThreadPoolExecutor | None = None
        self._text: Text | None = None
        self._recipe: _Recipe | None = None
        self._weights: Weights | None = None
        self._weights_bytes: int | None = None
        self._waiting = WaitingTexts[_Row]()
        self._asked: list[_Asked] = []
        self._width: int | None = None
        self._pace = Pace()
        self._computing = False

    @property
    def used_bytes(self) -> int | None:
        """Of the weights; None when they are not loaded."""
        return self._weights_bytes

    @property
    def prefix_cache(self) -> None:
        """Texts have no beginnings in common that would be worth keeping."""

    async def load(self) -> None:
        """Read tokenizer, weights and recipe; raises whatever is wrong with them."""
        self._text_thread = ThreadPoolExecutor(1, thread_name_prefix="mlx-text")
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._text_thread, library.settle)
        self._recipe = await loop.run_in_executor(self._text_thread, read_recipe, self._folder)
        self._text = await loop.run_in_executor(self._text_thread, Text, self._folder)
        await self._thread.run(self._load())

    async def prove(self) -> None:
        """Make a vector, which tells how long they are."""
        found = await self.embed(CANARY)
        self._width = len(found.vectors[0]) // FLOAT_BYTES

    def handlers(self) -> Handlers:
        return embedding_handlers(self.embed, model=self.model)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Being cancelled gives up the request within a step.

        Raises:
            BadRequestError: a text is longer than the context, or the model has no such vectors.
            EngineDiedError: a step failed, or the model was unloaded meanwhile.
        """
        assert self._text_thread is not None
        loop = asyncio.get_running_loop()
        texts = await loop.run_in_executor(self._text_thread, partial(self._read, request))
        feed = Feed[list[bytes]]()
        asked = _Asked(feed, [b""] * len(texts), request.dimensions, len(texts))
        rows = [_Row(ids, i, asked) for i, ids in enumerate(texts)]
        vectors: list[bytes] = []
        try:
            await self._thread.call(partial(self._insert, asked, rows))
            async for all_of_it in feed:
                vectors = all_of_it
        finally:
            # After the insertion in any case: the engine thread takes its work in order.
            self._thread.submit(once(partial(self._remove, asked)))
        return Embeddings(vectors, sum(map(len, texts)))

    async def stuck(self) -> EngineSilentError:
        """Returns when the engine's thread does not come back from a step."""
        return await self._thread.stuck()

    def fail(self, error: EngineError) -> None:
        """Fail what still runs, from the event loop: for a thread that does not come back."""
        for asked in list(self._asked):
            asked.feed.put(error)

    async def close(self) -> None:
        """Fail what still runs and return the memory.

        Raises:
            EngineSilentError: the thread is stuck, and the memory stays taken.
        """
        if self._text_thread is not None:
            self._text_thread.shutdown(wait=False, cancel_futures=True)
        await self._thread.run(once(self._free), in_any_case=True)

    # On the text thread

    def _read(self, request: EmbeddingRequest) -> list[list[int]]:
        """The tokens of every text, with what the tokenizer puts around each."""
        assert self._text is not None and self._recipe is not None
        if request.dimensions is not None:
            self._check_dimensions(request.dimensions, self._recipe.shorter)
        prompt = self._prompt(request)
        one = len(request.inputs) == 1
        names = ["input" if one else f"input[{i}]" for i in range(len(request.inputs))]
        texts = []
        for name, given in zip(names, request.inputs, strict=True):
            text = prompt + given if isinstance(given, str) else given
            texts.append(self._bounded(self._text.tokens(text, name), name))
        return texts

    def _check_dimensions(self, wanted: int, shorter: bool | frozenset[int]) -> None:
        if self._width is not None and wanted > self._width:
            raise _wrong("dimensions", f"must be at most {self._width}")
        if shorter is False:
            raise BadRequestError(
                f"`dimensions`: nothing says that vectors of {self.model} may be cut short. If "
                'its card does, add "is_matryoshka": true to its config.json.',
                param="dimensions",
            )
        if isinstance(shorter, frozenset) and wanted not in shorter:
            known = ", ".join(map(str, sorted(shorter)))
            raise _wrong("dimensions", f"must be one of {known}")

    def _prompt(self, request: EmbeddingRequest) -> str:
        assert self._recipe is not None
        name, prompts = request.prompt_name, self._recipe.prompts
        if name is None:
            return ""
        if not all(isinstance(given, str) for given in request.inputs):
            raise _wrong("prompt_name", "goes before texts, and `input` holds token ids")
        if name not in prompts or not self._recipe.prompts_count:
            known = (
                ", ".join(map(repr, list(prompts)[:SHOWN_PROMPTS]))
                if self._recipe.prompts_count
                else ""
            )
            raise _wrong("prompt_name", f"is none of this model's prompts: {known or 'none'}")
        return prompts[name]

    def _bounded(self, ids: list[int], name: str) -> list[int]:
        limit = self._options.context_length
        if not ids:
            raise _wrong(name, "is empty: there is nothing to make a vector of")
        if limit is not None and len(ids) > limit:
            raise TooLongError(
                f"`{name}` has {len(ids)} tokens and {self.model} takes {limit}: split it, or "
                "raise --context-length where the model allows more.",
                param=name,
            )
        return ids

    # On the engine thread

    def _load(self) -> Work[None]:
        try:
            self._weights = yield from load_weights(
                self._folder, self._count, adapter=self._options.adapter, headless=True
            )
        finally:
            if self._weights is None:
                self._free()

    def _count(self, nbytes: int) -> None:
        self._weights_bytes = nbytes

    def _insert(self, asked: _Asked, rows: Sequence[_Row]) -> None:
        if self._weights is None:
            raise self._failure("was unloaded")
        self._asked.append(asked)
        self._waiting.put(rows)
        if not self._computing:
            self._computing = True
            self._thread.submit(self._compute())

    def _remove(self, asked: _Asked) -> None:
        self._asked = [other for other in self._asked if other is not asked]
        self._waiting.drop([row for row in self._waiting if row.asked is asked])

    def _compute(self) -> Work[None]:
        """Runs while texts wait. A failed step fails the requests whose texts were in it."""
        while len(self._waiting):
            rows = self._waiting.take(self._tokens())
            try:
                yield from self._vectors(rows)
            except Exception:
                log.exception("%s: a step failed", self.model)
                for asked in {id(row.asked): row.asked for row in rows}.values():
                    asked.feed.put(self._failure("failed over these texts; the log says why"))
                    self._remove(asked)
            yield
        self._computing = False

    def _vectors(self, rows: Sequence[_Row]) -> Work[None]:
        assert self._recipe is not None
        pools = [Pool(self._recipe.mode) for _ in rows]
        if rows[0].length > self._tokens():
            yield from self._in_pieces(rows[0], pools[0])
        else:
            self._at_once(rows, pools)
        normalized = self._recipe.normalized
        for row, pool in zip(rows, pools, strict=True):
            if row.asked not in self._asked:
                continue
            vector = pool.vector(normalized=normalized, dimensions=row.asked.dimensions)
            row.asked.add(row.index, self._finite(vector))

    def _at_once(self, rows: Sequence[_Row], pools: Sequence[Pool]) -> None:
        """Padded on the right, where attention that looks back sees nothing of it."""
        assert self._weights is not None
        mx = library.load("mlx.core")
        began, longest = time.monotonic(), rows[0].length
        padded = [[*row.ids, *[row.ids[-1]] * (longest - row.length)] for row in rows]
        states = self._weights.network.model(mx.array(padded))
        parts = [pool.add(states[i, : rows[i].length]) for i, pool in enumerate(pools)]
        mx.eval(parts)
        self._pace.took(longest * len(rows), time.monotonic() - began)

    def _in_pieces(self, row: _Row, pool: Pool) -> Work[None]:
        assert self._weights is not None
        mx = library.load("mlx.core")
        network = self._weights.network
        cache = library.load("mlx_lm.models.cache").make_prompt_cache(network)
        begin = 0
        while begin < row.length and row.asked in self._asked:
            began, end = time.monotonic(), min(begin + self._tokens(), row.length)
            states = network.model(mx.array([row.ids[begin:end]]), cache=cache)
            mx.eval(pool.add(states[0]), [layer.state for layer in cache])
            self._pace.took(end - begin, time.monotonic() - began)
            begin = end
            yield

    def _tokens(self) -> int:
        """For a step, as if answers ran beside it: whether they do is not known here."""
        return self._pace.tokens(shared=True)

    def _finite(self, vector: Any) -> bytes:
        found = bytes(memoryview(vector))
        if not all(map(math.isfinite, struct.unpack(f"{len(found) // FLOAT_BYTES}f", found))):
            raise ArithmeticError("a vector has members that are no numbers")
        return found

    def _failure(self, what: str) -> EngineDiedError:
        return EngineDiedError(f"mlx {what}.", engine="mlx", model=self.model)

    def _free(self) -> None:
        for asked in self._asked:
            asked.feed.put(self._failure("was unloaded while it answered"))
        self._asked = []
        self._waiting = WaitingTexts()
        self._weights = self._weights_bytes = None
        give_back_memory()


def read_recipe(folder: Path) -> _Recipe:
    """
    Raises:
        ValueError: the files do not say how a vector is made, or in a way that is not known here.
    """
    pooling = read_pooling(list_folder(folder, (folder.resolve(),)))
    mode = mode_of(pooling)
    if pooling is None or mode is None:
        raise ValueError(f"the files of sentence-transformers say {pooling}")
    prompts = json_object(folder / "config_sentence_transformers.json").get("prompts")
    return _Recipe(
        mode=mode,
        normalized=pooling.normalized,
        prompts=dict(_texts(prompts)),
        prompts_count=pooling.with_prompt,
        shorter=_shorter(json_object(folder / "config.json")),
    )


def _texts(value: Any) -> Iterator[tuple[str, str]]:
    for name, text in value.items() if isinstance(value, dict) else ():
        if isinstance(text, str):
            yield name, text


def _shorter(config: Mapping[str, Any]) -> bool | frozenset[int]:
    """By the keys that vLLM reads, too: no other file tells."""
    lengths = config.get("matryoshka_dimensions")
    if isinstance(lengths, list) and lengths:
        return frozenset(length for length in lengths if type(length) is int)
    return config.get("is_matryoshka") is True


def _wrong(name: str, what: str) -> BadRequestError:
    return BadRequestError(f"`{name}` {what}.", param=name)
