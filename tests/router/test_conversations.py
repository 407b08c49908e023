from __future__ import annotations

import pytest

from router.api.conversations import Conversation, Conversations
from router.errors import UnknownResponseError


def said(identity: str, nbytes: int = 1) -> Conversation:
    return Conversation({"id": identity}, ({"role": "user"},), nbytes)


def kept(conversations: Conversations, *names: str) -> str:
    """Those that are still there, without touching their order."""
    return "".join(name for name in names if name in conversations._kept)


def test_a_response_is_found_until_it_is_forgotten() -> None:
    conversations = Conversations()
    conversations.keep(said("a"))
    assert conversations.find("a").response == {"id": "a"}
    conversations.forget("a")
    for call in (conversations.find, conversations.forget):
        with pytest.raises(UnknownResponseError, match="no response 'a'"):
            call("a")


def test_what_was_used_last_is_kept() -> None:
    conversations = Conversations(max_count=2)
    conversations.keep(said("a"))
    conversations.keep(said("b"))
    conversations.find("a")
    conversations.keep(said("c"))
    assert kept(conversations, "a", "b", "c") == "ac"


def test_bytes_are_bounded_and_given_back() -> None:
    conversations = Conversations(max_bytes=10)
    conversations.keep(said("a", 6))
    conversations.keep(said("b", 4))
    assert kept(conversations, "a", "b") == "ab"
    conversations.forget("a")
    conversations.keep(said("c", 6))
    assert kept(conversations, "b", "c") == "bc"
    conversations.keep(said("d", 5))
    assert kept(conversations, "b", "c", "d") == "d"


def test_what_is_larger_than_all_may_be_is_not_kept() -> None:
    conversations = Conversations(max_bytes=10)
    conversations.keep(said("a", 11))
    assert kept(conversations, "a") == ""
    conversations.keep(said("b", 10))
    assert kept(conversations, "b") == "b"
