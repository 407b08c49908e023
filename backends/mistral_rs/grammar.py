"""Answers of a demanded form, by the llguidance that mistral.rs has in it.

It holds an answer to its grammar from the first token on. So thoughts are a part of the grammar
here, and so is the token that ends the answer: of a model's own, llguidance may know another one.
"""

from __future__ import annotations

from collections.abc import Callable

from backends.wire.answer_parser import ReasoningFormat
from backends.wire.call_bodies import harmony_preface
from backends.wire.dialect import Dialect
from backends.wire.form import form
from backends.wire.lark import LEAD, ONE_LINE, Vocabulary
from backends.wire.request import GenerationRequest

FAILURES = ("Invalid grammar", "NoExtension", "Parser Error")
"""How it says that a grammar is wrong, that no text has this form, and that it grew too large."""


class Grammars:
    """One model's. `encode` turns text into ids without adding any."""

    def __init__(
        self, dialect: Dialect, encode: Callable[[str], list[int]], stop_ids: frozenset[int]
    ) -> None:
        self._dialect = dialect
        self._encode = encode
        self._words = Vocabulary(self._token, stop_ids, ONE_LINE)

    def text(self, request: GenerationRequest, prompt_end: str) -> str | None:
        """A grammar of the kind `llguidance`; None if the request demands no form.

        Raises:
            BadRequestError: the form is wrong, or cannot be enforced on this model.
        """
        demanded = self._dialect.demanded(request)
        if demanded is None:
            return None
        if demanded.answer:
            # A call in its place is exempt from the form, and is in none if it is not in this one.
            demanded = request.constraint or demanded
        before, rule = self._before(request, prompt_end)
        ends = " | ".join(f"<[{token}]>" for token in sorted(self._words.stop_ids))
        return form(
            demanded,
            self._dialect.written,
            self._words,
            before=before,
            behind=f"({ends})" if ends else "",
            rules=rule,
        )

    def _before(self, request: GenerationRequest, prompt_end: str) -> tuple[str, str]:
        """The part of a rule for a thought, and the rule that it may need."""
        if not request.chat:
            return "", ""
        if self._dialect.harmony:
            return self._harmony_thought(), ""
        reasoning = self._dialect.reasoning
        if reasoning is None or prompt_end.rstrip().endswith(reasoning.end):
            return "", ""
        return self._thought(reasoning, prompt_end.rstrip().endswith(reasoning.start))

    def _thought(self, reasoning: ReasoningFormat, opened: bool) -> tuple[str, str]:
        inner, rule = self._words.up_to(reasoning.end, "thought")
        if opened:
            return f"{inner} {LEAD}", rule
        return f"({self._words.mark(reasoning.start)} {inner})? {LEAD}", rule

    def _harmony_thought(self) -> str:
        words = self._words
        final = f'{words.mark("<|channel|>")} "final" {words.mark("<|message|>")}'
        return f"{harmony_preface(words)} {final}"

    def _token(self, text: str) -> int | None:
        ids = self._encode(text)
        return ids[0] if len(ids) == 1 else None


def reason(error: BaseException) -> str | None:
    """What the engine has against a grammar; None if this is about something else."""
    words = str(error)
    if not words.startswith(FAILURES):
        return None
    return words.removeprefix("Invalid grammar.").strip()
