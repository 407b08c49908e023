"""llama.cpp's grammars, in the part of their notation that llguidance's converter reads. Pure."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""(?P<text>"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\])
      | (?P<comment>\#[^\r\n]*)
      | (?P<name>[\w-]+)
      | (?P<any>\.)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)", re.DOTALL)

TAKEN = "start"
"""The converter gives the rule `root` this name."""


def convertible(grammar: str) -> str:
    """The same grammar without what the converter spoils or refuses: long escapes, `.`, which is a
    new line as well, and a rule of the name that it wants for itself."""
    return _TOKEN.sub(_converted, grammar)


def _converted(token: re.Match[str]) -> str:
    if token["text"]:
        return _ESCAPE.sub(_character, token["text"])
    if token["name"] == TAKEN:
        return f"{TAKEN}-of-gbnf"
    return r"[\x00-" + chr(0x10FFFF) + "]" if token["any"] else token[0]


def _character(escape: re.Match[str]) -> str:
    digits = escape[1] or escape[2]
    code = int(digits, 16) if digits else 0
    if code == 0 or 0xD800 <= code < 0xE000 or code > 0x10FFFF:
        return escape[0]
    # Below, it may have a meaning of its own where it stands.
    return chr(code) if code > 0x7F else f"\\x{code:02x}"
