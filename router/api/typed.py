"""A JSON value of a request, and the path to it: every mistake names its place. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from router.errors import InvalidRequestError

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Typed:
    """`path` is written as Anthropic does: `messages.0.content.1.text`."""

    value: Any
    path: str = ""

    def __getitem__(self, name: str) -> Typed:
        """A field of an object; None where it is missing."""
        return Typed(self.value.get(name), f"{self.path}.{name}" if self.path else name)

    @property
    def missing(self) -> bool:
        return self.value is None

    def wrong(self, what: str) -> InvalidRequestError:
        return InvalidRequestError(f"{self.path}: {what}", param=self.path)

    def object(self) -> Typed:
        if not isinstance(self.value, dict):
            raise self._must("an object")
        return self

    def items(self) -> Iterator[Typed]:
        if not isinstance(self.value, list):
            raise self._must("a list")
        for i, value in enumerate(self.value):
            yield Typed(value, f"{self.path}.{i}")

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self._must("a text")
        return self.value

    def name(self) -> str:
        if not self.text():
            raise self._must("a text that is not empty")
        return self.text()

    def integer(self, low: int) -> int:
        if type(self.value) is not int or self.value < low:
            raise self._must(f"a whole number of at least {low}")
        return self.value

    def number(self) -> float:
        number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        if not number or not abs(self.value) < math.inf:
            raise self._must("a number")
        return self.value  # type: ignore[no-any-return]

    def flag(self) -> bool:
        if not isinstance(self.value, bool | None):
            raise self._must("true or false")
        return bool(self.value)

    def one_of(self, *choices: str) -> str:
        if self.value not in choices:
            raise self._must(" or ".join(f'"{choice}"' for choice in choices))
        return str(self.value)

    def _must(self, be: str) -> InvalidRequestError:
        return self.wrong("is missing." if self.missing else f"must be {be}.")
