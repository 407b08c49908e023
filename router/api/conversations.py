"""Responses that later requests may refer to: in memory, bounded, and gone with the daemon."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from router.errors import UnknownResponseError

Json = dict[str, Any]

MAX_RESPONSES = 1000
MAX_BYTES = 128 * 2**20


@dataclass(frozen=True, slots=True)
class Conversation:
    """All that was said up to a response and in it. `nbytes` is about what it takes as JSON;
    what it shares with earlier ones counts again."""

    response: Json
    items: tuple[Json, ...]
    nbytes: int


class Conversations:
    """By the id of their last response; those that were used last are kept. Each has its whole past
    with it: no chain of ids can break or run in a circle. Requests are read in threads."""

    def __init__(self, max_count: int = MAX_RESPONSES, max_bytes: int = MAX_BYTES) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._nbytes = 0
        self._kept: OrderedDict[str, Conversation] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, conversation: Conversation) -> None:
        """One that is larger than all may be together is not kept."""
        with self._lock:
            self._kept[conversation.response["id"]] = conversation
            self._nbytes += conversation.nbytes
            while len(self._kept) > self._max_count or self._nbytes > self._max_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._nbytes -= oldest.nbytes

    def find(self, identity: str) -> Conversation:
        """
        Raises:
            UnknownResponseError: there is none, or it has had to make room.
        """
        with self._lock:
            found = self._kept.get(identity)
            if found is None:
                raise _unknown(identity)
            self._kept.move_to_end(identity)
            return found

    def forget(self, identity: str) -> None:
        """Raises as `find` does."""
        with self._lock:
            found = self._kept.pop(identity, None)
            if found is None:
                raise _unknown(identity)
            self._nbytes -= found.nbytes


def _unknown(identity: str) -> UnknownResponseError:
    return UnknownResponseError(
        f"There is no response {identity[:100]!r}: it was deleted, was not to be stored, had to "
        "make room for later ones, or the daemon was restarted since. Send the whole conversation."
    )
