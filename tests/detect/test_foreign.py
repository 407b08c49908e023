from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest

from detect.errors import NotAModelError
from detect.scan import inspect_path, scan
from detect.types import Role, WeightFormat
from tests.detect import raw_gguf
from tests.detect import raw_safetensors as raw

SAMPLES = [
    (WeightFormat.ONNX, {"model.onnx": b"\x08\x01\x12"}),
    (WeightFormat.OPENVINO, {"openvino_model.xml": b"<?xml ?><net>", "openvino_model.bin": b"x"}),
    (WeightFormat.CTRANSLATE2, {"model.bin": b"x", "vocabulary.json": b"[]", "config.json": b"{}"}),
    (WeightFormat.TENSORRT_LLM, {"rank0.engine": b"x", "config.json": b'{"build_config": {}}'}),
    (WeightFormat.TFLITE, {"model.tflite": b"xxxxTFL3"}),
    (WeightFormat.TFLITE, {"gemma.litertlm": b"LITERTLM"}),
    (WeightFormat.MLC, {"mlc-chat-config.json": b"{}", "params_shard_0.bin": b"x"}),
    (WeightFormat.LLAMAFILE, {"m.llamafile": b"MZqFpD='"}),
    (WeightFormat.GGML, {"ggml-model-q4_0.bin": b"tjgg" + struct.pack("<i", 3)}),
    (WeightFormat.GGML, {"ggml-base.bin": b"lmgg" + struct.pack("<i", 51865)}),
    (WeightFormat.NPZ, {"weights.npz": b"x", "config.json": b"{}"}),
    (WeightFormat.TENSORFLOW, {"tf_model.h5": b"\x89HDF\r\n\x1a\n"}),
    (WeightFormat.FLAX, {"flax_model.msgpack": b"x"}),
    (WeightFormat.DIFFUSERS, {"model_index.json": b'{"_class_name": "FluxPipeline"}'}),
    (WeightFormat.PICKLE, {"pytorch_model-00001-of-00001.bin": b"x"}),
    (WeightFormat.PICKLE, {"consolidated.00.pth": b"x"}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "files"), SAMPLES)
def test_a_format_no_engine_here_loads_is_named(
    tmp_path: Path, kind: WeightFormat, files: dict[str, bytes]
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    info = inspect_path(tmp_path)
    assert info.format is kind
    assert info.problems[0].message.startswith("It is ")
    assert info.evidence


def test_core_ml_models_are_folders(tmp_path: Path) -> None:
    (tmp_path / "m" / "model.mlpackage").mkdir(parents=True)
    assert inspect_path(tmp_path / "m").format is WeightFormat.COREML


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_unsafe_and_never_opened(tmp_path: Path) -> None:
    folder, canary = tmp_path / "m", tmp_path / "canary"
    folder.mkdir()
    payload = pickle.dumps(Canary(canary))
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as file:
        file.writestr("archive/data.pkl", payload)
    (folder / "odd.bin").write_bytes(payload)
    (folder / "config.json").write_text(json.dumps(dict(raw.CONFIG)))
    info = inspect_path(folder)
    assert info.format is WeightFormat.PICKLE
    assert info.problems[0].code == "unsafe.pickle"
    assert info.broken
    assert not canary.exists()


def test_a_pickle_beside_safetensors_does_not_matter(tmp_path: Path) -> None:
    folder = raw.write_model(tmp_path / "m", raw.dense())
    (folder / "pytorch_model.bin").write_bytes(b"x")
    assert inspect_path(folder).format is WeightFormat.SAFETENSORS


def test_whisper_speaks_and_pipelines_draw(tmp_path: Path) -> None:
    (tmp_path / "ggml-base.bin").write_bytes(b"lmgg" + struct.pack("<i", 51864))
    assert inspect_path(tmp_path).role is Role.SPEECH
    folder = raw.write_model(tmp_path / "flux", raw.dense(), model_index={"_class_name": "X"})
    assert inspect_path(folder).role is Role.DIFFUSION


def test_uqff_is_known_with_its_residual(tmp_path: Path) -> None:
    tensors = {
        f"model.layers.0.{name}{suffix}": ("U8", (4,))
        for name in ("q", "k")
        for suffix in (".weight", ".weight.format")
    }
    folder = raw.write_model(tmp_path / "m", tensors, name="q4k-0.uqff")
    (folder / "residual.safetensors").write_bytes(raw.encode({"norm.weight": ("BF16", (4,))}))
    info = inspect_path(folder)
    assert info.format is WeightFormat.UQFF
    assert [file.name for file in info.files] == ["q4k-0.uqff", "residual.safetensors"]
    assert info.quantization is not None
    assert info.quantization.method == "uqff"
    assert not info.broken


def skipped(root: Path) -> dict[str, str]:
    return {str(s.path.relative_to(root)): s.reason for s in scan([root]).skipped}


def test_a_stray_foreign_file_is_skipped_with_its_format_and_hides_no_model(tmp_path: Path) -> None:
    raw_gguf.model().write(tmp_path / "good.gguf")
    raw.write_model(tmp_path / "org" / "m", raw.dense())
    for stray in (tmp_path / "model.onnx", tmp_path / "org" / "loose.onnx"):
        stray.write_bytes(b"\x08\x01\x12")
    assert [model.id for model in scan([tmp_path]).models] == ["good", "org/m"]
    assert {name: reason[:17] for name, reason in skipped(tmp_path).items()} == {
        "model.onnx": "It is an ONNX mod",
        "org/loose.onnx": "It is an ONNX mod",
    }


def test_a_models_folder_with_nothing_but_a_stray_file_holds_no_model(tmp_path: Path) -> None:
    (tmp_path / "loose.onnx").write_bytes(b"\x08\x01\x12")
    report = scan([tmp_path])
    assert not report.models
    assert [(s.path.name, s.code) for s in report.skipped] == [("loose.onnx", "unsupported.format")]


def test_a_folder_of_models_does_not_propose_itself(tmp_path: Path) -> None:
    for name in ("a", "b"):
        raw.write_model(tmp_path / name, raw.dense())
    (tmp_path / "loose.safetensors").write_bytes(raw.encode(raw.dense()))
    (tmp_path / "loose.onnx").write_bytes(b"\x08\x01\x12")
    with pytest.raises(NotAModelError) as caught:
        inspect_path(tmp_path)
    names = [tmp_path / "loose.safetensors", tmp_path / "a", tmp_path / "b"]
    assert caught.value.message.endswith(": " + ", ".join(map(str, names)) + ".")


def test_a_stray_file_that_is_asked_for_is_named_as_what_it_is(tmp_path: Path) -> None:
    raw_gguf.model().write(tmp_path / "good.gguf")
    (tmp_path / "loose.onnx").write_bytes(b"\x08\x01\x12")
    info = inspect_path(tmp_path / "loose.onnx")
    assert (info.id, info.format) == ("loose", WeightFormat.ONNX)
    assert inspect_path(tmp_path).id == tmp_path.name
