from __future__ import annotations

import pytest

from detect.quant_label import is_label, of_name, without_label


@pytest.mark.parametrize(
    ("stem", "label", "rest"),
    [
        ("Llama-3.2-1B-Instruct-Q4_K_M", "Q4_K_M", "Llama-3.2-1B-Instruct"),
        ("model.Q8_0", "Q8_0", "model"),
        ("model-f16", "F16", "model"),
        ("model-bf16", "BF16", "model"),
        ("Qwen3-UD-IQ2_XXS", "UD-IQ2_XXS", "Qwen3"),
        ("Qwen3-UD-Q4_K_XL", "UD-Q4_K_XL", "Qwen3"),
        ("gpt-oss-20b-MXFP4_MOE", "MXFP4_MOE", "gpt-oss-20b"),
        ("gpt-oss-20b-mxfp4", "MXFP4", "gpt-oss-20b"),
        ("bitnet-TQ1_0", "TQ1_0", "bitnet"),
        ("Q4_K_M", "Q4_K_M", ""),
        ("Llama-3.2-1B", None, "Llama-3.2-1B"),
        ("FAQ4", None, "FAQ4"),
    ],
)
def test_the_label_is_at_the_end_of_the_stem(stem: str, label: str | None, rest: str) -> None:
    assert of_name(stem) == label
    assert without_label(stem) == rest


def test_folders_of_one_quantisation_are_named_by_it_alone() -> None:
    assert all(is_label(name) for name in ("Q4_K_M", "BF16", "UD-Q4_K_XL", "IQ1_S"))
    assert not any(is_label(name) for name in ("Qwen3-Q4_K_M", "F16s", "models", "Q"))
