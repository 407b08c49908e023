from __future__ import annotations

import os
import resource
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.errors import HeaderError
from detect.gguf_header import MAX_SHORT_BYTES, MAX_STRING_BYTES, WINDOW_BYTES, read_header
from tests.detect import raw_gguf as raw
from tests.detect.raw_gguf import RawGGUF, Typed


def code(path: Path) -> str:
    with pytest.raises(HeaderError) as caught:
        read_header(path)
    assert path.name in caught.value.message
    return caught.value.code


def test_a_header_tells_metadata_and_tensors_and_only_the_length_of_the_vocabulary(
    tmp_path: Path,
) -> None:
    path = raw.model().write(tmp_path / "x.gguf")
    header = read_header(path)
    assert header.version == 3
    assert header.architecture == "llama"
    assert header.number_of_architecture("context_length") == 2048
    assert header.array_lengths["tokenizer.ggml.tokens"] == 300
    assert "tokenizer.ggml.tokens" not in header.metadata
    assert header.tensors[0].name == "token_embd.weight"
    assert header.tensors[0].nbytes == 300 * 144
    assert header.needed_bytes == header.file_bytes == path.stat().st_size


def test_every_scalar_type_is_read_as_written(tmp_path: Path) -> None:
    values = {
        raw.U8: 200, raw.I8: -5, raw.U16: 60_000, raw.I16: -6, raw.U32: 2**31, raw.I32: -7,
        raw.FLOAT32: 0.5, raw.BOOL: True, raw.STRING: "text", raw.U64: 2**63, raw.I64: -8,
        raw.FLOAT64: 0.1,
    }  # fmt: skip
    metadata = {f"k{kind}": Typed(kind, value) for kind, value in values.items()}
    header = read_header(RawGGUF(metadata=metadata).write(tmp_path / "x.gguf"))
    assert header.metadata == {f"k{kind}": value for kind, value in values.items()}


def test_short_arrays_are_kept_and_long_ones_are_stepped_over(tmp_path: Path) -> None:
    metadata = {"short": [1, 2, 3], "names": ["a", "b"], "long": [7] * 5000, "after": 1}
    header = read_header(RawGGUF(metadata=metadata).write(tmp_path / "x.gguf"))
    assert header.metadata == {"short": [1, 2, 3], "names": ["a", "b"], "after": 1}
    assert header.array_lengths == {"short": 3, "names": 2, "long": 5000}


def test_a_vocabulary_larger_than_the_window_is_stepped_over_exactly(tmp_path: Path) -> None:
    tokens = ["x" * (i % 50) for i in range(2 * WINDOW_BYTES // 30)]
    metadata = {"tokenizer.ggml.tokens": tokens, "after": 42}
    header = read_header(RawGGUF(metadata=metadata).write(tmp_path / "x.gguf"))
    assert header.metadata == {"after": 42}
    assert header.array_lengths["tokenizer.ggml.tokens"] == len(tokens)


def test_a_vocabulary_of_150000_tokens_takes_well_under_a_second(tmp_path: Path) -> None:
    tokens = [f"token{i}" for i in range(150_000)]
    path = RawGGUF(metadata={"tokenizer.ggml.tokens": tokens}).write(tmp_path / "x.gguf")
    began = time.process_time()
    read_header(path)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("version", [1, 4, 7])
def test_other_versions_are_named(tmp_path: Path, version: int) -> None:
    path = RawGGUF(version=version).write(tmp_path / "x.gguf")
    assert code(path) == "unsupported.gguf_version"


def test_a_newer_version_blames_the_newer_llama_cpp(tmp_path: Path) -> None:
    with pytest.raises(HeaderError, match=r"newer llama\.cpp"):
        read_header(RawGGUF(version=4).write(tmp_path / "x.gguf"))


@pytest.mark.parametrize("start", [b"GGUF" + struct.pack(">I", 3), b"FUGG" + struct.pack(">I", 3)])
def test_big_endian_files_are_named(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "x.gguf").write_bytes(start + bytes(100))
    assert code(tmp_path / "x.gguf") == "unsupported.endianness"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "incomplete.partial"),
        (bytes(4096), "incomplete.partial"),
        (b"<!DOCTYPE html><html>", "corrupt.header"),
        (b'{"error": "gated"}', "corrupt.header"),
        (b"GGUX" + bytes(100), "corrupt.header"),
        (b"GGUF\x03\x00", "incomplete.truncated"),
        (b"version https://git-lfs.github.com/spec/v1\nsize 31\n", "incomplete.lfs_pointer"),
    ],
)  # fmt: skip
def test_a_file_that_is_something_else_is_named(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    assert code(tmp_path / "x.gguf") == expected


def test_a_web_page_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"<!DOCTYPE html><html>")
    with pytest.raises(HeaderError, match="HTML"):
        read_header(tmp_path / "x.gguf")


@pytest.mark.parametrize(
    "change",
    [
        {"entry_count": 2**40},
        {"tensor_count": 2**40},
        {"metadata": {"general.alignment": 0}},
        {"metadata": {"general.alignment": 3}},
        {"metadata": {"general.alignment": "32"}},
        {"tensors": {"x": (raw.F32, (2**40, 2**40))}, "data": False},
        {"tensors": {"x": (raw.F32, (1, 1, 1, 1, 1))}},
        {"tensors": {"x" * 64: (raw.F32, (1,))}},
        {"tensors": {"x": (raw.F32, (8,))}, "offsets": {"x": 32}},
        {"tensors": {"x": (raw.F32, (8,)), "y": (raw.F32, (8,))}, "offsets": {"y": 0}},
    ],
)  # fmt: skip
def test_numbers_out_of_bounds_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    assert code(RawGGUF(**change).write(tmp_path / "x.gguf")) == "corrupt.bounds"


@pytest.mark.parametrize(
    "payload",
    [
        struct.pack("<IQ", raw.STRING, 2**62),
        struct.pack("<IIQQ", raw.ARRAY, raw.STRING, 100, 2**62),
        struct.pack("<IIQ", raw.ARRAY, raw.STRING, 2**62),
        struct.pack("<II", raw.ARRAY, raw.ARRAY) * 1000,
    ],
)
def test_declared_lengths_are_not_believed(tmp_path: Path, payload: bytes) -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + raw.text("key")
    (tmp_path / "x.gguf").write_bytes(head + payload + bytes(100))
    assert code(tmp_path / "x.gguf") == "corrupt.bounds"


def test_nested_arrays_end_somewhere(tmp_path: Path) -> None:
    nested = struct.pack("<I", raw.ARRAY) + struct.pack("<IQ", raw.ARRAY, 1) * 1000
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + raw.text("key")
    (tmp_path / "x.gguf").write_bytes(head + nested)
    assert code(tmp_path / "x.gguf") == "corrupt.bounds"


def test_a_million_empty_arrays_are_refused(tmp_path: Path) -> None:
    payload = struct.pack("<IIQ", raw.ARRAY, raw.ARRAY, 2**40)
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + raw.text("key")
    (tmp_path / "x.gguf").write_bytes(head + payload)
    assert code(tmp_path / "x.gguf") == "corrupt.bounds"


def test_long_texts_together_are_bounded(tmp_path: Path) -> None:
    metadata = {f"k{i}": "x" * (MAX_STRING_BYTES - 1) for i in range(2)}
    assert code(RawGGUF(metadata=metadata).write(tmp_path / "x.gguf")) == "corrupt.bounds"


def test_a_lie_about_counts_costs_neither_time_nor_memory(tmp_path: Path) -> None:
    path = RawGGUF(entry_count=2**40).write(tmp_path / "x.gguf")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    code(path)
    assert time.process_time() - began < 0.05
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


@pytest.mark.parametrize(
    "content",
    [
        RawGGUF(metadata={"k": Typed(13, None)}),
        RawGGUF(metadata={"k": Typed(raw.ARRAY, [], 99)}),
    ],
)
def test_unknown_value_types_are_corrupt(tmp_path: Path, content: RawGGUF) -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + raw.text("k")
    kind = content.metadata["k"]
    tail = struct.pack("<I", kind.type)
    if kind.type == raw.ARRAY:
        tail += struct.pack("<IQ", kind.item, 1)
    (tmp_path / "x.gguf").write_bytes(head + tail + bytes(16))
    assert code(tmp_path / "x.gguf") == "corrupt.header"


def test_a_key_or_a_tensor_that_occurs_twice_is_corrupt(tmp_path: Path) -> None:
    key = raw.text("k") + raw.entry(1)
    (tmp_path / "k.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + key + key)
    assert code(tmp_path / "k.gguf") == "corrupt.header"
    tensor = raw.text("t") + struct.pack("<IQIQ", 1, 8, raw.F32, 0)
    body = struct.pack("<IQQ", 3, 2, 0) + tensor + tensor
    (tmp_path / "t.gguf").write_bytes(b"GGUF" + body + bytes(64))
    assert code(tmp_path / "t.gguf") == "corrupt.header"


def test_names_must_be_text(tmp_path: Path) -> None:
    body = struct.pack("<IQQ", 3, 0, 1) + raw.text(b"\xff\xfe") + raw.entry(1)
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + body)
    assert code(tmp_path / "x.gguf") == "corrupt.header"


@pytest.mark.parametrize(("kind", "words"), [(99, "newer"), (43, "newer"), (4, "removed")])
def test_unknown_and_removed_tensor_types_are_told_apart(
    tmp_path: Path, kind: int, words: str
) -> None:
    path = RawGGUF(tensors={"x": (kind, (32,))}).write(tmp_path / "x.gguf")
    assert code(path) == "unsupported.gguf_type"
    with pytest.raises(HeaderError, match=words):
        read_header(path)


def test_rows_must_be_whole_blocks(tmp_path: Path) -> None:
    path = RawGGUF(tensors={"x": (raw.Q4_K, (100, 4))}).write(tmp_path / "x.gguf")
    assert code(path) == "corrupt.header"


def test_missing_data_is_seen_from_the_header(tmp_path: Path) -> None:
    path = raw.model().write(tmp_path / "x.gguf")
    size = path.stat().st_size
    os.truncate(path, size - 1000)
    header = read_header(path)
    assert header.needed_bytes == size
    assert header.file_bytes == size - 1000


def test_a_larger_alignment_moves_the_data(tmp_path: Path) -> None:
    content = raw.model()
    content.metadata = {**content.metadata, "general.alignment": 4096}
    content.alignment = 4096
    header = read_header(content.write(tmp_path / "x.gguf"))
    assert header.needed_bytes == header.file_bytes


@given(cut=st.integers(min_value=1, max_value=10_000))
def test_a_file_cut_anywhere_in_its_header_is_truncated(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "x.gguf"
    content = raw.model()
    content.data = False
    whole = content.encode()
    path.write_bytes(whole[: max(4, len(whole) - 64 - cut % (len(whole) - 64))])
    assert code(path) == "incomplete.truncated"


def test_a_fifo_is_no_file_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.gguf")
    with pytest.raises(OSError, match="not a regular file"):
        read_header(tmp_path / "x.gguf")


def test_a_file_written_by_the_reference_writer_is_read(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    numpy = pytest.importorskip("numpy")
    writer = gguf.GGUFWriter(str(tmp_path / "x.gguf"), "llama")
    writer.add_context_length(77)
    writer.add_token_list(["a", "b"])
    writer.add_tensor("token_embd.weight", numpy.zeros((4, 8), dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(tmp_path / "x.gguf")
    assert header.number_of_architecture("context_length") == 77
    assert header.tensors[0].shape == (8, 4)
    assert header.needed_bytes <= header.file_bytes


def test_strings_are_stepped_over_alike_whether_short_or_long(tmp_path: Path) -> None:
    lengths = [*range(200), 0, *[3] * 500, MAX_SHORT_BYTES, MAX_SHORT_BYTES + 1, 300, 70_000]
    tokens = ["x" * length for length in lengths]
    metadata = {**raw.llama(), "tokenizer.ggml.tokens": tokens, "general.name": "after"}
    header = read_header(RawGGUF(metadata=metadata).write(tmp_path / "m.gguf"))
    assert header.array_lengths["tokenizer.ggml.tokens"] == len(tokens)
    assert header.text("general.name") == "after"


def test_a_length_is_read_in_all_its_bytes(tmp_path: Path) -> None:
    """They are 100 strings of 5 bytes, if only the first byte of their lengths counted."""
    strings = 100 * (struct.pack("<Q", 5 + (1 << 56)) + b"hello")
    payload = struct.pack("<IIQ", raw.ARRAY, raw.STRING, 100) + strings
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + raw.text("tokenizer.ggml.tokens")
    (tmp_path / "x.gguf").write_bytes(head + payload)
    assert code(tmp_path / "x.gguf") == "corrupt.bounds"
