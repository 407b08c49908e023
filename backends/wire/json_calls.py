"""Calls whose arguments a model writes as a JSON object: Hermes, Mistral, Llama 3, DeepSeek."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from backends.wire.calls import (
    CallEvent,
    OpenCall,
    ToolFormat,
    Tools,
    WholeCalls,
    calls_of,
    names_of,
)
from backends.wire.expected import SPACE, Expected, Run
from backends.wire.json_object import ObjectScanner

NAME = Run(r'(?P<name>[^\s"\\<>\[\]{}|｜]{1,256})')
ID = Run(r"[\w-]{1,64}")
OBJECT = Run(r"(?=\{)")


@dataclass(frozen=True, slots=True)
class Shape:
    """What stands before a call's arguments and, unless it is nothing, behind them.

    If `declared`, it is a call only by the name of a declared tool.
    """

    head: Expected
    tails: tuple[Expected, ...] = ()
    declared: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """Calls of these shapes: one, or `many` with perhaps `close` behind them.

    What is no such call is read up to `end`, the answer's if empty, and parsed as a whole; if
    `end` is None, it is text.
    """

    shapes: tuple[Shape, ...]
    many: bool = False
    close: Expected | None = None
    end: str | None = None


class JsonCalls(WholeCalls):
    """Calls of the tools called `names` are told as they come, others at their end."""

    def __init__(self, marker: str, block: Block, names: frozenset[str]) -> None:
        super().__init__(marker, block.end or "", json.loads)
        self._block = block
        self._names = names
        self._call: OpenCall | None = None
        self._first = True

    def _begin(self) -> Iterator[CallEvent]:
        for shape in self._block.shapes:
            match = shape.head.match(self.held)
            if match and (match["name"] in self._names or not shape.declared):
                self._take(match.end())
                yield from self._opened(shape, match["name"])
                return
        if not any(shape.head.possible(self.held) for shape in self._block.shapes):
            yield from self._otherwise()

    def _opened(self, shape: Shape, name: str) -> Iterator[CallEvent]:
        self._tails = shape.tails
        self._scanner = ObjectScanner()
        self._call = OpenCall(name, told=name in self._names)
        self._step = self._object
        yield from self._call.start()

    def _otherwise(self) -> Iterator[CallEvent]:
        """No call begins here as it usually does."""
        if not self._first:
            self._step = self._behind
        elif self._may_be_calls():
            self._step = self._whole
        else:
            yield from self._text()

    def _may_be_calls(self) -> bool:
        return self._block.end is not None and self.held.lstrip()[:1] in ("{", "[")

    def _object(self) -> Iterator[CallEvent]:
        assert self._call is not None
        piece = self._take(self._scanner.add(self.held))
        ended = self._scanner.ended
        yield from self._call.add(piece[:-1] if ended else piece)
        if self._scanner.broken or (ended and not self._call.is_object()):
            yield from self._broken()
        elif ended:
            self._step = self._tail

    def _tail(self) -> Iterator[CallEvent]:
        match = next((m for tail in self._tails if (m := tail.match(self.held))), None)
        if match or not self._tails:
            self._take(match.end() if match else 0)
            yield from self._ended()
        elif not any(tail.possible(self.held) for tail in self._tails):
            if self._block.end:
                self._step = self._whole
            else:
                yield from self._broken()

    def _ended(self) -> Iterator[CallEvent]:
        assert self._call is not None
        yield from self._call.end("}")
        self._call = None
        self._written.clear()
        self._first = False
        self.over = not self._block.many
        self._step = self._begin

    def _broken(self) -> Iterator[CallEvent]:
        assert self._call is not None
        self.over = True
        yield from self._call.broken("".join(self._written))

    def _behind(self) -> Iterator[CallEvent]:
        """After the last call."""
        close = self._block.close
        match = close.match(self.held) if close else None
        if match:
            self.held = self.held[match.end() :]
        self.over = match is not None or not (close and close.possible(self.held))
        yield from ()

    def _parsed(self, inner: str) -> Iterator[CallEvent]:
        """Not as it usually is: other keys, another order, a list."""
        if self._call is None:
            yield from super()._parsed(inner)
        elif self._confirms(inner):
            yield from self._ended()
        else:
            yield from self._broken()

    def _confirms(self, inner: str) -> bool:
        """Whether the whole is the call that was told of."""
        assert self._call is not None
        try:
            ((name, arguments),) = calls_of(json.loads(inner))
        except Exception:
            return False
        told = json.loads(self._call.arguments + "}")
        return bool(name == self._call.name and json.loads(arguments) == told)

    def finish(self) -> Iterator[CallEvent]:
        if self._may_be_whole():
            yield from super().finish()
            return
        self._take(len(self.held))
        if self._call:
            yield from self._broken()
        elif self._first or "".join(self._written).strip():
            yield from self._text()

    def _may_be_whole(self) -> bool:
        if not self._first or self._block.end is None:
            return False
        return self._step in (self._tail, self._whole) or (
            self._step == self._begin and self._may_be_calls()
        )


def _named(key: str, *first: str | Run, opening: str | Run = "") -> Expected:
    """`{"name": "f", "arguments": ` where `key` is what the arguments are called."""
    colon = (SPACE, ":", SPACE)
    name = ('"name"', *colon, '"', NAME, '"', SPACE, ",", SPACE)
    return Expected(SPACE, opening, "{", SPACE, *first, *name, f'"{key}"', *colon, OBJECT)


KEYS = ("arguments", "parameters")
BRACE = Expected(SPACE, "}")
BRACE_AFTER_ID = Expected(SPACE, ",", SPACE, '"id"', SPACE, ":", SPACE, '"', ID, '"', SPACE, "}")
TYPE = ('"type"', SPACE, ":", SPACE, '"function"', SPACE, ",", SPACE)

HERMES_END = "</tool_call>"
HERMES = Block(
    tuple(Shape(_named(key), (Expected(SPACE, "}", SPACE, HERMES_END),)) for key in KEYS),
    end=HERMES_END,
)

MISTRAL = Block(
    (
        Shape(_named("arguments", opening=Run(r"(?:[\[,]\s{0,64})?")), (BRACE, BRACE_AFTER_ID)),
        Shape(Expected(SPACE, NAME, SPACE, "[ARGS]", SPACE, OBJECT)),
        Shape(Expected(SPACE, NAME, "[CALL_ID]", ID, "[ARGS]", SPACE, OBJECT)),
        Shape(Expected(SPACE, NAME, SPACE, OBJECT), declared=True),
    ),
    many=True,
    close=Expected(SPACE, "]"),
    end="",
)

LLAMA3 = Block(
    tuple(
        Shape(_named(key, *first, opening=Run(r"(?:[;,]\s{0,64})?")), (BRACE,), declared=True)
        for key in KEYS
        for first in ((), TYPE)
    ),
    many=True,
)
"""Two calls may have `;` between them. An answer that is JSON is not taken for a call, unless it
names a declared tool."""

SEPARATOR, DEEPSEEK_END = "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
DEEPSEEK = Block(
    (
        # V3.1, and V3 with R1.
        Shape(
            Expected(SPACE, NAME, SPACE, SEPARATOR, SPACE, OBJECT),
            (Expected(SPACE, DEEPSEEK_END),),
        ),
        Shape(
            Expected("function", SEPARATOR, SPACE, NAME, SPACE, "```json", SPACE, OBJECT),
            (Expected(SPACE, "```", SPACE, DEEPSEEK_END),),
        ),
    )
)


def _format(
    tools: Tools,
    block: Block,
    *starts: str,
    silent: tuple[str, ...] = (),
    bare: bool = False,
) -> ToolFormat:
    names = names_of(tools)
    return ToolFormat(starts, lambda marker: JsonCalls(marker, block, names), silent, bare)


def hermes(tools: Tools) -> ToolFormat:
    """`<tool_call>{"name": "f", "arguments": {}}</tool_call>`; Qwen 2.5 and 3, and many others."""
    return _format(tools, HERMES, "<tool_call>")


def mistral(tools: Tools) -> ToolFormat:
    """`[TOOL_CALLS][{"name": "f", "arguments": {}}]`, later `[TOOL_CALLS]f[ARGS]{}`."""
    return _format(tools, MISTRAL, "[TOOL_CALLS]")


def llama3(tools: Tools) -> ToolFormat:
    """`{"name": "f", "parameters": {}}` and nothing else, or after `<|python_tag|>`."""
    return _format(tools, LLAMA3, "<|python_tag|>", bare=True)


def deepseek(tools: Tools) -> ToolFormat:
    """`<｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜>`; V3 and R1 with a code fence."""
    silent = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
    return _format(tools, DEEPSEEK, "<｜tool▁call▁begin｜>", silent=silent)
