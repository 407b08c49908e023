"""Where in a prompt its state is worth keeping, for models whose state cannot be trimmed. Pure.

Such a state helps only a prompt that begins with all that it has read. What later prompts will have
in common with this one depends on the template: some drop the thoughts of earlier turns, some add
words after the last message. So likely later prompts are rendered, and compared with this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import Any

from backends.mlx.prefix_cache import common_prefix, common_start, pack

Message = dict[str, Any]
Render = Callable[[Sequence[Message]], str]
Encode = Callable[[str], list[int]]

EVERY_TOKENS = 8192
"""Distance of those in a long prompt, which a retry or another branch goes on from."""

_LATER = "\N{LATIN SMALL LETTER O WITH STROKE}"
"""A word that no conversation begins its next message with."""


def checkpoints(
    messages: Sequence[Message], text: str, ids: Sequence[int], render: Render, encode: Encode
) -> tuple[int, ...]:
    """Lengths in tokens of beginnings of `ids`, which is `text`, which is `messages` rendered."""
    ends = {*range(EVERY_TOKENS, len(ids), EVERY_TOKENS), len(ids) - 1}
    packed = pack(ids)
    for later in _later_requests(messages):
        try:
            shared = common_start(text, render(later))
        except Exception:
            continue
        ends.add(common_prefix(packed, pack(encode(text[:shared]))))
    return tuple(sorted(end for end in ends if 0 < end < len(ids)))


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
