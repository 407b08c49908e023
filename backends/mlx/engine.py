"""One model served on the engine thread: requests in, events out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path

from backends.base import PrefixCacheStatus
from backends.errors import (
    EngineDiedError,
    EngineError,
    EngineProtocolError,
    EngineSilentError,
    TooLongError,
)
from backends.mlx import kv_state, library
from backends.mlx.answer import Answer
from backends.mlx.decoder import Decoder, RowRequest, Token
from backends.mlx.decoders import make_decoder
from backends.mlx.disk_shelf import DiskShelf
from backends.mlx.grammar import Mask
from backends.mlx.model import Prompt, Text, Weights, give_back_memory, load_weights
from backends.mlx.options import EngineOptions
from backends.mlx.prefixes import Prefixes
from backends.mlx.sampling import make_processors, make_sampler
from backends.mlx.thread import EngineThread, Work, once
from backends.wire.app import Handlers, completion_handlers
from backends.wire.events import Choice, Event
from backends.wire.features import MLX, honoured
from backends.wire.feed import Feed, side_by_side
from backends.wire.request import GenerationRequest

log = logging.getLogger("router.engine")

SUPPORTED = honoured(MLX)

CANARY = GenerationRequest(prompt="a")


def _choice(request: GenerationRequest, index: int) -> GenerationRequest:
    """The same request for one of its answers: with one seed for all, they would be the same."""
    seed = request.sampling.seed
    if seed is None:
        return request
    return replace(request, sampling=replace(request.sampling, seed=seed + index))


class Engine:
    """Loads a model, answers requests in one batch, and frees what it held.

    Weights, decoder and rows belong to the engine thread, text to one thread of its own: long
    prompts hold up neither the event loop nor a running answer.
    """

    def __init__(
        self,
        model: str,
        folder: Path,
        options: EngineOptions,
        *,
        thread: EngineThread,
    ) -> None:
        self.model = model
        self._folder = folder
        self._options = options
        self._thread = thread
        self._text_thread: ThreadPoolExecutor | None = None
        self._text: Text | None = None
        self._weights: Weights | None = None
        self._weights_bytes: int | None = None
        self._rows_bytes = 0
        self._prefixes = Prefixes(options.prefix_bytes)
        self._forgetful = False
        self._decoder: Decoder | None = None
        self._feeds: dict[int, Feed[Token]] = {}
        self._decoding = False

    @property
    def used_bytes(self) -> int | None:
        """Weights, the states of running rows, and those that are kept; None when not loaded. From
        any thread."""
        if self._weights_bytes is None:
            return None
        return self._weights_bytes + self._rows_bytes + self._prefixes.nbytes

    @property
    def prefix_cache(self) -> PrefixCacheStatus | None:
        if self._decoder is None:
            return None
        kept, counters = self._prefixes, self._prefixes.counters
        return PrefixCacheStatus(
            entries=len(kept),
            nbytes=kept.nbytes,
            hits=counters.hits,
            misses=counters.misses,
            evicted=counters.evicted,
            prompt_tokens=counters.prompt_tokens,
            cached_tokens=counters.cached_tokens,
        )

    @property
    def weights_bytes(self) -> int | None:
        """What the weights hold in memory now, also while they are read; None when there are
        none."""
        return self._weights_bytes

    async def load(self) -> None:
        """Read tokenizer and weights; raises whatever mlx-lm says is wrong with them."""
        self._text_thread = ThreadPoolExecutor(1, thread_name_prefix="mlx-text")
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._text_thread, library.settle)
        self._text = await loop.run_in_executor(self._text_thread, Text, self._folder)
        await self._thread.run(self._load(self._text.stop_ids))

    async def prove(self) -> None:
        """Generate a token, which nobody sees."""
        assert self._text is not None and self._text_thread is not None
        loop = asyncio.get_running_loop()
        prompt = await loop.run_in_executor(self._text_thread, self._text.prompt, CANARY)
        await self._thread.call(partial(self._prove, prompt))

    def handlers(self) -> Handlers:
        return completion_handlers(
            self.generate, self.count, engine="mlx", model=self.model, supported=SUPPORTED
        )

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event | Choice, None]:
        """Events of one answer, or choices of several. Closing it gives up the request within a
        step.

        Raises:
            BadRequestError: the prompt cannot be rendered.
            TooLongError: it leaves no room in the context.
            EngineDiedError: a step failed, or the model was unloaded meanwhile.
            EngineProtocolError: the form that the request demands could not be kept to the end.
        """
        assert self._text is not None and self._text_thread is not None
        loop = asyncio.get_running_loop()
        read = partial(self._text.prompt, request, checkpoints=self._forgetful)
        prompt = await loop.run_in_executor(self._text_thread, read)
        mask = await loop.run_in_executor(self._text_thread, self._text.mask, request, prompt)
        limit = self._limit(request, len(prompt.ids))
        answers = [
            self._answer(_choice(request, index), prompt, limit, mask and mask.copy())
            for index in range(request.n)
        ]
        if len(answers) == 1:
            async with aclosing(answers[0]) as events:
                async for event in events:
                    yield event
        else:
            async with aclosing(side_by_side(answers)) as choices:
                async for choice in choices:
                    yield choice

    async def count(self, request: GenerationRequest) -> int:
        """How many tokens its prompt has; raises BadRequestError where it cannot be rendered."""
        assert self._text is not None and self._text_thread is not None
        loop = asyncio.get_running_loop()
        prompt = await loop.run_in_executor(self._text_thread, self._text.prompt, request)
        return len(prompt.ids)

    async def _answer(
        self, request: GenerationRequest, prompt: Prompt, limit: int, mask: Mask | None
    ) -> AsyncGenerator[Event, None]:
        assert self._text is not None
        answer = Answer(self._text, request, prompt)
        feed = Feed[Token]()
        try:
            await self._thread.call(partial(self._insert, feed, prompt, limit, request, mask))
            async for token in feed:
                for event in answer.add(token):
                    yield event
                if answer.reason:
                    break
        finally:
            # After the insertion in any case: the engine thread takes its work in order.
            self._thread.submit(once(partial(self._remove, feed)))
        if mask is not None and mask.failure:
            raise EngineProtocolError(
                f"The answer could not be given the form that was demanded: {mask.failure}",
                engine="mlx",
                model=self.model,
            )
        for event in answer.finish():
            yield event

    async def stuck(self) -> EngineSilentError:
        """Returns when the engine's thread does not come back from a step."""
        return await self._thread.stuck()

    def fail(self, error: EngineError) -> None:
        """Fail what still runs, from the event loop: for a thread that does not come back."""
        for feed in list(self._feeds.values()):
            feed.put(error)

    async def close(self) -> None:
        """Fail what still runs and return the memory.

        Raises:
            EngineSilentError: the thread is stuck, and the memory stays taken.
        """
        if self._text_thread is not None:
            self._text_thread.shutdown(wait=False, cancel_futures=True)
        await self._thread.run(self._leave(), in_any_case=True)

    def _limit(self, request: GenerationRequest, prompt_tokens: int) -> int:
        """How many tokens may be generated."""
        context_length = self._options.context_length
        if context_length is None:
            return request.max_tokens or 2**31
        left = context_length - prompt_tokens
        if left < 1:
            param = "messages" if request.chat else "prompt"
            raise TooLongError.prompt(prompt_tokens, self.model, context_length, param=param)
        return min(request.max_tokens or left, left)

    # On the engine thread

    def _load(self, stop_ids: frozenset[int]) -> Work[None]:
        try:
            self._weights = yield from load_weights(
                self._folder,
                self._count,
                adapter=self._options.adapter,
                draft=self._options.draft,
            )
            self._prefixes = Prefixes(self._options.prefix_bytes, self._shelf())
            self._forgetful = not kv_state.keeps_all(kv_state.new(self._weights.network))
            self._decoder = self._make_decoder(stop_ids)
        finally:
            if self._decoder is None:
                self._free()

    def _shelf(self) -> DiskShelf | None:
        if self._options.disk_folder is None:
            return None
        try:
            return DiskShelf(self._options.disk_folder, self._options.disk_bytes)
        except OSError as error:
            log.warning("%s: no prompts are kept on disk: %s", self.model, error)
            return None

    def _count(self, nbytes: int) -> None:
        self._weights_bytes = nbytes

    def _make_decoder(self, stop_ids: frozenset[int]) -> Decoder:
        assert self._weights is not None
        options = self._options
        return make_decoder(
            self._weights, stop_ids, options.max_rows, self._prefixes, options.kv_bits
        )

    def _prove(self, prompt: Prompt) -> None:
        if self._decoder is None:
            raise self._failure("was unloaded")
        self._decoder.prove(prompt.ids)
        self._prefixes.settle()

    def _insert(
        self,
        feed: Feed[Token],
        prompt: Prompt,
        limit: int,
        request: GenerationRequest,
        mask: Mask | None,
    ) -> None:
        assert self._text is not None
        if self._decoder is None:
            raise self._failure("was unloaded")
        row = self._decoder.insert(
            RowRequest(
                prompt=prompt.ids,
                max_tokens=limit,
                sampler=make_sampler(request.sampling, self._text.defaults),
                # The mask comes last: nothing may lift what it forbids.
                processors=[
                    *make_processors(request.sampling, self._text.defaults),
                    *([mask] if mask else []),
                ],
                checkpoints=prompt.checkpoints,
                likelihoods=request.logprobs,
            )
        )
        self._feeds[row] = feed
        if not self._decoding:
            self._decoding = True
            self._thread.submit(self._decode())

    def _remove(self, feed: Feed[Token]) -> None:
        row = next((row for row, other in self._feeds.items() if other is feed), None)
        if row is not None and self._decoder is not None:
            del self._feeds[row]
            self._decoder.remove(row)

    def _decode(self) -> Work[None]:
        """Runs while there are rows."""
        try:
            while self._decoder is not None and len(self._decoder):
                try:
                    tokens = self._decoder.step()
                except Exception:
                    self._restart()
                    break
                # Others look at it, and the decoder changes while it is looked at.
                self._rows_bytes = self._decoder.nbytes
                self._tell(tokens)
                yield
        finally:
            self._decoding, self._rows_bytes = False, 0
        self._prefixes.settle()
        self._thread.submit(self._save())

    def _tell(self, tokens: Iterable[Token]) -> None:
        for token in tokens:
            feed = self._feeds.pop(token.row) if token.last else self._feeds[token.row]
            feed.put(token)
            if token.last:
                feed.put(None)

    def _save(self) -> Work[None]:
        """Write what the disk does not have, an entry at a step, until there is a request."""
        while not self._decoding and self._prefixes.save_one():
            yield

    def _restart(self) -> None:
        """A failed step fails the requests that were in it; the next ones find a new decoder."""
        log.exception("%s: a step failed", self.model)
        assert self._weights is not None and self._text is not None and self._decoder is not None
        self._fail_all("failed in the middle of the answer; the log says why")
        broken, self._decoder = self._decoder, None
        broken.close()
        # Whatever broke may have left its marks in what is shared.
        self._prefixes.clear()
        self._decoder = self._make_decoder(self._text.stop_ids)

    def _fail_all(self, what: str) -> None:
        for feed in self._feeds.values():
            feed.put(self._failure(what))
        self._feeds.clear()

    def _failure(self, what: str) -> EngineDiedError:
        return EngineDiedError(f"mlx {what}.", engine="mlx", model=self.model)

    def _leave(self) -> Work[None]:
        """Others go on while prompts are written to disk."""
        try:
            self._fail_all("was unloaded while it answered")
            if self._decoder is not None:
                self._decoder.close()
                self._decoder = None
            while self._prefixes.save_one():
                yield
        finally:
            self._free()

    def _free(self) -> None:
        self._prefixes.clear()
        self._decoder = self._weights = self._weights_bytes = None
        give_back_memory()
