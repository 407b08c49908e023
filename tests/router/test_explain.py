from __future__ import annotations

import pytest

from detect.types import Architecture, GGUFDetails, Problem, Quantization, WeightFormat
from router import explain
from tests.fake_engine import model
from tests.router.entries import no, yes


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (812134, "793.1 KiB"),
        (5 * 2**30, "5.0 GiB"),
        (3 * 2**40, "3.0 TiB"),
        (5000 * 2**40, "5000.0 TiB"),
    ],
)
def test_sizes_are_in_binary_units(count: int, text: str) -> None:
    assert explain.size(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "unknown"), (30_500_000_000, "30.5B"), (400_000, "0.4M"), (400, "0.4K"), (7, "7")],
)
def test_parameters_are_short(count: int | None, text: str) -> None:
    assert explain.parameters(count) == text


def test_the_subject_says_what_is_known_and_nothing_else() -> None:
    assert explain.subject(model("m")) == "a GGUF model"
    assert explain.subject(model("m", format=WeightFormat.ONNX)) == "a model in onnx format"
    full = model(
        "m",
        format=WeightFormat.MLX,
        quantization=Quantization(method="mlx", bits=4, mode="affine", group_size=32),
        architecture=Architecture(model_type="llama"),
        parameters=400_000,
    )
    assert explain.subject(full) == (
        "an MLX model, 4-bit affine g32, architecture llama, 0.4M parameters"
    )


def test_shards_are_told_when_there_are_several() -> None:
    def sharded(count: int) -> str:
        details = GGUFDetails(version=3, tensor_count=1, shard_count=count)
        return explain.subject(model("m", details=details))

    assert sharded(1) == "a GGUF model"
    assert sharded(3) == "a GGUF model, 3 shards"


def test_the_quantisation_is_named_or_none() -> None:
    assert explain.quantization(model("m")) == "none"
    q4 = Quantization(method="gguf", mode="Q4_K_M")
    assert explain.quantization(model("m", quantization=q4)) == "Q4_K_M"


def test_a_refusal_says_what_it_is_why_not_and_what_to_do() -> None:
    verdicts = (no("mlx", "reads no GGUF"), no("llama.cpp", "knows no quux", "Wait for b9."))
    assert explain.sentence(model("m"), verdicts) == (
        "m is a GGUF model. No engine here can run it. "
        "mlx: reads no GGUF. llama.cpp: knows no quux. Wait for b9."
    )


def test_the_same_remedy_is_given_once_and_a_command_keeps_its_end() -> None:
    verdicts = (no("mlx", "no", "Run `x`"), no("llama.cpp", "no", "Run `x`"))
    assert explain.sentence(model("m"), verdicts).endswith("llama.cpp: no. Run `x`")


def test_where_an_engine_can_no_remedy_is_given() -> None:
    verdicts = (yes("llama.cpp"), no("mlx", "reads no GGUF", "Convert it."))
    assert explain.sentence(model("m"), verdicts) == (
        "m is a GGUF model. Runs on: llama.cpp. mlx: reads no GGUF."
    )


def test_broken_files_are_the_reason_whatever_the_engines_say() -> None:
    problem = Problem("incomplete.missing_shard", "m-2-of-3.gguf is missing; fetch it again.")
    broken = model("m", problems=(Problem("conflict.layout", "odd"), problem))
    assert explain.sentence(broken, (no("mlx", "reads no GGUF"),)) == (
        "m is a GGUF model. It cannot be used: m-2-of-3.gguf is missing; fetch it again."
    )


def test_no_sentence_names_where_the_model_lies() -> None:
    somewhere = model("m")
    assert somewhere.path.is_absolute()
    assert str(somewhere.path) not in explain.sentence(somewhere, (no("mlx"),))
