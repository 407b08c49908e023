from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from backends.wire.defaults import SamplingDefaults, sampling_defaults

ENGINES = SamplingDefaults(temperature=0.8, top_p=0.95, top_k=40, min_p=0.05)


@pytest.mark.parametrize("config", [{}, {"top_p": 0.5}, {"do_sample": True}, {"temperature": None}])
def test_a_model_that_names_no_temperature_gets_the_engines_values(config: dict[str, Any]) -> None:
    assert sampling_defaults(config) == ENGINES


def test_a_model_that_does_not_sample_is_greedy() -> None:
    assert sampling_defaults({"do_sample": False, "temperature": 0.6}).temperature == 0.0


def test_a_models_values_are_taken_together() -> None:
    config = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.01}
    assert sampling_defaults(config) == SamplingDefaults(0.6, 0.9, 20, 0.01)


def test_what_a_model_with_a_temperature_does_not_name_is_off() -> None:
    assert sampling_defaults({"temperature": 1}) == SamplingDefaults(1.0, 1.0, 0, 0.0)
    assert sampling_defaults({"temperature": 0}).temperature == 0.0


@pytest.mark.parametrize("others", [{}, {"temperature": 0.6}, {"do_sample": False}])
def test_a_models_repetition_penalty_stands_for_itself(others: dict[str, Any]) -> None:
    usual = sampling_defaults({**others, "repetition_penalty": 1.05})
    assert usual == replace(sampling_defaults(others), repetition_penalty=1.05)
    for nonsense in (0, 11, *NONSENSE):
        usual = sampling_defaults({**others, "repetition_penalty": nonsense})
        assert usual.repetition_penalty == 1


NONSENSE: list[Any] = ["hot", [], {}, True, -1, 10**400, *json.loads("[NaN, Infinity, -Infinity]")]


@pytest.mark.parametrize("value", NONSENSE)
def test_a_value_that_makes_no_sense_counts_as_not_named(value: Any) -> None:
    assert sampling_defaults({"temperature": value, "top_k": 1}) == ENGINES
    for name in ("top_p", "top_k", "min_p"):
        assert sampling_defaults({"temperature": 0.5, name: value}) == SamplingDefaults(
            0.5, 1.0, 0, 0.0
        )
