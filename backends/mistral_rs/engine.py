"""One model in the `mistralrs` wheel: requests in, events out.

What was measured of mistralrs 0.9.5, and is why this is as it is:

- Its own rendering of chat templates gives tool calls' arguments as a text within a text, and a
  template that speaks Harmony makes it fetch a vocabulary from the network, or panic. So prompts
  are rendered here, and the engine's own template passes them on.
- Its own parsing of `<tool_call>` constrains the call by a grammar that loses the arguments.
- A `Runner` refuses two calls at once ("Already borrowed"), and two prompts that reach a GGUF
  model on CPU in one step fail it ("input tensor is not contiguous"). So one prompt is read at a
  time; decoding goes on together.
- A grammar that it does not take is told with the first chunk, and nothing else suffers.
- Dropping the iterator of a stream ends its generation within a token.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from backends.errors import (
    BadRequestError,
    EngineDiedError,
    EngineError,
    EngineProtocolError,
    TooLongError,
)
from backends.mistral_rs.answer import Answer
from backends.mistral_rs.grammar import Grammars, reason
from backends.wire.constraint import Constraint
from backends.wire.defaults import SamplingDefaults
from backends.wire.dialect import dialect_of
from backends.wire.events import Event
from backends.wire.features import honoured
from backends.wire.feed import Feed
from backends.wire.form import first_line, param_of, refused
from backends.wire.request import GenerationRequest, Sampling
from backends.wire.template import ChatTemplate

log = logging.getLogger("router.engine")

ENGINE = "mistral.rs"

SUPPORTED = honoured(ENGINE)

PASSTHROUGH = "{{ messages[0]['content'] }}"
"""The engine's template: the prompt as it comes."""

NO_TOOL = json.dumps({"type": "function", "function": {"name": "none", "parameters": {}}})
"""Told of a tool that must not be called, the engine leaves marks like `<think>` in the text."""


class _Feed(Feed[Event]):
    """`closed` tells the request's thread that nobody listens any more."""

    closed = False


@dataclass(frozen=True, slots=True)
class _Prompt:
    """`grammar` is what the answer is held to."""

    text: str
    tokens: int
    grammar: str | None = None


class Engine:
    """`runner` is a loaded `mistralrs.Runner` with `PASSTHROUGH` as its template.

    `context_length` bounds prompt and answer together, in tokens. A client that leaves while its
    prompt is read is noticed at the first token, later ones at once. `on_death` is called when
    the engine does not generate any more; the request that found out is answered first.
    """

    def __init__(
        self,
        runner: Any,
        *,
        model: str,
        template: ChatTemplate,
        defaults: SamplingDefaults,
        stop_ids: frozenset[int] = frozenset(),
        context_length: int | None = None,
        parallel: int = 4,
        on_death: Callable[[], None],
    ) -> None:
        self._runner = runner
        self._model = model
        self._template = template
        self._dialect = dialect_of(template.text)
        self._defaults = defaults
        bounds = [n for n in (context_length, runner.max_sequence_length()) if n]
        self._context_length = min(bounds, default=2**31)
        # What the engine puts before every prompt, templates mostly write themselves.
        self._opening = runner.detokenize_text(runner.tokenize_text("", True, None), False)
        self._grammars = Grammars(
            self._dialect, lambda text: runner.tokenize_text(text, False, None), stop_ids
        )
        self._on_death = on_death
        self._runner_lock = threading.Lock()
        self._threads = ThreadPoolExecutor(parallel, thread_name_prefix="answer")

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Events of one answer. Closing it gives up the request.

        Raises:
            BadRequestError: the prompt cannot be rendered, or the form that is demanded cannot be
                enforced.
            TooLongError: the prompt leaves no room in the context.
            EngineProtocolError: that form could not be kept to the end.
            EngineDiedError: the engine failed.
        """
        feed = _Feed()
        work = self._threads.submit(self._work, feed, request)
        try:
            async for event in feed:
                yield event
        finally:
            feed.closed = True
            work.cancel()

    async def count(self, request: GenerationRequest) -> int:
        """How many tokens its prompt has; raises BadRequestError where it cannot be rendered."""
        loop = asyncio.get_running_loop()
        prompt = await loop.run_in_executor(self._threads, self._prompt, request)
        return prompt.tokens

    # In the request's thread

    def _work(self, feed: _Feed, request: GenerationRequest) -> None:
        try:
            self._answer(feed, request)
            feed.put(None)
        except EngineError as error:
            feed.put(error)
        except BaseException as error:
            # A panic of the engine is none of Python's ordinary exceptions.
            log.error("%s: a request failed: %s", self._model, error)
            feed.put(self._failure())
            self._check_alive()

    def _answer(self, feed: _Feed, request: GenerationRequest) -> None:
        prompt = self._prompt(request)
        self._check_length(prompt, "messages" if request.chat else "prompt")
        parser = self._dialect.parser(request, prompt.text)
        answer = Answer(parser, chat=request.chat, stops=request.stop)
        theirs = not self._dialect.calls and prompt.grammar is None
        question = self._question(request, prompt, parses_calls=theirs)
        began = False
        try:
            for chunk in self._chunks(question, feed):
                began = True
                for event in answer.add(chunk):
                    feed.put(event)
        except Exception as error:
            if request.constraint and (why := reason(error)) is not None:
                raise self._formless(request.constraint, why, began) from None
            raise
        if not feed.closed:
            for event in answer.finish():
                feed.put(event)

    def _formless(self, constraint: Constraint, why: str, began: bool) -> EngineError:
        """The engine has something against the form, at once or in the middle of the answer."""
        if not began:
            return refused(param_of(constraint), why)
        return EngineProtocolError(
            f"The answer could not be given the form that was demanded: {first_line(why)}",
            engine=ENGINE,
            model=self._model,
        )

    def _chunks(self, question: Any, feed: _Feed) -> Iterator[Any]:
        """The engine's stream, until it ends or nobody listens any more."""
        with self._runner_lock:
            if feed.closed:
                return
            stream = iter(self._runner.send_chat_completion_request(question))
            chunk = next(stream, None)
        while chunk is not None and not feed.closed:
            yield chunk
            chunk = next(stream, None)

    def _prompt(self, request: GenerationRequest) -> _Prompt:
        field = "messages" if request.chat else "prompt"
        if request.chat:
            text = self._template.render(request).removeprefix(self._opening)
        elif isinstance(request.prompt, str):
            text = request.prompt
        else:
            raise BadRequestError(
                f"{ENGINE} takes `prompt` as text, not as token ids.", param=field
            )
        with self._runner_lock:
            tokens = len(self._runner.tokenize_text(text, True, None))
            grammar = self._grammars.text(request, text[-64:])
        if not tokens:
            raise BadRequestError(
                f"`{field}` is empty: there is nothing to go on from.", param=field
            )
        return _Prompt(text, tokens, grammar)

    def _check_length(self, prompt: _Prompt, param: str) -> None:
        if prompt.tokens >= self._context_length:
            raise TooLongError.prompt(prompt.tokens, self._model, self._context_length, param=param)

    def _question(self, request: GenerationRequest, prompt: _Prompt, *, parses_calls: bool) -> Any:
        """`parses_calls` has the engine read the calls of tools; else it leaves them as text."""
        import mistralrs

        left = self._context_length - prompt.tokens
        parses_calls = parses_calls and bool(request.tools)
        choice = mistralrs.ToolChoice.Auto if parses_calls else mistralrs.ToolChoice.NoTools
        return mistralrs.ChatCompletionRequest(
            messages=[{"role": "user", "content": prompt.text}],
            model="default",
            stream=True,
            max_tokens=min(request.max_tokens or left, left),
            stop_seqs=list(request.stop) or None,
            # With the bytes of tokens: the white space that the engine cuts off at the start of a
            # stream, and the stop string that it has met.
            logprobs=not request.chat or bool(request.stop),
            tool_schemas=[json.dumps(tool) for tool in request.tools] or [NO_TOOL],
            tool_choice=choice,
            grammar=prompt.grammar,
            grammar_type=None if prompt.grammar is None else "llguidance",
            **self._sampling(request.sampling),
        )

    def _sampling(self, sampling: Sampling) -> dict[str, Any]:
        """Every value said: what is left out, the engine takes from elsewhere."""
        usual = self._defaults
        return {
            "temperature": _first(sampling.temperature, usual.temperature),
            "top_p": _first(sampling.top_p, usual.top_p),
            "top_k": max(0, int(_first(sampling.top_k, usual.top_k))),
            "min_p": _first(sampling.min_p, usual.min_p),
            "repetition_penalty": _first(sampling.repetition_penalty, usual.repetition_penalty),
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "logit_bias": dict(sampling.logit_bias) or None,
        }

    def _check_alive(self) -> None:
        """A panic ends the engine's thread for good, and every later request fails like this."""
        canary = GenerationRequest(prompt="a", max_tokens=1)
        question = self._question(canary, _Prompt("a", 1), parses_calls=False)
        try:
            with self._runner_lock:
                for _ in self._runner.send_chat_completion_request(question):
                    pass
        except BaseException as error:
            log.error("%s: the engine is dead: %s", self._model, error)
            self._on_death()

    def _failure(self) -> EngineDiedError:
        return EngineDiedError(
            f"{ENGINE} failed in the middle of the answer; the log says why.",
            engine=ENGINE,
            model=self._model,
        )


def _first(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
