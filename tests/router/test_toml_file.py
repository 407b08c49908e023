from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import toml_file
from router.errors import SettingsError
from router.toml_file import MOST_LINES, Place, lines_of

TEXT = '''\
# port = 1
port = 2

models-dir = [
    "a",  # port = 3
    "b",
]
note = """
host = "no key"
[models.none]
"""
  a.b = {c = 1, "d" = 2}
[models."org/a"]
pin = true
[[many]]
x = 1
[[many]]
x = 2
'''


def test_every_key_has_the_line_that_it_begins_on() -> None:
    assert lines_of(TEXT) == {
        ("port",): 2,
        ("models-dir",): 4,
        ("note",): 8,
        ("a",): 12,
        ("a", "b"): 12,
        ("a", "b", "c"): 12,
        ("a", "b", "d"): 12,
        ("models",): 13,
        ("models", "org/a"): 13,
        ("models", "org/a", "pin"): 14,
        ("many",): 15,
        ("many", "x"): 16,
    }


def test_behind_a_value_without_end_no_line_is_known() -> None:
    text = f'a = 1\nb = """{"x" * 3}' + "\n" * MOST_LINES + '"""\nc = 1\n'
    assert lines_of(text) == {("a",): 1}


KEYS = st.text("ab-.\n\"'é ", min_size=1, max_size=4)
VALUES = st.one_of(st.integers(), st.booleans(), st.lists(st.integers(), max_size=3))


def quoted(text: str) -> str:
    return '"' + "".join(f"\\u{ord(c):04x}" for c in text) + '"'


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_keys_stand_where_they_were_written_whatever_they_are(table: dict[str, Any]) -> None:
    written = [f"{quoted(key)} = {str(value).lower()}" for key, value in table.items()]
    text = "\n".join(written)
    assert tomllib.loads(text) == table
    assert lines_of(text) == {(key,): line for line, key in enumerate(table, 1)}


def test_a_place_is_named_with_its_line() -> None:
    place = Place("f.toml", lines=lines_of(TEXT))
    assert str(place) == "f.toml"
    assert place.at("port") == "f.toml (line 2)"
    assert place.at("none") == "f.toml"
    model = place.table("models").table("org/a")
    assert str(model) == "[models.org/a] of f.toml (line 13)"
    assert model.at("pin") == "[models.org/a] of f.toml (line 14)"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a = 1\nb = nope\n", "is not a TOML file: Invalid value (at line 2, column 5)."),
        (b"a = 1\nb =", "is not a TOML file: Invalid value (at line 2, the end)."),
        (b"a = 1\n\na = 2\n\n", "is not a TOML file: Cannot overwrite a value (at line 3, "),
        (b"a = 1\nb = '\xff'\n", "is not a TOML file: line 2 is not UTF-8."),
        (b"#" * (toml_file.MAX_FILE_BYTES + 1), "is too large for a file of options."),
        (b"a = " + b"[" * 9999, "is nested too deeply."),
    ],
)
def test_what_is_no_toml_file_is_one_sentence_with_the_line(
    tmp_path: Path, content: bytes, words: str
) -> None:
    file = tmp_path / "f.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as refused:
        toml_file.read(file, "--config")
    assert str(refused.value).startswith(f"--config {file} {words}")
