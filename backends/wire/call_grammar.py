"""How models write calls of tools, as rules in Lark's notation. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from backends.errors import BadRequestError
from backends.wire.call_bodies import Body, json_head
from backends.wire.constraint import Calls
from backends.wire.lark import Vocabulary, quoted

SHARED_RULES = ("SPACE: / ?/", "GAP: /\\n?/", 'NEWLINE: "\\n"')
"""Within a line, around what a marker encloses, and where a line has to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFormat:
    """How calls are written: markers around all of them (`opening`, `closing`) and around each
    (`start`, `end`), each of which may be empty.

    Where there is no `body`, the rest of a call is free behind its `head`, which is known as far
    as it has `{name}`. `listed` calls are one JSON list; `separator` stands between two calls, of
    which `single` ones have none. `bare` is the key of the arguments of calls that are JSON objects
    without a marker. `preface` is what may stand before the first, as a rule.
    """

    body: Body | None = None
    head: str = ""
    start: str = ""
    end: str = ""
    opening: str = ""
    closing: str = ""
    separator: str = ""
    listed: bool = False
    single: bool = False
    bare: str = ""
    preface: Callable[[Vocabulary], str] | None = None


def call_rules(calls: Calls, written: CallFormat, words: Vocabulary) -> str:
    """The rule `calls`, and `free`: text in which no call begins, and then perhaps calls.

    Raises:
        BadRequestError: one function is demanded, and nobody knows where its name would stand.
    """
    if written.body is None and not written.head and calls.named:
        raise BadRequestError(
            "This model writes calls in a way that cannot be bound to one function; leave "
            "`tool_choice` to `required`.",
            param=calls.param,
        )
    rules = _Rules(written, calls, words)
    return "\n".join((*rules.around(), *rules.free(), *rules.begun(), *SHARED_RULES))


@dataclass(frozen=True, slots=True)
class _Rules:
    """`behind` are all calls without the marker that they begin with, `begun` is one."""

    format: CallFormat
    calls: Calls
    words: Vocabulary

    def around(self) -> Iterator[str]:
        written = self.format
        if written.preface:
            yield f"preface: {written.preface(self.words)}"
        yield f"calls: {'preface' if written.preface else ''} {self.words.mark(self._first)} behind"
        yield f"call: {self.words.mark(written.start)} begun"
        inner = f"{'call' if written.opening else 'begun'} {self._more()}"
        if written.listed:
            inner = f'"[" SPACE {inner} SPACE "]"'
        closing = f"GAP {self.words.mark(written.closing)}" if written.closing else ""
        yield f"behind: {inner} {closing}"

    @property
    def _first(self) -> str:
        return self.format.opening or self.format.start

    def _more(self) -> str:
        if self.format.single or not self.calls.several:
            return ""
        separator = self.format.separator
        return f"({f'SPACE {quoted(separator)} SPACE' if separator else 'GAP'} call)*"

    def free(self) -> Iterator[str]:
        written = self.format
        if written.preface:
            # Who writes a preface does not write free text around it.
            return
        if written.bare:
            yield from self._bare()
        elif self.words.token(self._first) is not None:
            known = (self.words.token(text) for text in (written.opening, written.start) if text)
            begins = (token for token in known if token is not None)
            yield f"free: {self.words.any_but(*begins)}* calls?"
        else:
            yield "free: /(?s:.*)/ | lead behind"
            yield f"lead[suffix={quoted(self._first)}]: /(?s:.*)/"

    def _bare(self) -> Iterator[str]:
        """A text does not begin like a call, however it is spaced. Of two terminals the one that
        goes on wins, so that all up to a call's arguments is one as well."""
        key, functions = self.format.bare, self.calls.functions
        heads = [f"HEAD_{i}" for i in range(len(functions))]
        calls = (f'{head} body_{i}_arguments SPACE "}}"' for i, head in enumerate(heads))
        yield f"free: {' | '.join(calls)} | PLAIN"
        for head, function in zip(heads, functions, strict=True):
            yield f"{head}: {json_head(function, key)}"
        names = " | ".join(quoted(quoted(function.name)) for function in functions)
        kind = _spaced('"type"', ":", '"function"', ",")
        name = _spaced('"name"', ":")
        yield f"CALL: {_spaced('{')} ({kind})? {name} ({names})"
        yield "PLAIN: /(?s:.*)/ & ~(/\\s*/ CALL /(?s:.*)/)"

    def begun(self) -> Iterator[str]:
        if self.format.body is None:
            yield from self._opened()
            return
        functions = self.calls.functions
        names = [f"body_{i}" for i in range(len(functions))]
        yield f"begun: ({' | '.join(names)}) {self.words.mark(self.format.end)}"
        for name, function in zip(names, functions, strict=True):
            yield from self.format.body(name, function, self.words)

    def _opened(self) -> Iterator[str]:
        """Calls of which only the beginning is known; the rest is the model's."""
        head, end = self.format.head, self.format.end
        heads = [quoted(head.format(name=f.name)) for f in self.calls.functions] if head else ['""']
        rest = f"{self.words.any_but()}*"
        if end:
            rest, rule = self.words.up_to(end, "rest")
            yield rule
        yield f"begun: GAP ({' | '.join(heads)}) {rest}"


def _spaced(*parts: str) -> str:
    """With any white space behind each."""
    return " ".join(f"{quoted(part)} /\\s*/" for part in parts)
