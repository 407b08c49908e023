"""Schemas made by chance, of answers that end: every list, text and number has its bounds."""

from __future__ import annotations

import random
import string
from typing import Any

WORDS = ("city", "n", "größe", "a b", 'q"uote', "back\\slash", "ß", "🥜", "x-y", "_")
PATTERNS = ("^[a-c]{1,4}$", "^(yes|no)$", "^[0-9]{2}-[a-f]$", "^x+y?$", "^é{2}$")


def random_schema(seed: int) -> dict[str, Any]:
    """An object, as most people ask for."""
    chance = random.Random(seed)
    schema = _object(chance, depth=3)
    if chance.random() < 0.2:
        schema["$defs"] = {"leaf": _leaf(chance)}
        schema["properties"]["of_leaf"] = {"$ref": "#/$defs/leaf"}
        schema["required"] = [*schema["required"], "of_leaf"]
    return schema


def _any(chance: random.Random, depth: int) -> dict[str, Any]:
    makers = (_leaf, _leaf) if depth == 0 else (_leaf, _leaf, _nested, _nested)
    maker = chance.choice(makers)
    return maker(chance) if maker is _leaf else _nested(chance, depth - 1)


def _nested(chance: random.Random, depth: int = 0) -> dict[str, Any]:
    kind = chance.choice((_object, _list, _tuple, _one_of_several))
    return kind(chance, depth)


def _object(chance: random.Random, depth: int) -> dict[str, Any]:
    names = chance.sample(WORDS, chance.randint(1, 4))
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: _any(chance, depth) for name in names},
        "required": [name for name in names if chance.random() < 0.6],
        "additionalProperties": False,
    }
    return schema


def _list(chance: random.Random, depth: int) -> dict[str, Any]:
    least = chance.randint(0, 2)
    return {
        "type": "array",
        "items": _any(chance, depth),
        "minItems": least,
        "maxItems": least + chance.randint(0, 2),
    }


def _tuple(chance: random.Random, depth: int) -> dict[str, Any]:
    parts = [_any(chance, depth) for _ in range(chance.randint(1, 3))]
    return {"type": "array", "prefixItems": parts, "items": False, "minItems": len(parts)}


def _one_of_several(chance: random.Random, depth: int) -> dict[str, Any]:
    return {"anyOf": [_any(chance, depth) for _ in range(chance.randint(1, 3))]}


def _leaf(chance: random.Random) -> dict[str, Any]:
    return chance.choice((_text, _pattern, _integer, _multiple, _number, _enum, _const, _plain))(
        chance
    )


def _text(chance: random.Random) -> dict[str, Any]:
    least = chance.randint(0, 3)
    return {"type": "string", "minLength": least, "maxLength": least + chance.randint(0, 6)}


def _pattern(chance: random.Random) -> dict[str, Any]:
    return {"type": "string", "pattern": chance.choice(PATTERNS), "maxLength": 8}


def _integer(chance: random.Random) -> dict[str, Any]:
    low = chance.randint(-1000, 1000)
    return {"type": "integer", "minimum": low, "maximum": low + chance.randint(0, 1000)}


def _multiple(chance: random.Random) -> dict[str, Any]:
    return {"type": "integer", "multipleOf": chance.randint(2, 9), "minimum": 0, "maximum": 99}


def _number(chance: random.Random) -> dict[str, Any]:
    low = chance.randint(-10, 10)
    return {"type": "number", "minimum": low, "exclusiveMaximum": low + chance.randint(1, 10)}


def _enum(chance: random.Random) -> dict[str, Any]:
    letters = "".join(chance.choices(string.ascii_letters, k=4))
    choices = [letters, chance.choice(WORDS), chance.randint(-99, 99), None, True, [1, "a"], {}]
    return {"enum": chance.sample(choices, chance.randint(1, 5))}


def _const(chance: random.Random) -> dict[str, Any]:
    return {"const": chance.choice((*WORDS, 0, -1.5, False, None, {"a": [1]}))}


def _plain(chance: random.Random) -> dict[str, Any]:
    return {"type": chance.choice(("boolean", "null", ["boolean", "null"]))}
