"""The form of an answer as a document for llguidance, whichever engine has that in it."""

from __future__ import annotations

import json
from typing import Any

from backends.errors import BadRequestError
from backends.wire.call_grammar import CallFormat, call_rules
from backends.wire.constraint import Constraint, Grammar
from backends.wire.gbnf import convertible
from backends.wire.lark import Vocabulary, document

NO_TEXT = "NoExtension"
"""How llguidance says that nothing can be written, or nothing more."""


def form(
    constraint: Constraint,
    calls: CallFormat | None,
    words: Vocabulary,
    *,
    before: str = "",
    behind: str = "",
    rules: str = "",
) -> str:
    """`calls` is how the model writes them, None if it does not. `before` and `behind` are parts of
    rules that stand around all of the answer but a call's own preface; they may need `rules`.

    Raises:
        BadRequestError: the grammar is wrong, or this model cannot be bound to it.
    """
    lines, choices, named = [rules], [], {}
    if constraint.answer is not None:
        choices.append(f"{before} @answer")
        named["answer"] = _compilable(constraint.answer, words)
    if constraint.calls is not None and calls is not None:
        lines.append(call_rules(constraint.calls, calls, words))
        rule = "calls" if choices or constraint.calls.required else "free"
        choices.append(rule if calls.preface else f"{before} {rule}")
    elif constraint.calls is not None and constraint.calls.required:
        raise BadRequestError(
            "This model cannot be made to call a tool: no grammar is known for its calls. "
            "Leave `tool_choice` to `auto`.",
            param=constraint.calls.param,
        )
    return document("\n".join((f"start: ({' | '.join(choices)}) {behind}", *lines)), **named)


def _compilable(grammar: Grammar, words: Vocabulary) -> dict[str, Any]:
    """As one of the grammars of llguidance's documents."""
    match grammar.kind:
        case "json_schema":
            return {"json_schema": words.schema(grammar)}
        case "regex":
            return {"lark_grammar": _lark_of_regex(grammar.source)}
        case "gbnf":
            return {"lark_grammar": _lark_of_gbnf(grammar)}
    return {"lark_grammar": grammar.source}


def _lark_of_regex(source: str) -> str:
    from llguidance import LLMatcher

    text: str = json.loads(LLMatcher.grammar_from_regex(source))["grammars"][0]["lark_grammar"]
    return text


def _lark_of_gbnf(grammar: Grammar) -> str:
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        text: str = gbnf_to_lark(convertible(grammar.source))
    except RecursionError:
        raise refused(grammar.param, "it is nested too deeply") from None
    except Exception as error:
        # The converter raises whatever its reading of the text runs into.
        raise refused(grammar.param, f"it is no GBNF: {error}") from None
    return text


def param_of(constraint: Constraint) -> str:
    """The field of the request that asked for the form."""
    if constraint.answer is not None:
        return constraint.answer.param
    assert constraint.calls is not None
    return constraint.calls.param


def refused(param: str, why: str) -> BadRequestError:
    """`why` in llguidance's words."""
    if not why or why.startswith(NO_TEXT):
        why = "no text has this form."
    return BadRequestError(f"`{param}` cannot be enforced: {first_line(why)}", param=param)


def first_line(text: str) -> str:
    """llguidance's own words, without the state of its parser."""
    return text.partition("\n")[0].strip()[:500]
