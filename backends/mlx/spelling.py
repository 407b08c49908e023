"""Which bytes a token stands for, also one that is half a character."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""How SentencePiece spells a byte that is no character by itself."""

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""How SentencePiece spells a space."""


class Spellings:
    """Of the tokens of one tokenizer, a fast one of `transformers`."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._added = {int(i): str(token) for i, token in tokenizer.added_tokens_decoder.items()}
        self._byte_level = _is_byte_level(tokenizer)

    def of(self, token: int) -> tuple[str, bytes]:
        """Text, with a replacement character for what is not one by itself, and bytes."""
        spelled = self._bytes(token)
        return spelled.decode("utf-8", "replace"), spelled

    def _bytes(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].encode()
        piece = str(self._tokenizer.convert_ids_to_tokens(token) or "")
        if self._byte_level:
            table = _bytes_of_characters()
            if all(character in table for character in piece):
                return bytes(table[character] for character in piece)
        elif match := BYTE_PIECE.fullmatch(piece):
            return bytes([int(match[1], 16)])
        return piece.replace(SPACE, " ").encode("utf-8", "replace")


def _is_byte_level(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    return '"ByteLevel"' in json.dumps(json.loads(backend.to_str()).get("decoder"))


@cache
def _bytes_of_characters() -> dict[str, int]:
    """GPT-2's table: printable characters of Latin-1 stand for their own byte, and those from 256
    on for the bytes that are left, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    left = [byte for byte in range(256) if byte not in printable]
    own = {chr(byte): byte for byte in printable}
    return own | {chr(256 + place): byte for place, byte in enumerate(left)}
