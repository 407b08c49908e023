"""
DetectError
├── HeaderError          a weight file whose header is not what its format demands
└── NotAModelError       a path in which no model was found
"""

from __future__ import annotations


class DetectError(Exception):
    """Base of all errors of this package. `code` is a stable reason code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class HeaderError(DetectError):
    """A header that is truncated, out of bounds or malformed: one sentence says which."""


class NotAModelError(DetectError):
    """The path holds nothing that could be a model."""
