"""One answer under way: from token ids to events. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from backends.mlx.decoder import Likelihood, Token
from backends.mlx.model import Prompt, Text
from backends.wire.events import Event, Finished, Spelling, TokenLikelihood, Usage
from backends.wire.request import GenerationRequest
from backends.wire.text import Detokenizer, StopMatcher


class Answer:
    """Feed it tokens until `reason` is set, by the model, by the limit or by a stop string; then
    `finish` tells the rest."""

    def __init__(self, text: Text, request: GenerationRequest, prompt: Prompt) -> None:
        self.reason: str | None = None
        self._text = text
        self._likelihoods: list[TokenLikelihood] = []
        self._prompt_tokens = len(prompt.ids)
        self._tokens = 0
        self._cached = 0
        self._detokenizer = Detokenizer(text.decode, prompt.ids[-1])
        self._stops = StopMatcher(request.stop)
        self._parser = text.dialect.parser(request, prompt.end)

    def add(self, token: Token) -> Iterator[Event]:
        self._tokens += 1
        self._cached = token.cached
        if token.last != "stop":
            if token.likelihood is not None:
                self._likelihoods.append(self._spelled(token.id, token.likelihood))
            yield from self._say(self._detokenizer.add(token.id))
        if self.reason is None:
            self.reason = token.last

    def finish(self) -> Iterator[Event]:
        if not self._stops.stopped:
            yield from self._say(self._detokenizer.rest())
        if not self._stops.stopped:
            yield from self._likelihoods_within(None)
            yield from self._parser.add(self._stops.rest())
        yield from self._parser.finish()
        reason = self.reason or "stop"
        if self._parser.called and reason == "stop":
            reason = "tool_calls"
        usage = Usage(self._prompt_tokens, self._tokens, self._cached)
        yield Finished(reason, usage, self._stops.met)

    def _say(self, text: str) -> Iterator[Event]:
        passed = self._stops.add(text)
        if self._stops.stopped:
            yield from self._likelihoods_within(len(passed))
        elif passed or not self._stops.holds:
            yield from self._likelihoods_within(None)
        yield from self._parser.add(passed)
        if self._stops.stopped:
            self.reason = "stop"

    def _likelihoods_within(self, characters: int | None) -> Iterator[Event]:
        """Of tokens whose text is told: not of those that turn out to be a stop string."""
        told, self._likelihoods = self._likelihoods, []
        for likelihood in told:
            if characters is not None:
                characters -= len(likelihood.token.text)
                if characters < 0:
                    return
            yield likelihood

    def _spelled(self, token: int, likelihood: Likelihood) -> TokenLikelihood:
        pairs = ((token, likelihood.own), *likelihood.top)
        own, *top = (Spelling(*self._text.spelling(i), logprob) for i, logprob in pairs)
        return TokenLikelihood(own, tuple(top))
