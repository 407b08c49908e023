"""The quick way may say less than the slow way, and never anything else."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from detect import safetensors_header, tensor_table
from detect.errors import HeaderError
from tests.detect import raw_safetensors as raw

A = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
B = '{"dtype":"F32","shape":[2],"data_offsets":[8,16]}'
TABLE = f'{{"__metadata__":{{"format":"pt"}},"a":{A},"b":{B}}}'
PIECES = ("1", "-1", "2.0", "1e1", "true", "null", '"', "\\", ":", ",", "[", "]", "{", "}", " ", A,
          '"a":', '"__metadata__":', "\0", "é", '"shape":[2],', "99999999999999999999")  # fmt: skip


def test_rows_and_metadata_are_told() -> None:
    table = tensor_table.decode(TABLE.encode())
    assert table is not None
    assert table.metadata == {"format": "pt"}
    assert table.rows["b"].data_offsets == (8, 16)


@pytest.mark.parametrize(
    "text",
    [
        f'{{"a":{A},"a":{B}}}',
        f'{{"a:b":{A},"a:b":{B}}}',
        f'{{"a":{A},"__metadata__":{{}}}}',
        f'{{"__metadata__":{{"x":"1","x":"2"}},"a":{A}}}',
        f'{{"__metadata__":{{"x":1}},"a":{A}}}',
        f'{{"__metadata__":{{}},"__metadata__":{A}}}',
        '{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"F32","shape":[true,2],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1}}',
        '{"\\u0061":' + A + "}",
        "[" * 100_000,
        '{"__metadata__":' + '{"a":' * 100_000,
    ],
)
def test_what_is_unusual_is_left_to_the_slow_way(text: str) -> None:
    assert tensor_table.decode(text.encode()) is None


@pytest.mark.parametrize("shape", ["[2]", "[]", "[4294967297]", "[1,1,1,1,1,1,1,1,2]", "[-1]"])
@pytest.mark.parametrize("dtype", ["F32", "F99", "F4"])
@pytest.mark.parametrize("offsets", ["[8,16]", "[8,12]", "[8,7]", "[4,12]", "[8,9]", "[-1,8]"])
@pytest.mark.parametrize("available", [16, 12, 7, 9, 8])
def test_both_ways_agree_on_every_entry(
    shape: str, dtype: str, offsets: str, available: int
) -> None:
    entry = f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'
    _agree(f'{{"a":{A},"b":{entry}}}'.encode(), available)
    _agree(f'{{"b":{entry},"a":{A}}}'.encode(), available)


def test_both_ways_agree_on_what_was_damaged() -> None:
    draw = random.Random(1)
    for _ in range(3000):
        at, length = draw.randrange(len(TABLE)), draw.choice((0, 0, 1, 3, 20))
        damaged = TABLE[:at] + draw.choice(("", *PIECES)) + TABLE[at + length :]
        _agree(damaged.encode(), 16)


def test_the_order_of_names_is_not_that_of_the_data() -> None:
    header = safetensors_header._well_formed(f'{{"b":{B},"a":{A}}}'.encode(), 16)
    assert header is not None
    assert list(header.tensors) == ["b", "a"]


def test_the_usual_header_is_well_formed() -> None:
    content = raw.encode({"a": ("F16", (2, 3)), "b": ("U32", (4,))}, {"format": "mlx"})
    length = int.from_bytes(content[:8], "little")
    assert json.loads(content[8 : 8 + length])
    assert safetensors_header._well_formed(content[8 : 8 + length], len(content) - 8 - length)


def _agree(content: bytes, available: int) -> None:
    quick = safetensors_header._well_formed(content, available)
    if quick is None:
        return
    try:
        slow = safetensors_header._parse(Path("model.safetensors"), content, available)
    except HeaderError as error:
        raise AssertionError(content) from error
    assert slow == quick
    assert list(slow.tensors) == list(quick.tensors)
