"""Answers of a demanded form, by llguidance: which tokens may come next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from backends.errors import BadRequestError
from backends.mlx import library
from backends.wire.answer_parser import ReasoningFormat
from backends.wire.call_grammar import CallFormat
from backends.wire.constraint import Constraint
from backends.wire.form import first_line, form, param_of, refused
from backends.wire.lark import BOUNDED, LEAD, Vocabulary

LIMITS: dict[str, Any] = {
    # An object with 500 optional properties needs more than the usual 2000.
    "max_items_in_row": 10_000,
    "verbose_errors": False,
}

REMEMBERED = 32
"""Compiled grammars kept for the next request: agents send the same one with each."""


@dataclass(frozen=True, slots=True)
class Thinking:
    """How a model thinks before it answers. `open`: it does so already. `may_end`: with a call of
    a tool, say, so that there is no answer."""

    format: ReasoningFormat
    open: bool
    may_end: bool = False


class Grammars:
    """One model's vocabulary, as grammars see it.

    Made and asked on one thread at a time. `tokenizer` is transformers' own; `encode` turns text
    into ids without adding any.
    """

    def __init__(
        self, tokenizer: Any, encode: Callable[[str], list[int]], stop_ids: frozenset[int]
    ) -> None:
        self._tokenizer = tokenizer
        self._encode = encode
        self._stop_ids = stop_ids
        self._vocabulary = Vocabulary(self._token, stop_ids, BOUNDED)
        self._compiled: OrderedDict[str, Any] = OrderedDict()

    def mask(
        self, constraint: Constraint, calls: CallFormat | None, thinking: Thinking | None
    ) -> Mask:
        """For one answer. `calls` is how the model writes them, None if it does not.

        Raises:
            BadRequestError: the grammar is wrong or too large, or this model cannot be bound to it.
        """
        text = form(constraint, calls, self._vocabulary, before=LEAD if thinking else "")
        matcher = self._compiled.get(text) or self._compile(text, param_of(constraint))
        self._compiled[text] = matcher
        self._compiled.move_to_end(text)
        if len(self._compiled) > REMEMBERED:
            self._compiled.popitem(last=False)
        thought = None if thinking is None else self._thought(thinking)
        return Mask(self._words, matcher, self._stop_ids, thought)

    def _thought(self, thinking: Thinking) -> _Thought:
        start = tuple(self._encode(thinking.format.start))
        end = thinking.format.end.encode()
        return _Thought(start, end, inside=thinking.open, may_end=thinking.may_end)

    def _token(self, text: str) -> int | None:
        ids = self._encode(text)
        return ids[0] if len(ids) == 1 else None

    def _compile(self, text: str, param: str) -> Any:
        module = library.load("llguidance")
        limits = module.LLParserLimits(**LIMITS)
        matcher = module.LLMatcher(self._words, text, log_level=0, limits=limits)
        if matcher.is_error():
            raise refused(param, matcher.get_error())
        # Some things are found out with the first step only.
        probe = matcher.deep_copy()
        probe.compute_bitmask()
        if probe.is_stopped() and not probe.is_accepting():
            raise refused(param, probe.get_error())
        return matcher

    @cached_property
    def _words(self) -> Any:
        """llguidance's view of the vocabulary: made once, with the first grammar."""
        try:
            return library.load("llguidance.hf").from_tokenizer(
                self._tokenizer, n_vocab=len(self._tokenizer), eos_token=sorted(self._stop_ids)
            )
        except Exception as error:
            raise BadRequestError(
                "Answers of this model cannot be bound to a form: its tokenizer is of a kind that "
                f"llguidance does not read ({error})."
            ) from error


class Mask:
    """A logits processor for one answer: leaves only the tokens that keep its form.

    Never raises, because a step has the answers of others in it: what goes wrong ends this answer
    and is told by `failure`.
    """

    def __init__(
        self, words: Any, matcher: Any, stop_ids: frozenset[int], thought: _Thought | None
    ) -> None:
        self._words = words
        self._unused = matcher
        self._matcher = matcher.deep_copy()
        self._stop_ids = sorted(stop_ids)
        self._thought = thought
        self._unbegun = thought and thought.copy()
        self._prompt_tokens: int | None = None
        self._taken: list[int] = []
        self._consumed = 0
        self._failure: str | None = None

    @property
    def failure(self) -> str | None:
        """Why the answer was ended, if not by its form."""
        return self._failure

    def copy(self) -> Mask:
        """The same for another answer to the same prompt, before the first token."""
        assert self._prompt_tokens is None
        thought = self._thought and self._thought.copy()
        return Mask(self._words, self._unused, frozenset(self._stop_ids), thought)

    def __call__(self, tokens: Any, logits: Any) -> Any:
        """`tokens` are all ids so far, the prompt's too; `logits` is [1, vocabulary].

        Where a draft guesses tokens, some are taken back: `tokens` may be fewer than before.
        """
        mx = library.load("mlx.core")
        if self._prompt_tokens is None:
            self._prompt_tokens = tokens.size
            mx.async_eval(logits)
        else:
            known = len(self._taken) if tokens.size > self._end else 0
            new = tokens[self._prompt_tokens + known :]
            # In this order: the tokens are there already, and the step is computed while they are
            # looked at.
            mx.async_eval(new)
            mx.async_eval(logits)
            self._take(known, new.tolist())
        allowed = self._allowed(logits.shape[-1])
        return mx.where(mx.array(allowed), logits, mx.array(-float("inf"), logits.dtype))

    @property
    def _end(self) -> int:
        assert self._prompt_tokens is not None
        return self._prompt_tokens + len(self._taken)

    def _take(self, known: int, tokens: list[int]) -> None:
        """The answer goes on with `tokens` after its first `known` ones."""
        tokens = self._taken[:known] + tokens
        same = next(
            (
                n
                for n, (old, new) in enumerate(zip(self._taken, tokens, strict=False))
                if old != new
            ),
            min(len(self._taken), len(tokens)),
        )
        if same < len(self._taken):
            self._take_back(len(self._taken) - same)
        for token in tokens[len(self._taken) :]:
            self._taken.append(token)
            self._accept(token)

    def _take_back(self, count: int) -> None:
        """The last tokens were guesses. If they do not all belong to the form, it begins anew."""
        whole = self._thought is None and not self._failure and self._consumed >= count
        if whole and self._matcher.rollback(count):
            self._consumed -= count
            del self._taken[-count:]
            return
        kept, self._taken = self._taken[:-count], []
        # One that has met an error never leaves it.
        self._matcher = self._unused.deep_copy()
        self._thought = self._unbegun and self._unbegun.copy()
        self._consumed, self._failure = 0, None
        self._take(0, kept)

    def _accept(self, token: int) -> None:
        if self._thought is not None:
            fits = bool(self._matcher.validate_tokens([token]))
            if self._thought.takes(token, self._words.decode_bytes([token]), fits=fits):
                self._end_thought()
                return
            self._thought = None
        if self._matcher.is_stopped():
            # What comes after the end counts for nothing, and cannot be rolled back alone.
            self._consumed = 0
        elif self._matcher.consume_token(token):
            self._consumed += 1
        else:
            self._fail()

    def _end_thought(self) -> None:
        assert self._thought is not None
        rest = self._thought.rest
        if rest is None:
            return
        self._thought = None
        ids = self._words.tokenize_bytes(rest)
        if self._matcher.try_consume_tokens(ids) < len(ids):
            # Words in the token that ended the thought: they stand before the answer.
            self._matcher = self._unused.deep_copy()

    def _allowed(self, size: int) -> Any:
        """One bool per logit."""
        np = library.load("numpy")
        allowed = np.zeros(size, bool)
        thought = self._thought
        if thought is not None and thought.inside:
            # An answer that ends within a thought has no form.
            allowed[:] = True
            allowed[self._stop_ids] = thought.may_end
            return allowed
        if thought is not None and thought.opening:
            allowed[thought.next] = True
            return allowed
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        known = np.unpackbits(bits, bitorder="little")[: min(size, self._words.vocab_size)]
        allowed[: known.size] = known
        if self._matcher.is_error():
            self._fail()
        if thought is not None:
            allowed[thought.next] = True
        if self._failure or not allowed.any():
            self._failure = self._failure or "no token of the model goes on with it"
            allowed[:] = False
            allowed[self._stop_ids] = True
        return allowed

    def _fail(self) -> None:
        self._failure = self._failure or first_line(self._matcher.get_error())


class _Thought:
    """What comes before an answer: a text between two markers, or nothing.

    The first marker is known by its ids `start`, the second one by its text, wherever the borders
    of tokens lie. `rest` is what the last token had after it; None while there is no end.
    """

    def __init__(
        self, start: tuple[int, ...], end: bytes, *, inside: bool, may_end: bool = False
    ) -> None:
        self._start = start
        self._end = end
        self._begun = 0
        self._tail = b""
        self.inside = inside
        self.may_end = may_end
        self.rest: bytes | None = None

    @property
    def opening(self) -> bool:
        """In the middle of the first marker."""
        return 0 < self._begun < len(self._start)

    @property
    def next(self) -> list[int]:
        """The token with which the first marker goes on."""
        return list(self._start[self._begun : self._begun + 1])

    def takes(self, token: int, text: bytes, *, fits: bool) -> bool:
        """Whether the token belongs to the thought; `fits`: the answer may go on with it, too."""
        if self.inside:
            self._read(text)
            return True
        # Of a marker of several tokens, the first may be the answer's as well.
        doubtful = fits and len(self._start) > 1 and not self._begun
        if token not in self.next or doubtful:
            return False
        self._begun += 1
        self.inside = self._begun == len(self._start)
        return True

    def _read(self, text: bytes) -> None:
        self._tail += text
        place = self._tail.find(self._end)
        if place >= 0:
            self.rest = self._tail[place + len(self._end) :]
        self._tail = self._tail[-len(self._end) :]

    def copy(self) -> _Thought:
        return _Thought(self._start, self._end, inside=self.inside, may_end=self.may_end)
