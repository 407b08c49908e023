"""A GGUF model with a vocabulary and hardly more, which makes an engine say whether it knows a
pre-tokenizer: the rule by which text is split before its parts are looked up.

Engines read the vocabulary before they miss the weights, so that none really loads it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

WIDTH = 32
TOKENS = ("a", "b", "ab")

UINT32, INT32, FLOAT32, STRING, ARRAY = 4, 5, 6, 8, 9
F32 = 0
ALIGNMENT = 32

NUMBERS: Mapping[str, int] = {
    "llama.context_length": WIDTH,
    "llama.embedding_length": WIDTH,
    "llama.block_count": 1,
    "llama.feed_forward_length": WIDTH,
    "llama.attention.head_count": 1,
    "llama.attention.head_count_kv": 1,
    "llama.rope.dimension_count": WIDTH,
    "tokenizer.ggml.eos_token_id": 0,
}


def pre_tokenizer_stub(name: str) -> bytes:
    entries = [
        _entry("general.architecture", STRING, _text("llama")),
        *(_entry(key, UINT32, struct.pack("<I", value)) for key, value in NUMBERS.items()),
        _entry("llama.attention.layer_norm_rms_epsilon", FLOAT32, struct.pack("<f", 1e-5)),
        _entry("tokenizer.ggml.model", STRING, _text("gpt2")),
        _entry("tokenizer.ggml.pre", STRING, _text(name)),
        _entry("tokenizer.ggml.tokens", ARRAY, _texts(TOKENS)),
        _entry("tokenizer.ggml.merges", ARRAY, _texts(["a b"])),
        _entry("tokenizer.ggml.token_type", ARRAY, struct.pack("<IQ3i", INT32, 3, 1, 1, 1)),
    ]
    embeddings = _text("token_embd.weight")
    embeddings += struct.pack("<IQQIQ", 2, WIDTH, len(TOKENS), F32, 0)
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, len(entries)) + b"".join(entries) + embeddings
    return header + bytes(-len(header) % ALIGNMENT) + bytes(4 * WIDTH * len(TOKENS))


def _entry(key: str, kind: int, payload: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + payload


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _texts(values: Sequence[str]) -> bytes:
    return struct.pack("<IQ", STRING, len(values)) + b"".join(map(_text, values))
