from __future__ import annotations

from pathlib import Path

from backends.stub import gguf_question
from detect.gguf_header import read_header


def test_a_pre_tokenizer_is_asked_about_by_a_whole_small_file(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(gguf_question("pre:qwen2"))
    header = read_header(tmp_path / "x.gguf")
    assert header.metadata["tokenizer.ggml.pre"] == "qwen2"
    assert [tensor.name for tensor in header.tensors] == ["token_embd.weight"]


def test_an_architecture_is_asked_about_by_its_name_alone(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(gguf_question("llama"))
    header = read_header(tmp_path / "x.gguf")
    assert dict(header.metadata) == {"general.architecture": "llama"}
    assert not header.tensors
