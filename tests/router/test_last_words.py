from __future__ import annotations

import pytest

from router.last_words import MOST_CHARACTERS, quotable


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("cannot open /home/me/Models/a.gguf: bad magic", "cannot open …/a.gguf: bad magic"),
        ("File '/opt/x/y.py', line 3", "File '…/y.py', line 3"),
        ("~/Models/org/a is empty", "…/a is empty"),
        ("expected 3/4 of 30 tensors", "expected 3/4 of 30 tensors"),
    ],
)
def test_no_line_says_where_anything_lies(line: str, shown: str) -> None:
    assert quotable([line]) == (shown,)


def test_only_the_last_few_lines_are_shown_and_none_is_long() -> None:
    lines = quotable([*map(str, range(20)), "", "x" * 10_000])
    assert lines[:-1] == ("16", "17", "18", "19")
    assert len(lines[-1]) == MOST_CHARACTERS + 1


def test_no_line_can_paint_a_terminal() -> None:
    (line,) = quotable(["\x1b[31mred"])
    assert "\x1b" not in line
