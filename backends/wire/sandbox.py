"""Chat templates are programs of strangers: they run here, with bounds in time and size."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from types import CodeType
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

RENDER_SECONDS = 2.0
"""Real templates take milliseconds."""

MAX_CHARACTERS = 16 * 2**20
"""Of a text that a template makes: more than any context holds."""

MAX_ITEMS = 2**20
"""Of a list that a template makes."""

MAX_BITS = 2**12
"""Of a number: the machine's arithmetic with larger ones cannot be interrupted."""

PASSES, JOINED = "passes of a loop", "joined texts"
"""Filters of ours, under names that no template can write."""


def render(source: str, values: Mapping[str, Any]) -> str:
    """What the template `source` writes.

    Raises:
        Exception: of any kind, because what a template does is what its author wanted.
    """
    code, sandbox = _compiled(source), _Sandbox()
    template = sandbox.template_class.from_code(sandbox, code, sandbox.make_globals(None))
    return template.render(values)


@lru_cache(maxsize=64)
def _compiled(source: str) -> CodeType:
    return _Sandbox().compile(source)


class _Sandbox(ImmutableSandboxedEnvironment):
    """For one rendering: every pass of a loop and every call looks at the clock."""

    intercepted_binops = frozenset(("+", "*", "**"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        self._deadline = time.monotonic() + RENDER_SECONDS
        self.filters |= {"tojson": _to_json, PASSES: self._passes, JOINED: self._joined}
        self.globals |= {"raise_exception": _refuse, "strftime_now": _now}
        # Any number of paragraphs, made without a look at the clock.
        del self.globals["lipsum"]

    def call(self, context: Context, function: Any, /, *args: Any, **named: Any) -> Any:
        self._check_time()
        return super().call(context, function, *args, **named)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if _is_too_large(operator, left, right):
            _refuse(f"the result of `{operator}` would be too large")
        return super().call_binop(context, operator, left, right)

    def concat(self, parts: Iterable[str]) -> str:
        """How jinja2 joins the output of a template, a macro or a block."""
        kept: list[str] = []
        length = 0
        for part in parts:
            kept.append(part)
            length += len(part)
            if length > MAX_CHARACTERS:
                _refuse(f"it writes more than {MAX_CHARACTERS} characters")
        return "".join(kept)

    def _generate(self, source: nodes.Template, *args: Any, **named: Any) -> str:
        return super()._generate(_Bounding().visit(source), *args, **named)

    def _passes(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self._check_time()
            yield item

    def _joined(self, parts: Iterable[Any]) -> str:
        return self.concat(str_join((part,)) for part in parts)

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            _refuse(f"it takes longer than {RENDER_SECONDS:g} s")


class _Bounding(NodeTransformer):
    """Puts our filters into a template: around what is looped over, and in place of `~`."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - jinja2's names
        self.generic_visit(node)
        node.iter = _filtered(node.iter, PASSES)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), JOINED)


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _is_too_large(operator: str, left: Any, right: Any) -> bool:
    match operator, left, right:
        case "**", int(), int():
            return left.bit_length() * right > MAX_BITS
        case "*", int(), int():
            return left.bit_length() + right.bit_length() > MAX_BITS
        case "*", int(), _:
            return left * _share(right) > 1
        case "*", _, int():
            return _share(left) * right > 1
    return _share(left) + _share(right) > 1


def _share(value: Any) -> float:
    """What `value` takes of the length that its kind may have; 0 if it has none."""
    match value:
        case str() | bytes():
            return len(value) / MAX_CHARACTERS
        case list() | tuple():
            return len(value) / MAX_ITEMS
    return 0


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}` marks answers for training; here it is nothing."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """Unlike jinja2's own, without escapes for HTML and for letters beyond ASCII."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.datetime.now().strftime(pattern)
