from __future__ import annotations

from typing import Any

import pytest

from detect.types import ModelInfo, Quantization, SafetensorsDetails, WeightFormat
from router.option import ENGINE_NAMES
from router.preference import (
    ORDER,
    ORDER_ON_MACOS,
    Choice,
    ModelClass,
    Wishes,
    choose,
    model_class,
)
from tests.fake_engine import model
from tests.router.entries import LINUX, MACOS, limited, no, yes


def of(weights: WeightFormat, **facts: Any) -> ModelInfo:
    return model("m", format=weights, **facts)


def experts(moe: bool) -> SafetensorsDetails:
    return SafetensorsDetails(tensor_count=1, moe=moe)


ID = "m"
WANTS_MLX = Wishes({ID: "mlx"})
GPTQ = Quantization(method="gptq", bits=4)

MODELS = {
    ModelClass.MLX: of(WeightFormat.MLX, quantization=Quantization(method="mlx", bits=4)),
    ModelClass.GGUF: of(WeightFormat.GGUF, quantization=Quantization(method="gguf")),
    ModelClass.PLAIN: of(WeightFormat.SAFETENSORS, details=experts(False)),
    ModelClass.PLAIN_MOE: of(WeightFormat.SAFETENSORS, details=experts(True)),
    ModelClass.QUANTIZED: of(WeightFormat.SAFETENSORS, details=experts(True), quantization=GPTQ),
}


@pytest.mark.parametrize("kind", ModelClass)
def test_a_model_is_of_the_class_that_its_headers_tell(kind: ModelClass) -> None:
    assert model_class(MODELS[kind]) is kind


def test_safetensors_of_which_nothing_more_is_known_are_plain() -> None:
    assert model_class(of(WeightFormat.SAFETENSORS)) is ModelClass.PLAIN


@pytest.mark.parametrize("order", [ORDER, ORDER_ON_MACOS])
def test_every_class_has_an_order_of_engines_that_exist_each_once(order: Any) -> None:
    assert set(order) == set(ModelClass)
    for engines in order.values():
        assert set(engines) <= set(ENGINE_NAMES)
        assert len(set(engines)) == len(engines) > 0


@pytest.mark.parametrize(
    ("kind", "platform", "first", "second"),
    [
        (ModelClass.MLX, LINUX, "mlx", "mistral.rs"),
        (ModelClass.MLX, MACOS, "mlx", "mistral.rs"),
        (ModelClass.GGUF, LINUX, "llama.cpp", "mistral.rs"),
        (ModelClass.GGUF, MACOS, "llama.cpp", "mistral.rs"),
        (ModelClass.PLAIN, LINUX, "mlx", "mistral.rs"),
        (ModelClass.PLAIN, MACOS, "mlx", "mistral.rs"),
        (ModelClass.PLAIN_MOE, LINUX, "mistral.rs", "mlx"),
        (ModelClass.PLAIN_MOE, MACOS, "mlx", "mistral.rs"),
        (ModelClass.QUANTIZED, LINUX, "mlx", "mistral.rs"),
        (ModelClass.QUANTIZED, MACOS, "mlx", "mistral.rs"),
    ],
)
def test_the_order_decides_whatever_the_order_of_the_verdicts(
    kind: ModelClass, platform: str, first: str, second: str
) -> None:
    info = MODELS[kind]
    for verdicts in ((yes(first), yes(second)), (yes(second), yes(first))):
        choice = choose(info, verdicts, platform=platform)
        assert choice == Choice(first, f"first choice for {kind} models here")
    assert choose(info, (no(first), yes(second)), platform=platform).engine == second


def test_an_engine_with_limits_is_taken_only_when_no_other_can() -> None:
    info = MODELS[ModelClass.GGUF]
    assert choose(info, (limited("llama.cpp"), yes("mistral.rs"))).engine == "mistral.rs"
    assert choose(info, (limited("mistral.rs"), limited("llama.cpp"))).engine == "llama.cpp"
    assert choose(info, (limited("mistral.rs"), no("llama.cpp"))).engine == "mistral.rs"


def test_an_engine_that_the_order_does_not_name_comes_last() -> None:
    info = MODELS[ModelClass.GGUF]
    assert choose(info, (yes("new"), yes("mistral.rs"))).engine == "mistral.rs"
    assert choose(info, (yes("new"), no("mistral.rs"))).engine == "new"


def test_without_an_able_engine_there_is_no_choice() -> None:
    none = Choice(None, "no engine can run it")
    assert choose(MODELS[ModelClass.MLX], (no("mlx"), no("mistral.rs"))) == none
    assert choose(MODELS[ModelClass.MLX], (), WANTS_MLX) == none


@pytest.mark.parametrize("verdict", [yes("mistral.rs"), limited("mistral.rs")])
def test_a_wish_goes_before_the_order_even_with_limits(verdict: Any) -> None:
    choice = choose(
        MODELS[ModelClass.GGUF], (yes("llama.cpp"), verdict), Wishes({ID: "mistral.rs"})
    )
    assert choice == Choice("mistral.rs", "chosen by you")


def test_a_wish_that_the_verdict_forbids_is_refused_and_said_so() -> None:
    choice = choose(MODELS[ModelClass.GGUF], (yes("llama.cpp"), no("mlx")), WANTS_MLX)
    assert choice.engine == "llama.cpp"
    assert choice.why.startswith("you chose mlx, which cannot run it; ")
    assert choice.refused == "mlx"


def test_a_class_may_have_another_first_choice() -> None:
    info, both = MODELS[ModelClass.GGUF], (yes("llama.cpp"), yes("mistral.rs"))
    wishes = Wishes(classes={"gguf": "mistral.rs"})
    choice = choose(info, both, wishes)
    assert choice == Choice("mistral.rs", "your first choice for gguf models here")
    unable = choose(info, (yes("llama.cpp"), no("mistral.rs")), wishes)
    assert unable == Choice("llama.cpp", "first choice for gguf models here")
    assert choose(MODELS[ModelClass.MLX], (yes("mlx"), yes("mistral.rs")), wishes).engine == "mlx"


def test_a_wish_for_a_model_goes_before_one_for_its_class() -> None:
    wishes = Wishes({ID: "llama.cpp"}, {"gguf": "mistral.rs"})
    choice = choose(MODELS[ModelClass.GGUF], (yes("llama.cpp"), yes("mistral.rs")), wishes)
    assert choice == Choice("llama.cpp", "chosen by you")
