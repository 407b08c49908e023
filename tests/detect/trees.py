"""Folders of models of every kind that the tests can write, at rest."""

from __future__ import annotations

import os
from pathlib import Path

from tests.detect import raw_gguf, raw_safetensors
from tests.detect.raw_gguf import RawGGUF

raw = raw_safetensors

LAYERS = {
    "plain": raw.plain, "affine": raw.mlx(), "mxfp4": raw.mlx(4, 32, "mxfp4"), "gptq": raw.gptq(),
    "awq": raw.awq, "gemv": raw.awq_gemv, "bnb4": raw.bnb_4bit, "bnb8": raw.bnb_8bit,
    "fp8": raw.fp8_block, "channel": raw.fp8_channel, "ct4": raw.ct_int4, "hqq": raw.hqq,
    "exl2": raw.exl2, "exl3": raw.exl3, "quanto": raw.quanto, "bitnet": raw.bitnet,
    "higgs": raw.higgs, "aqlm": raw.aqlm, "marlin": raw.marlin,
}  # fmt: skip


def every_kind(root: Path) -> Path:
    """Models of every format and layout, broken ones, companions, and what is none."""
    for name, layer in LAYERS.items():
        raw.write_model(root / "org" / name, raw.dense(quantize=layer))
    raw.write_model(root / "org" / "moe", raw.mixture(stacked=True), raw.MOE_CONFIG)
    raw.write_shards(root / "org" / "sharded", raw.dense(), 3)
    broken = raw.write_shards(root / "org" / "lacking", raw.dense(), 3)
    (broken / "model-00002-of-00003.safetensors").unlink()
    short = raw.write_model(root / "org" / "short", raw.dense())
    os.truncate(short / "model.safetensors", 2000)
    (raw.write_model(root / "org" / "pointer", {}) / "model.safetensors").write_bytes(
        b"version https://git-lfs.github.com/spec/v1\nsize 31\n"
    )
    (raw.write_model(root / "org" / "odd", raw.dense()) / "config.json").write_text("[]")
    _ggufs(root / "ggufs")
    _others(root / "others")
    hub(root / "hub")
    return rest(root)


def _ggufs(root: Path) -> None:
    for label in ("Q4_K_M", "Q8_0"):
        raw_gguf.model(raw_gguf.Q8_0).write(root / "many" / f"many-{label}.gguf")
    raw_gguf.model().write(root / "sees" / "sees.gguf")
    raw_gguf.projector().write(root / "sees" / "mmproj.gguf")
    raw_gguf.write_split(root / "split", "split", 3)
    raw_gguf.write_split(root / "half", "half", 3)[1].unlink()
    (root / "half" / "half-00003-of-00003.gguf").write_bytes(b"GGUF")
    RawGGUF(metadata={"general.type": "imatrix"}).write(root / "imatrix" / "imatrix.gguf")
    (root / "gone").mkdir()
    (root / "gone" / "gone.gguf").symlink_to("nowhere.gguf")
    raw_gguf.model().write(root / "loose.gguf")


def _others(root: Path) -> None:
    for name, content in (
        ("pickle/pytorch_model.bin", b"\x80\x02x"),
        ("onnx/model.onnx", b"\x08\x01\x12"),
        ("diffusers/model_index.json", b"{}"),
        ("whisper/ggml-base.bin", b"lmgg" + (51865).to_bytes(4, "little")),
        ("part/x.gguf.part", b"GGUF"),
        ("config/config.json", b'{"model_type": "llama"}'),
        ("notes/README.md", b"hello"),
    ):
        path = root / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    os.mkfifo(root / "notes" / "pipe.gguf")


def hub(root: Path) -> Path:
    """A Hugging Face cache with one model; returns the model's blob."""
    repo = root / "models--org--name"
    blob = raw_gguf.model().write(repo / "blobs" / "abc")
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "name.gguf").symlink_to(Path("../../blobs/abc"))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    return blob


def rest(root: Path, seconds: float = 1_000_000_000) -> Path:
    """Date every file back, so that nothing counts as being written."""
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path, (seconds, seconds))
    return root
