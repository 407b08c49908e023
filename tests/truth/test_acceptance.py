"""The acceptance table of the specification: what each fixture is, and what every engine says.

The numbers in the ids are its rows. Headers are enough here: the matrix loads.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backends.base import Backend
from detect.errors import NotAModelError
from detect.scan import inspect_path, scan
from detect.types import ModelInfo, WeightFormat
from tests.detect import raw_gguf
from tests.detect import raw_safetensors as raw
from tests.detect.raw_gguf import RawGGUF
from tests.engines import short
from tests.truth.checkpoint import aged
from tests.truth.embedders import embedder

Make = Callable[[Path], Path]

YES, LIMITED = "yes", "limited"
FORMAT, QUANT, ARCH = "unsupported.format", "unsupported.quant", "unsupported.arch"
PLATFORM, ROLE = "unsupported.quant_on_platform", "unsupported.role"
CONFLICT, LAYOUT = "conflict.config_vs_tensors", "conflict.layout"
TOKENIZER, MMPROJ, BASE = "missing.tokenizer", "missing.mmproj", "missing.base_model"
HEADER, BOUNDS = "corrupt.header", "corrupt.bounds"
SHARD, TRUNCATED = "incomplete.missing_shard", "incomplete.truncated"

MLX, GGUF, SAFETENSORS = WeightFormat.MLX, WeightFormat.GGUF, WeightFormat.SAFETENSORS


@dataclass(frozen=True, slots=True)
class Row:
    """`says` are the codes of mlx on CPU, llama.cpp and mistral.rs on CPU; one code where the
    files are to blame. `label` is the quantisation's, and `problem` one that must be told."""

    make: Make
    format: WeightFormat
    says: tuple[str, str, str] | str
    label: str = ""
    problem: str = ""


# Makers


def folder_of(
    tensors: Mapping[str, raw.Spec], config: Mapping[str, Any] = raw.CONFIG, **options: Any
) -> Make:
    return lambda folder: raw.write_model(folder, tensors, config, **options)


def dense(layer: Any = None, **config: Any) -> Make:
    """Embeddings and head stay plain, as most tools leave them."""
    return folder_of(raw.dense(quantize=layer), {**raw.CONFIG, **config})


def mixture(layer: Any = None, **config: Any) -> Make:
    return folder_of(raw.mixture(quantize=layer), {**raw.MOE_CONFIG, **config})


def mlx(layer: Any, tensors: Mapping[str, raw.Spec] | None = None, **claim: Any) -> Make:
    packed = tensors or raw.dense(quantize=layer, embeddings=layer)
    return folder_of(packed, {**raw.CONFIG, "quantization": claim, "quantization_config": claim})


FOUR_BIT, EIGHT_BIT = raw.mlx(4, 64), raw.mlx(8, 64)
FOUR: dict[str, Any] = {"bits": 4, "group_size": 64}
EIGHT: dict[str, Any] = {"bits": 8, "group_size": 64}


def seed(router: Any = EIGHT_BIT, **changes: Any) -> Make:
    gates = {f"model.layers.{n}.mlp.gate": EIGHT for n in range(raw.LAYERS)}
    claim = {**FOUR, **(gates if router is EIGHT_BIT else {})}
    tensors = raw.mixture(quantize=FOUR_BIT, router=router, stacked=True)
    config = {**raw.MOE_CONFIG, "quantization": claim, "quantization_config": claim, **changes}
    return folder_of(tensors, config, metadata={"format": "mlx"})


def larger_down_proj(prefix: str, outputs: int, inputs: int) -> dict[str, raw.Spec]:
    layer = EIGHT_BIT if prefix.endswith("down_proj") else FOUR_BIT
    made: dict[str, raw.Spec] = layer(prefix, outputs, inputs)
    return made


def mlx_vision(folder: Path) -> Path:
    tensors = raw.dense(quantize=FOUR_BIT, embeddings=FOUR_BIT, prefix="language_model.")
    tensors["vision_tower.patch_embed.proj.weight"] = ("BF16", (8, 2, 14, 14, 3))
    config = {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "text_config": dict(raw.CONFIG),
        "vision_config": {"hidden_size": 8},
        "quantization": FOUR,
        "quantization_config": FOUR,
    }
    return raw.write_model(folder, tensors, config)


def claims(method: str, **more: Any) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": method, **more}}


def gpt_oss(folder: Path) -> Path:
    """With the two copies that are published beside it."""
    config = {
        **raw.CONFIG,
        **claims("mxfp4"),
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "num_local_experts": raw.EXPERTS,
        "num_experts_per_tok": 2,
    }
    tensors = raw.dense(raw.ATTENTION) | raw.gpt_oss_experts()
    raw.write_model(folder, tensors, config)
    raw.write_model(folder / "original", tensors, None, name="model--1.safetensors")
    (folder / "metal").mkdir()
    (folder / "metal" / "model.bin").write_bytes(bytes(4096))
    return folder


def files(**content: bytes) -> Make:
    """`model__bin` is `model.bin`."""

    def make(folder: Path) -> Path:
        folder.mkdir()
        for name, data in content.items():
            (folder / name.replace("__", ".")).write_bytes(data)
        return folder

    return make


def gguf(model: RawGGUF | bytes | None = None, name: str = "m.gguf") -> Make:
    def make(folder: Path) -> Path:
        folder.mkdir()
        given = model if model is not None else raw_gguf.model()
        (folder / name).write_bytes(given if isinstance(given, bytes) else given.encode())
        return folder

    return make


def split(folder: Path, drop: int | None = None) -> Path:
    paths = raw_gguf.write_split(folder, "m", 3)
    if drop is not None:
        paths[drop].unlink()
    return folder


def with_projectors(folder: Path) -> Path:
    raw_gguf.model(architecture="qwen2vl").write(folder / "m.gguf")
    raw_gguf.projector().write(folder / "mmproj-F16.gguf")
    raw_gguf.projector(30).write(folder / "mmproj-BF16.gguf")
    return folder


def pickle(folder: Path) -> Path:
    folder.mkdir()
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02.")
    return folder


def sentence_transformer(folder: Path) -> Path:
    raw.write_model(folder, raw.dense(), modules={}, config_sentence_transformers={})
    return folder


def vectors(**options: Any) -> Make:
    changes = {key: options.pop(key) for key in ("architectures", "model_type") if key in options}

    def make(folder: Path) -> Path:
        embedder(folder, **options)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))
        return folder

    return make


def weights(content: bytes) -> Make:
    def make(folder: Path) -> Path:
        dense()(folder)
        (folder / "model.safetensors").write_bytes(content)
        return folder

    return make


POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3100000000\n"
)
ONE = {"a.weight": ("F32", (4, 4))}


def damaged(**entry: Any) -> bytes:
    """One tensor, described wrongly."""
    described = {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64], **entry}
    return raw.frame(json.dumps({"a.weight": described}).encode(), 64)


def nested_array(depth: int) -> raw_gguf.Typed:
    value = raw_gguf.Typed(raw_gguf.ARRAY, [1], raw_gguf.I32)
    for _ in range(depth):
        value = raw_gguf.Typed(raw_gguf.ARRAY, [value], raw_gguf.ARRAY)
    return value


def without(key: str) -> RawGGUF:
    model = raw_gguf.model()
    return RawGGUF(
        metadata={k: v for k, v in model.metadata.items() if k != key}, tensors=model.tensors
    )


def inner(**tensors: Any) -> RawGGUF:
    """A text model with other tensors in its file."""
    model = raw_gguf.model(architecture="gemma3")
    return RawGGUF(metadata=model.metadata, tensors={**model.tensors, **tensors})


IQ4_XS = 23
LONG_TEXT = raw_gguf.text("key") + struct.pack("<IQ", raw_gguf.STRING, 2**62) + bytes(100)
WHOLE = raw_gguf.model().encode()

ROWS: dict[str, Row] = {
    "1 the seed": Row(seed(), MLX, (YES, FORMAT, LAYOUT), "4-bit affine g64 mixed"),
    "2 the seed, router as the rest": Row(
        seed(FOUR_BIT), MLX, (YES, FORMAT, LAYOUT), "4-bit affine g64"),
    "3 the seed under a dense name": Row(
        seed(architectures=["Qwen3ForCausalLM"]), MLX, (YES, FORMAT, LAYOUT),
        "4-bit affine g64 mixed", CONFLICT),
    "4 mlx 4 bit": Row(mlx(FOUR_BIT, **FOUR), MLX, (YES, FORMAT, YES), "4-bit affine g64"),
    "5 mlx, only quantization": Row(
        folder_of(raw.dense(quantize=FOUR_BIT, embeddings=FOUR_BIT),
                  {**raw.CONFIG, "quantization": FOUR}),
        MLX, (YES, FORMAT, CONFLICT), "4-bit affine g64"),
    "6 mlx 5 bit": Row(mlx(raw.mlx(5, 64), bits=5, group_size=64), MLX, (YES, FORMAT, QUANT),
                       "5-bit affine g64"),
    "7 mlx, down_proj of 8 bit": Row(
        mlx(None, raw.dense(quantize=larger_down_proj, embeddings=FOUR_BIT), **FOUR),
        MLX, (YES, FORMAT, QUANT), "4-bit affine g64 mixed"),
    "8 mlx mxfp4": Row(mlx(raw.mlx(4, 32, "mxfp4"), bits=4, group_size=32, mode="mxfp4"),
                       MLX, (YES, FORMAT, QUANT), "4-bit mxfp4 g32"),
    "9 mlx nvfp4": Row(mlx(raw.mlx(4, 16, "nvfp4"), bits=4, group_size=16, mode="nvfp4"),
                       MLX, (YES, FORMAT, QUANT), "4-bit nvfp4 g16"),
    "10 mlx mxfp8": Row(mlx(raw.mlx(8, 32, "mxfp8"), bits=8, group_size=32, mode="mxfp8"),
                        MLX, (YES, FORMAT, QUANT), "8-bit mxfp8 g32"),
    "12 mlx bf16": Row(folder_of(raw.dense(), metadata={"format": "mlx"}), MLX,
                       (YES, FORMAT, YES)),
    "13 mlx bf16 mixture": Row(folder_of(raw.mixture(stacked=True), raw.MOE_CONFIG), MLX,
                               (PLATFORM, FORMAT, LAYOUT)),
    "14 weights.npz": Row(files(weights__npz=b"PK\x03\x04", config__json=b'{"model_type": "x"}'),
                          WeightFormat.NPZ, (FORMAT, FORMAT, FORMAT)),
    "16 mlx with a vision tower": Row(mlx_vision, MLX, (LIMITED, FORMAT, LAYOUT)),
    "18 one GGUF": Row(gguf(), GGUF, (FORMAT, YES, YES), "Q4_K"),
    "19 three shards": Row(split, GGUF, (FORMAT, YES, YES)),
    "20 one of three shards missing": Row(lambda f: split(f, 1), GGUF, SHARD),
    "22 GGUF and two mmproj": Row(with_projectors, GGUF, (FORMAT, YES, LIMITED)),
    "26 GGUF 1": Row(gguf(RawGGUF(version=1)), GGUF, "unsupported.gguf_version"),
    "27 GGUF big-endian": Row(gguf(b"GGUF" + struct.pack(">I", 3) + bytes(64)), GGUF,
                              "unsupported.endianness"),
    "28 GGUF 4": Row(gguf(RawGGUF(version=4)), GGUF, "unsupported.gguf_version"),
    "29 2^40 entries": Row(gguf(RawGGUF(entry_count=2**40)), GGUF, BOUNDS),
    "30 a text of 2^62": Row(
        gguf(RawGGUF(entry_count=1).encode() + LONG_TEXT), GGUF, BOUNDS),
    "30 arrays in arrays": Row(
        gguf(RawGGUF(metadata={"a": nested_array(100)})), GGUF, BOUNDS),
    "31 data cut off": Row(gguf(WHOLE[:-100]), GGUF, TRUNCATED),
    "31 header cut off": Row(gguf(WHOLE[:200]), GGUF, TRUNCATED),
    "32 tensors of type 99": Row(gguf(raw_gguf.model(99)), GGUF, "unsupported.gguf_type"),
    "34 GGUF IQ4_XS": Row(gguf(raw_gguf.model(IQ4_XS)), GGUF, (FORMAT, YES, QUANT)),
    "35 GGUF olmo2": Row(gguf(raw_gguf.model(architecture="olmo2")), GGUF, (FORMAT, YES, ARCH)),
    "36 GGUF fooarch": Row(gguf(raw_gguf.model(architecture="fooarch")), GGUF,
                           (FORMAT, ARCH, ARCH)),
    "37 GGUF gemma4 without mmproj": Row(gguf(raw_gguf.model(architecture="gemma4")), GGUF,
                                         (FORMAT, YES, MMPROJ)),
    "38 GGUF flux": Row(gguf(raw_gguf.model(architecture="flux")), GGUF, (FORMAT, ROLE, ROLE)),
    "39 GGUF bert": Row(gguf(raw_gguf.model(architecture="bert", pooling_type=1)), GGUF,
                        (FORMAT, YES, ROLE)),
    "40 GGUF reranker": Row(gguf(raw_gguf.model(architecture="bert", pooling_type=4)), GGUF,
                            (FORMAT, YES, ROLE)),
    "42 GGUF gptoss": Row(gguf(raw_gguf.model(architecture="gptoss")), GGUF,
                          (FORMAT, ARCH, ARCH)),
    "42 GGUF gemma3 with its tower": Row(
        gguf(inner(**{"v.patch_embd.weight": (raw_gguf.F32, (32, 32))})), GGUF,
        (FORMAT, ARCH, ARCH)),
    "44 plain, sharded": Row(lambda f: raw.write_shards(f, raw.dense(), 3), SAFETENSORS,
                             (YES, FORMAT, YES)),
    "45 plain mixture": Row(mixture(), SAFETENSORS, (PLATFORM, FORMAT, YES)),
    "48 Git-LFS pointer": Row(weights(POINTER), SAFETENSORS, "incomplete.lfs_pointer"),
    "49 header of 2^63": Row(weights(struct.pack("<Q", 2**63) + b"{}"), SAFETENSORS, HEADER),
    "49 header of 1e8 + 1": Row(
        weights(struct.pack("<Q", 10**8 + 1) + b"{}"), SAFETENSORS, HEADER),
    "49 header of 0": Row(weights(struct.pack("<Q", 0) + b"{}"), SAFETENSORS, HEADER),
    "50 gap": Row(weights(damaged(data_offsets=[8, 64])), SAFETENSORS, HEADER),
    "50 wrong size": Row(weights(damaged(shape=[4, 5])), SAFETENSORS, HEADER),
    "50 trailing bytes": Row(weights(raw.encode(ONE) + b"more"), SAFETENSORS, HEADER),
    "50 unknown dtype": Row(weights(damaged(dtype="F7")), SAFETENSORS, HEADER),
    "50 a number in the metadata": Row(
        weights(raw.encode(ONE, __metadata__={"a": 1})), SAFETENSORS, HEADER),
    "51 a web page": Row(gguf(b"<!DOCTYPE html><html>"), GGUF, HEADER),
    "52 an empty file": Row(gguf(b""), GGUF, "incomplete.partial"),
    "52 zeros": Row(gguf(bytes(4096)), GGUF, "incomplete.partial"),
    "53 gptq": Row(dense(raw.gptq(4, 128), **claims("gptq", bits=4, group_size=128)), SAFETENSORS,
                   (QUANT, FORMAT, PLATFORM), "gptq 4-bit g128"),
    "56 awq gemm": Row(dense(raw.awq, **claims("awq", bits=4, group_size=64)), SAFETENSORS,
                       (YES, FORMAT, PLATFORM), "awq 4-bit gemm g64"),
    "57 awq mixture": Row(mixture(raw.awq, **claims("awq", bits=4, group_size=64)), SAFETENSORS,
                          (QUANT, FORMAT, PLATFORM), "awq 4-bit gemm g64"),
    "58 awq gemv_fast": Row(dense(raw.awq_gemv_fast, **claims("awq", bits=4, group_size=64)),
                            SAFETENSORS, (QUANT, FORMAT, PLATFORM), "awq 4-bit gemv_fast g64"),
    "60 bnb nf4, tied": Row(
        folder_of(raw.dense(quantize=raw.bnb_4bit, tied=True),
                  {**raw.CONFIG, "tie_word_embeddings": True,
                   **claims("bitsandbytes", load_in_4bit=True)}),
        SAFETENSORS, (QUANT, FORMAT, YES), "bitsandbytes 4-bit nf4 g64"),
    "62 bnb int8": Row(dense(raw.bnb_8bit, **claims("bitsandbytes", load_in_8bit=True)),
                       SAFETENSORS, (QUANT, FORMAT, QUANT), "bitsandbytes 8-bit int8"),
    "64 fp8 block": Row(dense(raw.fp8_block, **claims("fp8", weight_block_size=[128, 128])),
                        SAFETENSORS, (QUANT, FORMAT, YES), "fp8 8-bit block g128"),
    "65 fp8 block mixture": Row(
        mixture(raw.fp8_block, **claims("fp8", weight_block_size=[128, 128])),
        SAFETENSORS, (QUANT, FORMAT, PLATFORM), "fp8 8-bit block g128"),
    "66 fp8 without scales": Row(dense(raw.fp8_raw), SAFETENSORS, (QUANT, FORMAT, CONFLICT),
                                 "fp8 8-bit raw"),
    "68 deepseek_v3 in fp8": Row(
        mixture(raw.fp8_block, **claims("fp8", weight_block_size=[128, 128]),
                architectures=["DeepseekV3ForCausalLM"], model_type="deepseek_v3"),
        SAFETENSORS, (YES, FORMAT, PLATFORM), "fp8 8-bit block g128"),
    "69 compressed-tensors int4": Row(
        dense(raw.ct_int4, **claims("compressed-tensors", format="pack-quantized")),
        SAFETENSORS, (QUANT, FORMAT, QUANT)),
    "70 compressed-tensors fp8": Row(
        dense(raw.fp8_channel, **claims(
            "compressed-tensors", format="float-quantized", ignore=["lm_head"])),
        SAFETENSORS, (QUANT, FORMAT, YES)),
    "72 gpt_oss mxfp4": Row(gpt_oss, SAFETENSORS, (YES, FORMAT, YES), "mxfp4 4-bit g32"),
    **{f"73 {name}": Row(dense(layer, **claims(name)), SAFETENSORS, (QUANT, FORMAT, QUANT))
       for name, layer in (("hqq", raw.hqq), ("eetq", raw.eetq), ("quanto", raw.quanto),
                           ("torchao", raw.torchao), ("aqlm", raw.aqlm), ("exl2", raw.exl2),
                           ("exl3", raw.exl3))},
    "75 pytorch_model.bin": Row(pickle, WeightFormat.PICKLE, "unsafe.pickle"),
    **{f"76 {kind.value} {number}": Row(files(**content), kind, (FORMAT, FORMAT, FORMAT))
       for number, (kind, content) in enumerate((
           (WeightFormat.ONNX, {"model__onnx": b"\x08\x01\x12"}),
           (WeightFormat.OPENVINO, {"openvino_model__xml": b"<?xml ?><net>"}),
           (WeightFormat.CTRANSLATE2, {"model__bin": b"x", "vocabulary__json": b"[]",
                                       "config__json": b"{}"}),
           (WeightFormat.TENSORRT_LLM, {"rank0__engine": b"x",
                                        "config__json": b'{"build_config": {}}'}),
           (WeightFormat.TFLITE, {"model__tflite": b"xxxxTFL3"}),
           (WeightFormat.LLAMAFILE, {"m__llamafile": b"MZqFpD='"}),
           (WeightFormat.GGML, {"ggml-model-q4_0__bin": b"tjgg\3\0\0\0"}),
           (WeightFormat.GGML, {"ggml-base__bin": b"lmgg" + struct.pack("<i", 51865)}),
           (WeightFormat.DIFFUSERS, {"model_index__json": b'{"_class_name": "FluxPipeline"}'}),
       ))},
    "78 whisper": Row(
        dense(architectures=["WhisperForConditionalGeneration"], model_type="whisper"),
        SAFETENSORS, (ROLE, FORMAT, ROLE)),
    "78 t5": Row(dense(architectures=["T5ForConditionalGeneration"], model_type="t5"),
                 SAFETENSORS, (ARCH, FORMAT, ARCH)),
    "80 embeddings of sentence-transformers": Row(sentence_transformer, SAFETENSORS,
                                                  (ROLE, FORMAT, ROLE)),
    "80 qwen3 for embeddings": Row(vectors(), SAFETENSORS, (YES, FORMAT, ROLE)),
    "80 mlx qwen3 for embeddings": Row(vectors(bits=4), MLX, (YES, FORMAT, ROLE)),
    "80 pooling that nobody has": Row(vectors(mode="max"), SAFETENSORS, (ROLE, FORMAT, ROLE)),
    "80 a layer behind the pooling": Row(vectors(modules=("Dense",)), SAFETENSORS,
                                         (ROLE, FORMAT, ROLE)),
    "80 embeddings by code of its own": Row(vectors(auto_map={"AutoModel": "a.B"}), SAFETENSORS,
                                            ("unsafe.remote_code", FORMAT, ROLE)),
    "80 embeddings from both sides": Row(vectors(use_bidirectional_attention=True), SAFETENSORS,
                                         (ARCH, FORMAT, ROLE)),
    "80 embeddings of no decoder": Row(
        vectors(architectures=["BertModel"], model_type="bert"), SAFETENSORS,
        (ARCH, FORMAT, ROLE)),
    "81 architectures null": Row(dense(architectures=None), SAFETENSORS,
                                 (YES, FORMAT, CONFLICT), "", CONFLICT),
    "81 two architectures": Row(dense(architectures=["A", "B"]), SAFETENSORS,
                                (YES, FORMAT, CONFLICT), "", CONFLICT),
    "82 no tokenizer": Row(folder_of(raw.dense(), tokenizer=False), SAFETENSORS,
                           (TOKENIZER, FORMAT, TOKENIZER), "", TOKENIZER),
    "90 olmo, whose module ends the process": Row(
        dense(model_type="olmo", architectures=["OlmoForCausalLM"]), SAFETENSORS,
        (ARCH, FORMAT, ARCH)),
    "91 model_file": Row(dense(model_file="evil.py"), SAFETENSORS,
                         ("unsafe.remote_code", FORMAT, YES), "", "unsafe.remote_code"),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_what_it_is_and_what_runs_it(
    engines: tuple[Backend, ...], tmp_path: Path, row: Row
) -> None:
    info = inspect_path(aged(row.make(tmp_path / "m")))
    verdicts = [engine.verdict(info) for engine in engines]
    said = tuple(map(short, verdicts))
    expected = row.says if isinstance(row.says, tuple) else (row.says,) * len(engines)
    assert said == expected, [verdict.reason for verdict in verdicts]
    assert info.format is row.format
    assert info.quantization is None or row.label in ("", info.quantization.label)
    assert not row.problem or row.problem in [problem.code for problem in info.problems]
    assert not any("cannot find tensor" in verdict.reason for verdict in verdicts)


NO_MODELS: dict[str, tuple[Make, str]] = {
    "23 only an mmproj": (gguf(raw_gguf.projector(), "mmproj-F16.gguf"), BASE),
    "24 imatrix": (gguf(RawGGUF(metadata={"general.type": "imatrix"}), "imatrix.gguf"), ROLE),
    "24 vocabulary": (gguf(RawGGUF(metadata=raw_gguf.llama()), "vocab.gguf"), ROLE),
    "25 GGUF adapter": (
        gguf(RawGGUF(metadata={"general.type": "adapter", "adapter.type": "lora"},
                     tensors={"blk.0.lora_a": (raw_gguf.F32, (4,))})), BASE),
    "79 PEFT adapter": (
        folder_of({"base_model.model.layers.0.q.lora_A.weight": ("F32", (4, 4))},
                  name="adapter_model.safetensors", adapter_config={"peft_type": "LORA"}), BASE),
    "79 mlx adapter": (
        folder_of({"model.layers.0.self_attn.q_proj.lora_a": ("F32", (4, 4))},
                  name="adapters.safetensors", adapter_config={"fine_tune_type": "lora"}), BASE),
}  # fmt: skip


@pytest.mark.parametrize(("make", "code"), NO_MODELS.values(), ids=NO_MODELS)
def test_what_is_no_model_is_not_listed_and_says_why(tmp_path: Path, make: Make, code: str) -> None:
    folder = make(tmp_path / "m")
    assert scan([tmp_path]).models == ()
    with pytest.raises(NotAModelError) as caught:
        inspect_path(folder)
    assert caught.value.code == code


def the_reason(engine: Backend, make: Make, folder: Path) -> str:
    verdict = engine.verdict(inspect_path(aged(make(folder))))
    return f"{verdict.reason} {verdict.remedy}"


def test_the_sentences_name_what_the_table_asks_for(
    engines: tuple[Backend, ...], tmp_path: Path
) -> None:
    mlx_engine, llama, mistral = engines
    build = llama.installation().version
    assert build is not None
    router = the_reason(mistral, seed(), tmp_path / "1")
    assert "router" in router
    assert "quantis" in the_reason(mlx_engine, ROWS["13 mlx bf16 mixture"].make, tmp_path / "13")
    unknown = the_reason(llama, ROWS["36 GGUF fooarch"].make, tmp_path / "36")
    assert "fooarch" in unknown
    assert build in unknown
    assert "newer" in the_reason(llama, ROWS["28 GGUF 4"].make, tmp_path / "28")
    assert "newer" in the_reason(llama, ROWS["32 tensors of type 99"].make, tmp_path / "32")
    assert "00002-of-00003" in the_reason(
        llama, ROWS["20 one of three shards missing"].make, tmp_path / "20"
    )
    assert "Ollama" in the_reason(llama, ROWS["42 GGUF gptoss"].make, tmp_path / "42")
    assert "3,100,000,000 bytes" in the_reason(
        llama, ROWS["48 Git-LFS pointer"].make, tmp_path / "48"
    )
    assert "HTML" in the_reason(llama, ROWS["51 a web page"].make, tmp_path / "51")
    assert "CUDA" in the_reason(mistral, ROWS["53 gptq"].make, tmp_path / "53")


def test_row_22_two_projectors_are_one_models(tmp_path: Path) -> None:
    info: ModelInfo = inspect_path(with_projectors(tmp_path / "m"))
    assert info.mmproj is not None
    assert len(scan([tmp_path]).models) == 1


def test_row_46_an_index_names_a_shard_that_is_not_there(
    engines: tuple[Backend, ...], tmp_path: Path
) -> None:
    folder = raw.write_shards(tmp_path / "m", raw.dense(), 3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    info = inspect_path(folder)
    assert [engine.verdict(info).code for engine in engines] == [SHARD] * len(engines)
    assert "model-00002-of-00003.safetensors" in engines[0].verdict(info).reason


def test_row_72_copies_beside_gpt_oss_are_not_counted(tmp_path: Path) -> None:
    tensors = raw.dense(raw.ATTENTION) | raw.gpt_oss_experts()
    alone = raw.write_model(tmp_path / "alone", tensors, raw.CONFIG)
    assert inspect_path(gpt_oss(tmp_path / "m")).weights_bytes == inspect_path(alone).weights_bytes
    assert len(scan([tmp_path / "m"]).models) == 1


def test_row_74_uqff_is_for_mistral_rs(engines: tuple[Backend, ...], tmp_path: Path) -> None:
    tensors = {f"model.layers.0.q{end}": ("U8", (4,)) for end in (".weight", ".weight.format")}
    folder = raw.write_model(tmp_path / "m", tensors, name="q4k-0.uqff")
    (folder / "residual.safetensors").write_bytes(raw.encode({"norm.weight": ("BF16", (4,))}))
    info = inspect_path(folder)
    assert info.format is WeightFormat.UQFF
    assert tuple(short(engine.verdict(info)) for engine in engines) == (FORMAT, FORMAT, YES)


def test_row_86_mlx_and_gguf_of_one_model_are_two(tmp_path: Path) -> None:
    mlx(FOUR_BIT, **FOUR)(tmp_path / "mlx-community" / "Parrot-4bit")
    raw_gguf.model().write(tmp_path / "bartowski" / "Parrot-GGUF" / "Parrot-Q4_K_M.gguf")
    ids = sorted(model.id for model in scan([tmp_path]).models)
    assert ids == ["bartowski/Parrot-GGUF", "mlx-community/Parrot-4bit"]


def test_row_92_a_hostile_template_is_only_parsed(tmp_path: Path) -> None:
    hostile = "{% for a in range(10**9) %}{% endfor %}{{ ''.__class__.__mro__ }}{{ tools }}"
    folder = raw.write_model(tmp_path / "m", raw.dense(), tokenizer_config={
        "chat_template": hostile})  # fmt: skip
    info = inspect_path(folder)
    assert info.chat_template
    assert info.tools
