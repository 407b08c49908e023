from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from backends.mlx.spelling import Spellings
from tests.tiny import dialogues as d
from tests.tiny.train import WEIGHTS


@pytest.mark.parametrize("text", [d.FOOD, d.SENTENCE, " a  b\n\t🥜é", "<|im_start|>user"])
def test_the_bytes_of_tokens_are_those_of_the_text(text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    spellings = Spellings(tokenizer)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(spellings.of(token)[1] for token in ids).decode() == text


def test_half_a_character_has_bytes_and_a_sign_that_it_is_none() -> None:
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    spellings = Spellings(tokenizer)
    ids = tokenizer.encode("𓂀", add_special_tokens=False)
    assert len(ids) > 1
    assert spellings.of(ids[0])[0] == "\N{REPLACEMENT CHARACTER}"


def test_pieces_of_sentencepiece_have_spaces_and_single_bytes() -> None:
    vocabulary = {"▁Hello": 0, "<0xF0>": 1, "lo": 2, "</s>": 3}
    model = models.WordLevel(vocabulary, unk_token="</s>")
    inner = Tokenizer(model)
    inner.decoder = decoders.Metaspace()
    spellings = Spellings(PreTrainedTokenizerFast(tokenizer_object=inner))
    assert [spellings.of(i)[1] for i in range(4)] == [b" Hello", b"\xf0", b"lo", b"</s>"]
