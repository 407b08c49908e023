"""What a file is, by its first bytes and never by its name alone."""

from __future__ import annotations

import struct
from enum import StrEnum
from pathlib import Path

from detect.errors import HeaderError
from detect.regular_file import read_start

SNIFFED_BYTES = 4096
MAX_SAFETENSORS_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library itself ("header too large")."""

LFS_MAGIC = b"version https://git-lfs"


class Kind(StrEnum):
    """A sniffed file. The value completes "it is …"."""

    GGUF = "a GGUF file"
    SAFETENSORS = "a safetensors file"
    LFS_POINTER = "a Git-LFS pointer"
    BLANK = "empty or all zeros"
    PAGE = "a web page or an error message"
    PICKLE = "a PyTorch pickle"
    NPZ = "a NumPy archive"
    ZIP = "a zip archive"
    GGML = "a GGML file from before GGUF"
    WHISPER = "a whisper.cpp model"
    SESSION = "a saved llama.cpp session"
    EXECUTABLE = "an executable"
    TFLITE = "a TensorFlow Lite model"
    LITERT = "a LiteRT-LM model"
    HDF5 = "an HDF5 file"
    UNKNOWN = "of an unknown kind"


MAGICS: tuple[tuple[int, bytes, Kind], ...] = (
    (0, b"GGUF", Kind.GGUF),
    (0, b"FUGG", Kind.GGUF),
    (0, LFS_MAGIC, Kind.LFS_POINTER),
    (0, b"lmgg", Kind.GGML),
    (0, b"fmgg", Kind.GGML),
    (0, b"tjgg", Kind.GGML),
    (0, b"algg", Kind.GGML),
    (0, b"nsgg", Kind.SESSION),
    (0, b"qsgg", Kind.SESSION),
    (0, b"PK\x03\x04", Kind.ZIP),
    (0, b"\x80\x02\x8a\x0a\x6c\xfc", Kind.PICKLE),
    (0, b"\x80\x02", Kind.PICKLE),
    (0, b"\x80\x03", Kind.PICKLE),
    (0, b"\x80\x04", Kind.PICKLE),
    (0, b"\x80\x05", Kind.PICKLE),
    (0, b"MZqFpD", Kind.EXECUTABLE),
    (0, b"\x7fELF", Kind.EXECUTABLE),
    (4, b"TFL3", Kind.TFLITE),
    (0, b"LITERTLM", Kind.LITERT),
    (0, b"\x89HDF\r\n\x1a\n", Kind.HDF5),
)
"""Pickle's protocol byte is two bytes only: a safetensors length may look like it, see `sniff`."""

PAGE_STARTS = (b"<!doctype", b"<html", b"<head", b'{"error', b"<?xml version", b"access to model")
WHISPER_VOCABULARIES = (51864, 51865, 51866)


def sniff(start: bytes) -> Kind:
    """The kind of a file that begins with `start`."""
    if not any(start[:SNIFFED_BYTES]):
        return Kind.BLANK
    if _begins_like_safetensors(start):
        return Kind.SAFETENSORS
    kind = next((k for at, magic, k in MAGICS if start.startswith(magic, at)), Kind.UNKNOWN)
    if kind is Kind.ZIP:
        return _sniff_zip(start)
    if kind is Kind.GGML and _is_whisper(start):
        return Kind.WHISPER
    if kind is Kind.UNKNOWN and start[:64].lstrip().lower().startswith(PAGE_STARTS):
        return Kind.PAGE
    return kind


def sniff_file(path: Path) -> Kind:
    """Raises OSError when the file cannot be read."""
    return sniff(read_start(path, SNIFFED_BYTES)[0])


def refuse_impostor(path: Path, start: bytes) -> None:
    """For a weight file that is something else altogether.

    Raises:
        HeaderError: it is a Git-LFS pointer, blank or a web page; the sentence says what to do.
    """
    kind = sniff(start)
    if kind is Kind.LFS_POINTER:
        raise _lfs_pointer(path, start)
    if kind is Kind.BLANK:
        raise HeaderError(
            "incomplete.partial",
            f"{path.name} is empty or all zeros: the download did not finish. Download it again.",
        )
    if kind is Kind.PAGE:
        raise HeaderError(
            "corrupt.header",
            f"{path.name} is an HTML or JSON error page saved as a model file. Download it again, "
            "signed in if the model is gated.",
        )


def _begins_like_safetensors(start: bytes) -> bool:
    if len(start) < 9 or start[8:9] != b"{":
        return False
    (length,) = struct.unpack_from("<Q", start)
    return bool(2 <= length <= MAX_SAFETENSORS_HEADER_BYTES)


def _sniff_zip(start: bytes) -> Kind:
    """By the name of the archive's first member, which stands uncompressed in its head."""
    if len(start) < 30:
        return Kind.ZIP
    (length,) = struct.unpack_from("<H", start, 26)
    name = start[30 : 30 + length]
    if name.endswith(b".npy"):
        return Kind.NPZ
    pickled = name.endswith((b"data.pkl", b"constants.pkl")) or b"/data" in name
    return Kind.PICKLE if pickled or b".pkl" in start else Kind.ZIP


def _is_whisper(start: bytes) -> bool:
    if len(start) < 8:
        return False
    return struct.unpack_from("<i", start, 4)[0] in WHISPER_VOCABULARIES


def _lfs_pointer(path: Path, start: bytes) -> HeaderError:
    sizes = (line[5:] for line in start[:1024].splitlines() if line.startswith(b"size "))
    digits = next(sizes, b"")
    real = f" of a file of {int(digits):,} bytes" if digits.isdigit() and len(digits) < 20 else ""
    return HeaderError(
        "incomplete.lfs_pointer",
        f"{path.name} is only a Git-LFS pointer{real}. Run `git lfs pull` in its folder, "
        "or download the model again with `hf download`.",
    )
