from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path

import pytest

from detect.magic import Kind, sniff, sniff_file
from tests.detect import raw_gguf, raw_safetensors


def archive(member: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(member, b"x" * 10)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (raw_gguf.model().encode()[:100], Kind.GGUF),
        (raw_safetensors.encode({"a": ("U8", (1,))}), Kind.SAFETENSORS),
        (b"version https://git-lfs.github.com/spec/v1\n", Kind.LFS_POINTER),
        (b"", Kind.BLANK),
        (bytes(4096), Kind.BLANK),
        (b"\n <!DOCTYPE html>", Kind.PAGE),
        (b"<HTML>", Kind.PAGE),
        (b'{"error":"gated"}', Kind.PAGE),
        (archive("archive/data.pkl"), Kind.PICKLE),
        (archive("weights.npy"), Kind.NPZ),
        (archive("readme.txt"), Kind.ZIP),
        (pickle.dumps({"a": 1}), Kind.PICKLE),
        (b"lmgg" + struct.pack("<i", 32000), Kind.GGML),
        (b"lmgg" + struct.pack("<i", 51865), Kind.WHISPER),
        (b"tjgg" + bytes(8) + b"x", Kind.GGML),
        (b"nsgg" + b"x" * 8, Kind.SESSION),
        (b"\x7fELF" + b"x" * 8, Kind.EXECUTABLE),
        (b"MZqFpD='", Kind.EXECUTABLE),
        (b"xxxxTFL3xxxx", Kind.TFLITE),
        (b"LITERTLM....", Kind.LITERT),
        (b"hello", Kind.UNKNOWN),
    ],
)  # fmt: skip
def test_a_file_is_known_by_its_first_bytes(start: bytes, kind: Kind) -> None:
    assert sniff(start) is kind


@pytest.mark.parametrize("length", range(40))
def test_any_short_beginning_has_some_kind(length: int) -> None:
    for whole in (archive("archive/data.pkl"), b"lmgg" * 10, raw_gguf.model().encode()):
        assert sniff(whole[:length]) in Kind


def test_a_safetensors_length_that_looks_like_a_pickle_is_safetensors() -> None:
    header = b"{" + b" " * (0x0280 - 2) + b"}"
    assert sniff(struct.pack("<Q", 0x0280) + header) is Kind.SAFETENSORS


def test_a_file_is_sniffed_without_reading_it_all(tmp_path: Path) -> None:
    with open(tmp_path / "big", "wb") as file:
        file.write(b"GGUF")
        file.truncate(1 << 40)
    assert sniff_file(tmp_path / "big") is Kind.GGUF
