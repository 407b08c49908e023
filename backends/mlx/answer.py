"""One answer under way: from token ids to events. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from backends.mlx.decoder import Token
from backends.mlx.model import Prompt, Text
from backends.wire.events import Event, Finished, Usage
from backends.wire.request import GenerationRequest
from backends.wire.text import AnswerParser, Detokenizer, StopMatcher


class Answer:
    """Feed it tokens until `reason` is set, by the model, by the limit or by a stop string; then
    `finish` tells the rest."""

    def __init__(self, text: Text, request: GenerationRequest, prompt: Prompt) -> None:
        self.reason: str | None = None
        self._prompt_tokens = len(prompt.ids)
        self._tokens = 0
        self._cached = 0
        self._detokenizer = Detokenizer(text.decode, prompt.ids[-1])
        self._stops = StopMatcher(request.stop)
        reasoning = text.reasoning if request.chat else None
        self._parser = AnswerParser(
            tools=text.tools(request.tools),
            reasoning=reasoning,
            reasoning_open=reasoning is not None and prompt.ends_with(reasoning.start),
        )

    def add(self, token: Token) -> Iterator[Event]:
        self._tokens += 1
        self._cached = token.cached
        if token.last != "stop":
            yield from self._say(self._detokenizer.add(token.id))
        if self.reason is None:
            self.reason = token.last

    def finish(self) -> Iterator[Event]:
        if not self._stops.stopped:
            yield from self._say(self._detokenizer.rest())
        if not self._stops.stopped:
            yield from self._parser.add(self._stops.rest())
        yield from self._parser.finish()
        reason = self.reason or "stop"
        if self._parser.called and reason == "stop":
            reason = "tool_calls"
        yield Finished(reason, Usage(self._prompt_tokens, self._tokens, self._cached))

    def _say(self, text: str) -> Iterator[Event]:
        yield from self._parser.add(self._stops.add(text))
        if self._stops.stopped:
            self.reason = "stop"
