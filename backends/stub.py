"""Empty model files that make an engine say whether it knows what they name."""

from __future__ import annotations

import struct

from backends.pre_tokenizer_stub import pre_tokenizer_stub

PRE_TOKENIZER = "pre:"
"""Before the name of a pre-tokenizer, where else the name of an architecture is asked about."""

STRING = 8
"""The type of a text in GGUF's metadata."""


def gguf_stub(architecture: str) -> bytes:
    """A GGUF file with nothing but `general.architecture`."""
    key, value = b"general.architecture", architecture.encode()
    entry = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", STRING, len(value)) + value
    header = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry
    return header + bytes(-len(header) % 32)


def gguf_question(name: str) -> bytes:
    """The file that asks about an architecture, or about a pre-tokenizer."""
    if name.startswith(PRE_TOKENIZER):
        return pre_tokenizer_stub(name.removeprefix(PRE_TOKENIZER))
    return gguf_stub(name)


def safetensors_stub() -> bytes:
    """A safetensors file without tensors."""
    header = b"{}      "
    return struct.pack("<Q", len(header)) + header


LLAMA_CPP_SAYS = {
    "unknown model architecture": "",
    "unknown pre-tokenizer type": "",
    "key not found in model": "text",
    "output_norm.weight": "text",
}


def said_of(name: str, words: str) -> dict[str, str]:
    """llama.cpp's answer to a stub, from what it has printed: it refuses a name that it does not
    know, and misses the rest of the file under one that it does. Empty for other words."""
    said = [answer for phrase, answer in LLAMA_CPP_SAYS.items() if phrase in words]
    return {name: said[0]} if said else {}
