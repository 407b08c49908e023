"""Formats that are recognised to be named, because no engine here loads them. Pure.

`FORMATS` is the table, in the order in which a folder with several kinds of files is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import translate
from functools import cache

from detect.hf_config import Configs
from detect.listing import Entry, Listing
from detect.magic import Kind
from detect.types import (
    Architecture,
    Evidence,
    ModelInfo,
    Problem,
    Role,
    Skipped,
    WeightFormat,
)

NOTHING = r"(?!)"
CONVERTED = "Look for a GGUF, MLX or safetensors version of the model."


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """`marks` are patterns of file and folder names, any of which is enough, unless `also` asks
    for another; `kinds` are what a sniffed file may be instead.
    """

    format: WeightFormat
    what: str
    marks: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    kinds: frozenset[Kind] = frozenset()
    role: Role = Role.UNKNOWN
    code: str = "unsupported.format"
    advice: str = CONVERTED

    @property
    def sentence(self) -> str:
        return f"It is {self.what}. {self.advice}"


PIPELINE = Foreign(
    format=WeightFormat.DIFFUSERS,
    what="a diffusers pipeline, for pictures or video",
    marks=("model_index.json", "*.dduf"),
    role=Role.DIFFUSION,
    code="unsupported.role",
    advice="Use it with a program for pictures.",
)

FORMATS: tuple[Foreign, ...] = (
    PIPELINE,
    Foreign(
        format=WeightFormat.LLAMAFILE,
        what="a llamafile, which is a program with a model inside",
        marks=("*.llamafile",),
        advice="Extract its GGUF (`unzip`), or download the GGUF of the model.",
    ),
    Foreign(
        format=WeightFormat.GGML,
        what="a whisper.cpp model, for speech",
        kinds=frozenset({Kind.WHISPER}),
        role=Role.SPEECH,
        advice="Use it with whisper.cpp.",
    ),
    Foreign(
        format=WeightFormat.GGML,
        what="a GGML model from before GGUF",
        kinds=frozenset({Kind.GGML}),
        advice="Download a GGUF version of the model.",
    ),
    Foreign(
        format=WeightFormat.OPENVINO,
        what="an OpenVINO model",
        marks=("openvino_model.xml", "openvino_language_model.xml"),
    ),
    Foreign(
        format=WeightFormat.CTRANSLATE2,
        what="a CTranslate2 model",
        marks=("model.bin",),
        also=("vocabulary.*", "shared_vocabulary.*"),
    ),
    Foreign(
        format=WeightFormat.TENSORRT_LLM,
        what="a TensorRT-LLM engine",
        marks=("rank*.engine", "*.engine", "rank0.safetensors"),
    ),
    Foreign(
        format=WeightFormat.MLC,
        what="an MLC model",
        marks=("mlc-chat-config.json", "ndarray-cache.json", "tensor-cache.json"),
    ),
    Foreign(
        format=WeightFormat.COREML,
        what="a Core ML model",
        marks=("*.mlpackage", "*.mlmodelc", "*.mlmodel"),
    ),
    Foreign(
        format=WeightFormat.TFLITE,
        what="a TensorFlow Lite or LiteRT model",
        marks=("*.tflite", "*.litertlm", "*.task"),
        kinds=frozenset({Kind.TFLITE, Kind.LITERT}),
    ),
    Foreign(
        format=WeightFormat.ONNX,
        what="an ONNX model",
        marks=("*.onnx", "genai_config.json"),
    ),
    Foreign(
        format=WeightFormat.NPZ,
        what="an MLX model of 2023, with weights in .npz",
        marks=("weights*.npz",),
        kinds=frozenset({Kind.NPZ}),
        advice="Download a newer MLX conversion, or convert the original with mlx_lm.convert.",
    ),
    Foreign(
        format=WeightFormat.PICKLE,
        what="a PyTorch pickle, which can run any code when it is opened",
        marks=(
            "pytorch_model*.bin", "consolidated.*.pth", "*.pt", "*.pth", "*.ckpt", "model.st",
            "qmodel.pt",
        ),
        kinds=frozenset({Kind.PICKLE}),
        code="unsafe.pickle",
        advice="Download a safetensors or GGUF version of the model.",
    ),
    Foreign(
        format=WeightFormat.TENSORFLOW,
        what="a TensorFlow model",
        marks=("tf_model*.h5", "saved_model.pb", "*.keras"),
        kinds=frozenset({Kind.HDF5}),
    ),
    Foreign(format=WeightFormat.FLAX, what="a Flax model", marks=("flax_model*.msgpack",)),
)  # fmt: skip


NAMED_ONLY = frozenset(candidate.format for candidate in FORMATS)


def find(
    listing: Listing,
    kinds: Mapping[str, Kind],
    configs: Configs,
    formats: Iterable[Foreign] = FORMATS,
) -> ModelInfo | None:
    """The folder's content as a model of the first format that applies."""
    names = [*listing.files, *listing.folders]
    for candidate in formats:
        if marked := _marked(candidate, names, kinds):
            return _model(candidate, listing, marked, configs)
    return None


def strays(listing: Listing, kinds: Mapping[str, Kind]) -> Iterator[Skipped]:
    """Files of such formats that lie beside models, each once."""
    named: set[str] = set()
    for candidate in FORMATS:
        for name in _marked(candidate, [*listing.files, *listing.folders], kinds):
            if name not in named:
                named.add(name)
                yield Skipped(listing.folder / name, candidate.code, candidate.sentence)


def _marked(candidate: Foreign, names: list[str], kinds: Mapping[str, Kind]) -> list[str]:
    found = list(filter(_any_of(candidate.marks).match, names))
    found += [n for n, kind in kinds.items() if kind in candidate.kinds and n not in found]
    if candidate.also and not any(map(_any_of(candidate.also).match, names)):
        return []
    return found


@cache
def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, patterns)) or NOTHING)


def _model(found: Foreign, listing: Listing, marked: list[str], configs: Configs) -> ModelInfo:
    entries: list[Entry] = [listing.files[name] for name in marked if name in listing.files]
    return ModelInfo(
        id="",
        path=listing.folder,
        files=tuple(entry.path for entry in entries),
        format=found.format,
        role=found.role,
        architecture=Architecture(
            hf_class=next(iter(configs.architectures), None), model_type=configs.model_type
        ),
        weights_bytes=sum(entry.size_bytes for entry in entries),
        problems=(Problem(found.code, found.sentence),),
        evidence=(Evidence("format", found.format.value, f"the file {marked[0]}"),),
    )
