from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.mlx.checkpoints import NEAR_TOKENS, Marks, checkpoints
from backends.mlx.model import Text
from tests.tiny import dialogues as d

Message = dict[str, Any]
MARKS = {"<s>": 1, "<e>": 2}


def encode(text: str) -> list[int]:
    """Two letters are one token where they can be, so that a cut may part them."""
    ids: list[int] = []
    while text:
        mark = next((mark for mark in MARKS if text.startswith(mark)), None)
        piece = mark or (text[:2] if not text[1:].startswith("<") else text[:1])
        ids.append(MARKS[mark] if mark else 10 + hash(piece) % 10**6)
        text = text[len(piece) :]
    return ids


def render(messages: Sequence[Message]) -> str:
    return "".join(f"<s>{m['role']} {m['content']}<e>" for m in messages) + "<s>assistant "


def found(messages: Sequence[Message], marks: Marks) -> tuple[int, ...]:
    text = render(messages)
    return checkpoints(messages, text, encode(text), render, encode, marks)


conversations = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant"]),
            "content": st.text("ab \N{LATIN SMALL LETTER O WITH STROKE}<s>e", max_size=12),
        }
    ),
    min_size=1,
    max_size=6,
)


@given(conversations)
def test_marks_only_spare_time(messages: list[Message]) -> None:
    assert found(messages, MARKS) == found(messages, {})


def test_the_beginning_of_a_conversation_and_of_the_answer_are_found() -> None:
    messages = [{"role": "system", "content": "Be good."}, {"role": "user", "content": "Hello."}]
    messages[1]["content"] *= 20
    ids = encode(render(messages))
    ends = found(messages, MARKS)
    assert len(encode("<s>system Be good.<e><s>user")) in ends
    assert len(ids) - NEAR_TOKENS < max(ends) < len(ids)


@given(conversations)
def test_no_two_are_near_each_other(messages: list[Message]) -> None:
    assert all(b - a >= NEAR_TOKENS for a, b in pairwise(found(messages, MARKS)))


def test_only_the_last_part_of_a_long_prompt_is_encoded_again() -> None:
    lengths: list[int] = []

    def counted(text: str) -> list[int]:
        lengths.append(len(text))
        return encode(text)

    messages = [{"role": "user", "content": "ab" * 5000}, {"role": "assistant", "content": "c"}]
    messages += [{"role": "user", "content": "d"}]
    text = render(messages)
    checkpoints(messages, text, encode(text), render, counted, MARKS)
    assert lengths
    assert max(lengths) < 100


@pytest.mark.parametrize("name", ["mlx-4bit"])
def test_marks_of_a_real_tokenizer_only_spare_time(
    variant: Callable[[str], Path], name: str
) -> None:
    text = Text(variant(name))
    assert "<|im_start|>" in text._marks
    messages: list[Message] = [d.system("Be good. <|im_end|> é"), d.user("Hello <|im_start|>")]

    def rendered(of: Sequence[Message]) -> str:
        ends = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in of)
        return f"{ends}<|im_start|>assistant\n"

    def encoded(part: str) -> list[int]:
        return text._encode(part, special=False)

    prompt = rendered(messages)
    with_marks, without = (
        checkpoints(messages, prompt, encoded(prompt), rendered, encoded, marks)
        for marks in (text._marks, {})
    )
    assert with_marks == without
