"""Where in a prompt its state is worth keeping, for models whose state cannot be trimmed. Pure.

Such a state helps only a prompt that begins with all that it has read. What later prompts will have
in common with this one depends on the template: some drop the thoughts of earlier turns, some add
words after the last message. So likely later prompts are rendered, and compared with this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

from backends.mlx.prefix_cache import common_prefix, common_start, pack

Message = dict[str, Any]
Render = Callable[[Sequence[Message]], str]
Encode = Callable[[str], list[int]]

Marks = Mapping[str, int]
"""Texts that are one token wherever they stand, whatever is around them: `<|im_start|>`."""

EVERY_TOKENS = 8192
"""Distance of those in a long prompt, which a retry or another branch goes on from."""

NEAR_TOKENS = 32
"""Of those that are closer only the first is one: each takes a step of its own and a copy of the
state, and to read so few tokens again takes no more than that."""

_LATER = "\N{LATIN SMALL LETTER O WITH STROKE}"
"""A word that no conversation begins its next message with."""


def checkpoints(
    messages: Sequence[Message],
    text: str,
    ids: Sequence[int],
    render: Render,
    encode: Encode,
    marks: Marks,
) -> tuple[int, ...]:
    """Lengths in tokens of beginnings of `ids`, which is `text`, which is `messages` rendered."""
    ends = {*range(EVERY_TOKENS, len(ids), EVERY_TOKENS), len(ids) - 1}
    for later in _later_requests(messages):
        try:
            shared = common_start(text, render(later))
        except Exception:
            continue
        ends.add(_kept(text, shared, ids, encode, marks))
    return tuple(_apart(sorted(end for end in ends if 0 < end < len(ids))))


def _apart(ends: Sequence[int]) -> Iterator[int]:
    latest = -NEAR_TOKENS
    for end in ends:
        if end - latest >= NEAR_TOKENS:
            latest = end
            yield end


def _kept(text: str, shared: int, ids: Sequence[int], encode: Encode, marks: Marks) -> int:
    """How many of the `ids` of `text` its beginning of `shared` characters has, too.

    What stands before a mark is encoded without a look at what follows it: only what comes after
    the last one is encoded once more, instead of all of a long prompt.
    """
    at, index = _last_mark(text, shared, ids, marks)
    again = encode(text[at:shared])
    return index + common_prefix(pack(ids[index : index + len(again)]), pack(again))


def _last_mark(text: str, shared: int, ids: Sequence[int], marks: Marks) -> tuple[int, int]:
    """Where the last one begins in the text, and in `ids`; the beginning where there is none."""
    at, mark = max(((text.rfind(mark, 0, shared), mark) for mark in marks), default=(-1, ""))
    if at < 0:
        return 0, 0
    index = -1
    try:
        for _ in range(text.count(mark, 0, at) + 1):
            index = ids.index(marks[mark], index + 1)
    except ValueError:
        return 0, 0
    return at, index


def _later_requests(messages: Sequence[Message]) -> Iterator[list[Message]]:
    system = list(takewhile(lambda message: message["role"] == "system", messages))
    user = {"role": "user", "content": _LATER}
    function = {"name": _LATER, "arguments": {}}
    call = {"id": _LATER, "type": "function", "function": function}
    yield [*system, user]
    yield [*messages, {"role": "assistant", "content": _LATER}, user]
    yield [
        *messages,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": _LATER, "tool_call_id": _LATER, "name": _LATER},
    ]
