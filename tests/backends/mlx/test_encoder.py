"""What is encoded in blocks is what is encoded at once, with tokenizers of every kind."""

from __future__ import annotations

from collections.abc import Callable
from itertools import starmap
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from backends.mlx import encoder as encoding
from backends.mlx.encoder import Encoder, _bytes_of
from backends.mlx.model import Text
from tests.conftest import Variant

START, END, EATS, NORMAL, WORD = "<|start|>", "<|end|>", "<|eats|>", "<|normal|>", "<|word|>"
LONGER = "<|start|>x"
"""Begins like a mark."""
ADDED = (
    AddedToken(START, normalized=False, special=True),
    AddedToken(END, normalized=False, special=True, rstrip=True),
    AddedToken(EATS, normalized=False, special=True, lstrip=True),
    AddedToken(NORMAL, normalized=True, special=True),
    AddedToken(WORD, normalized=False, special=True, single_word=True),
    AddedToken(LONGER, normalized=False, special=False),
)
TRAP = AddedToken("ab<", normalized=False, special=False)
"""Ends like a mark begins."""
WORDS = (
    "a",
    "b",
    "ab",
    "ba",
    " ",
    "\n",
    "<",
    "|",
    "x",
    "é",
    "\N{LOWER ONE EIGHTH BLOCK}a",
    "A\n\n",
)
TEMPLATE = "".join((START, END, EATS, NORMAL, WORD))

Make = Callable[[Tokenizer], None]


def byte_level(tokenizer: Tokenizer) -> None:
    """Qwen's kind."""
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()


def prefixed(tokenizer: Tokenizer) -> None:
    """GPT-2's kind with a space before every text."""
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def first(tokenizer: Tokenizer) -> None:
    """SentencePiece as it is converted today: only the text's beginning has a space before it."""
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")


def always(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")


def legacy(tokenizer: Tokenizer) -> None:
    """SentencePiece as it was converted once: by the normalizer."""
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Prepend("\N{LOWER ONE EIGHTH BLOCK}"),
            normalizers.Replace(" ", "\N{LOWER ONE EIGHTH BLOCK}"),
        ]
    )


def stripping(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.Lowercase()])


def tokenizer_of(make: Make, *more: AddedToken) -> Any:
    letters = sorted({*pre_tokenizers.ByteLevel.alphabet(), *"".join(WORDS), *"|<>abdeilnmorstx"})
    vocabulary = {letter: place for place, letter in enumerate(["<unk>", *letters])}
    merges = [("a", "b"), ("\N{LOWER ONE EIGHTH BLOCK}", "a"), ("Ġ", "a"), ("b", "a")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True))
    make(tokenizer)
    tokenizer.add_tokens([*ADDED, *more])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


KINDS = {make.__name__: tokenizer_of(make)
         for make in (byte_level, prefixed, first, always, legacy, stripping)}  # fmt: skip

KINDS["trapped"] = tokenizer_of(byte_level, TRAP)
for number, flags in enumerate(({"lstrip": True}, {"single_word": True})):
    longer = AddedToken("<|end|>b", normalized=False, special=False, **flags)
    KINDS[f"longer-{number}"] = tokenizer_of(byte_level, longer)
KINDS["split"] = tokenizer_of(byte_level)
KINDS["split"].split_special_tokens = True

texts = st.lists(
    st.sampled_from((START, END, EATS, NORMAL, WORD, LONGER, "ab<", "<|end|>b", *WORDS)),
    max_size=60,
).map("".join)


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "BLOCK_CHARACTERS", 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("tiny_blocks")
def test_blocks_change_no_token(kind: str) -> None:
    tokenizer = KINDS[kind]
    encoder = Encoder(tokenizer, TEMPLATE)

    @settings(max_examples=150, deadline=None)
    @given(texts)
    def check(text: str) -> None:
        assert encoder.ids(text) == tokenizer.encode(text, add_special_tokens=False)

    check()


def test_marks_that_change_what_is_beside_them_are_no_borders() -> None:
    border = Encoder(KINDS["byte_level"], TEMPLATE)._border
    assert border is not None
    assert {mark for mark in (START, END, EATS, NORMAL, WORD) if border.fullmatch(mark)} >= {
        START,
        END,
    }
    assert not border.fullmatch(EATS)
    assert not border.fullmatch(NORMAL)
    assert Encoder(KINDS["trapped"], TEMPLATE)._border is None


def test_thousands_of_special_tokens_are_looked_at_once() -> None:
    many = (AddedToken(f"<|r{n}|>", normalized=False, special=True) for n in range(3000))
    border = Encoder(tokenizer_of(byte_level, *many), TEMPLATE)._border
    assert border is not None
    assert border.fullmatch(START)
    assert not border.fullmatch("<|r1|>")


class Counting:
    """A tokenizer that counts the characters which it encodes."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.encoded = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode(self, text: str, **options: Any) -> Any:
        self.encoded += len(text)
        return self._tokenizer.encode(text, **options)


def test_a_turn_encodes_only_what_is_new() -> None:
    tokenizer = Counting(KINDS["byte_level"])
    encoder = Encoder(tokenizer, TEMPLATE)
    text = "".join(f"{START}ab ba {n}{'a' * 500}{END}\n" for n in range(40))
    encoder.ids(text)
    tokenizer.encoded = 0
    longer = f"{text}{START}more{END}"
    assert encoder.ids(longer) == KINDS["byte_level"].encode(longer, add_special_tokens=False)
    assert tokenizer.encoded < 3 * encoding.BLOCK_CHARACTERS


def test_what_is_kept_is_bounded_and_the_longest_unused_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoding, "MAX_BYTES", 100_000)
    tokenizer = Counting(KINDS["byte_level"])
    encoder = Encoder(tokenizer, TEMPLATE)
    often = f"{START}{'b' * 2000}{START}"
    for n in range(30):
        encoder.ids(often)
        encoder.ids(f"{START}{n}{'a' * 2000}{START}")
    assert sum(starmap(_bytes_of, encoder._known.items())) == encoder._bytes <= 100_000
    assert len(encoder._known) > 5
    tokenizer.encoded = 0
    encoder.ids(often)
    assert tokenizer.encoded == len(START)


def test_a_block_that_is_larger_than_all_that_may_be_kept_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoding, "MAX_BYTES", 20_000)
    encoder = Encoder(KINDS["byte_level"], TEMPLATE)
    kept = f"{START}{'a' * 2000}"
    for block in (kept, f"{START}{'b' * 20_000}"):
        encoder.ids(f"{block}{START}")
    assert list(encoder._known) == [kept]


def test_a_tokenizer_without_marks_encodes_at_once() -> None:
    tokenizer = KINDS["first"]
    encoder = Encoder(tokenizer, TEMPLATE)
    encoder._border = None
    text = f"{START}ab " * 1000
    assert encoder.ids(text) == tokenizer.encode(text, add_special_tokens=False)
    assert not encoder._known


def test_the_tokenizer_of_a_model_has_borders(variant: Variant) -> None:
    text = Text(variant("mlx-bf16"))
    border = text._encoder._border
    assert border is not None
    assert border.fullmatch("<|im_start|>")
    whole = "<|im_start|>user\nWho are you?<|im_end|>\n" * 200
    alone = text._tokenizer.encode(whole, add_special_tokens=False)
    assert text._encode(whole, special=False) == text._encode(whole, special=False) == alone
