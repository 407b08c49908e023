from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.errors import HeaderError
from detect.safetensors_header import DTYPE_BITS, MAX_HEADER_BYTES, read_header
from tests.detect import raw_safetensors as raw


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    return path


def code(path: Path) -> str:
    with pytest.raises(HeaderError) as caught:
        read_header(path)
    assert path.name in caught.value.message
    return caught.value.code


def test_a_header_tells_tensors_and_metadata(tmp_path: Path) -> None:
    tensors = {"a": ("F16", (2, 3)), "b": ("U32", (4,))}
    header = read_header(write(tmp_path, raw.encode(tensors, {"format": "mlx"})))
    assert header.metadata == {"format": "mlx"}
    assert header.tensors["a"].shape == (2, 3)
    assert header.tensors["a"].elements == 6
    assert header.data_bytes == 12 + 16


def test_a_git_lfs_pointer_is_named_with_the_real_size(tmp_path: Path) -> None:
    pointer = (
        b"version https://git-lfs.github.com/spec/v1\n"
        b"oid sha256:" + b"0" * 64 + b"\nsize 3100000000\n"
    )
    path = write(tmp_path, pointer)
    assert code(path) == "incomplete.lfs_pointer"
    with pytest.raises(HeaderError, match=r"3,100,000,000 bytes.*git lfs pull"):
        read_header(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "incomplete.partial"),
        (bytes(4096), "incomplete.partial"),
        (b"<html>404</html>", "corrupt.header"),
        (b"abc", "incomplete.truncated"),
        (struct.pack("<Q", 2**63) + b"{}", "corrupt.header"),
        (struct.pack("<Q", 100_000_001) + b"{}", "corrupt.header"),
        (struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"{}", "corrupt.bounds"),
        (struct.pack("<Q", 5000) + b"{}", "incomplete.truncated"),
        (struct.pack("<Q", 10) + b"[1,2,3,4] ", "corrupt.header"),
        (struct.pack("<Q", 0) + b"{}", "corrupt.header"),
        (raw.frame(b"{", 0), "corrupt.header"),
        (raw.frame(b'{"__metadata__": {"a": 1}}', 0), "corrupt.header"),
        (raw.frame(b'{"\xff": 1}', 0), "corrupt.header"),
        (raw.frame(b'{"__metadata__": {"a": "\\ud800"}}', 0), "corrupt.header"),
        (raw.frame(b'{"a":' * 5000 + b"1" + b"}" * 5000, 0), "corrupt.header"),
    ],
)  # fmt: skip
def test_a_bad_beginning_is_named(tmp_path: Path, content: bytes, expected: str) -> None:
    assert code(write(tmp_path, content)) == expected


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("header", "data_bytes", "expected"),
    [
        ({"a": entry(), "b": entry(offsets=[12, 20])}, 20, "corrupt.header"),
        ({"a": entry(), "b": entry(offsets=[4, 12])}, 12, "corrupt.header"),
        ({"a": entry()}, 12, "corrupt.header"),
        ({"a": entry()}, 7, "incomplete.truncated"),
        ({"a": entry(shape=[3])}, 8, "corrupt.header"),
        ({"a": entry(dtype="F99")}, 8, "corrupt.header"),
        ({"a": entry(dtype=7)}, 8, "corrupt.header"),
        ({"a": entry(shape=[-2])}, 8, "corrupt.header"),
        ({"a": entry(shape=[2.0])}, 8, "corrupt.header"),
        ({"a": entry(shape=[True, 2])}, 8, "corrupt.header"),
        ({"a": entry(shape=[2**33])}, 8, "corrupt.header"),
        ({"a": entry(shape=[2**32] * 1000)}, 8, "corrupt.header"),
        ({"a": entry(shape="2")}, 8, "corrupt.header"),
        ({"a": entry(offsets=[8, 0])}, 8, "corrupt.header"),
        ({"a": entry(offsets=[0])}, 8, "corrupt.header"),
        ({"a": entry(offsets=["0", "8"])}, 8, "corrupt.header"),
        ({"a": {"dtype": "F32"}}, 8, "corrupt.header"),
        ({"a": []}, 8, "corrupt.header"),
        ({"a": None}, 8, "corrupt.header"),
        ({"__metadata__": 1}, 0, "corrupt.header"),
    ],
)  # fmt: skip
def test_a_bad_entry_is_corrupt(
    tmp_path: Path, header: dict[str, Any], data_bytes: int, expected: str
) -> None:
    content = raw.frame(json.dumps(header).encode(), data_bytes)
    assert code(write(tmp_path, content)) == expected


def test_a_name_that_occurs_twice_is_corrupt(tmp_path: Path) -> None:
    one = json.dumps(entry())
    content = raw.frame(f'{{"a": {one}, "a": {one}}}'.encode(), 8)
    assert code(write(tmp_path, content)) == "corrupt.header"


def test_padding_and_empty_tensors_are_fine(tmp_path: Path) -> None:
    header = read_header(write(tmp_path, raw.encode({"a": ("F32", (0, 4)), "b": ("F32", ())})))
    assert header.tensors["a"].elements == 0
    assert header.tensors["b"].elements == 1


def test_a_header_of_many_reads_is_put_together(tmp_path: Path) -> None:
    tensors = {f"layer.{i}.with.a.long.name": ("U8", (1,)) for i in range(20_000)}
    assert len(read_header(write(tmp_path, raw.encode(tensors))).tensors) == 20_000


def test_a_fifo_is_no_file_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(OSError, match="not a regular file"):
        read_header(tmp_path / "model.safetensors")


specs = st.dictionaries(
    st.text(min_size=1, max_size=20).filter(lambda name: name != "__metadata__"),
    st.tuples(
        st.sampled_from(sorted(d for d, bits in DTYPE_BITS.items() if bits >= 8)),
        st.lists(st.integers(0, 4), max_size=3),
    ),
    max_size=8,
)


@given(specs)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, raw.Spec]
) -> None:
    path = write(tmp_path_factory.mktemp("round"), raw.encode(tensors))
    header = read_header(path)
    assert {n: (t.dtype, list(t.shape)) for n, t in header.tensors.items()} == {
        n: (dtype, list(shape)) for n, (dtype, shape) in tensors.items()
    }


@given(specs, st.integers(min_value=1))
def test_a_cut_file_is_never_read(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, raw.Spec], cut: int
) -> None:
    content = raw.encode(tensors)
    path = write(tmp_path_factory.mktemp("cut"), content[: -(cut % len(content)) or -1])
    assert code(path) in ("incomplete.truncated", "incomplete.partial")
