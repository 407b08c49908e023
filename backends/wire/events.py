"""What a generation tells, one piece at a time, whichever engine runs it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A call begins. Its arguments follow, and no text before its end."""

    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArguments:
    """A piece of the JSON object that the call which began last is made with.

    The pieces of a call together are JSON once it has ended well, and never before: nobody can
    take a call that was cut off, `rm -rf /` of `rm -rf /tmp/x`, for a whole one.
    """

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallBroken:
    """What began as a call is none. `text` is all that the model wrote of it.

    Where answers are added up, the call is taken back and the text stands in its place. A stream
    cannot take it back: its arguments stay unfinished, and the text follows.
    """

    text: str


@dataclass(frozen=True, slots=True)
class Spelling:
    """A token as text, as the bytes that it stands for, and the natural logarithm of its
    probability."""

    text: str
    bytes: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLikelihood:
    """Of one generated token, with the likeliest ones in its place; told before its text, which may
    still be held back."""

    token: Spelling
    top: tuple[Spelling, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event. `reason` is `stop`, `length` or `tool_calls`; `met` is the stop string that
    was the reason, where the engine tells."""

    reason: str
    usage: Usage
    met: str = ""


ToolCallEvent = ToolCallStart | ToolCallArguments | ToolCallBroken
Event = TextDelta | ReasoningDelta | ToolCallEvent | TokenLikelihood | Finished


@dataclass(frozen=True, slots=True)
class Choice:
    """An event of one of several answers to one request."""

    index: int
    event: Event
