"""The long proofs in short: `make soak`, `make cycles`, `make heavy`, `make turns` and
`make mlx-load`."""

from __future__ import annotations

import pytest

from tests.lifecycle.check import failed
from tests.lifecycle.cycles import cycles
from tests.lifecycle.heavy import heavy
from tests.lifecycle.mlx_load import mlx_load
from tests.lifecycle.soak import soak
from tests.lifecycle.turns import turns

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def test_nothing_is_left_of_requests_faults_and_changes() -> None:
    assert failed(soak(seconds=10, seed=1)) == []


def test_loading_and_unloading_leaves_nothing_behind() -> None:
    assert failed(cycles(5)) == []


def test_the_memory_of_weights_comes_back() -> None:
    assert failed(heavy(3)) == []


def test_models_that_take_turns_serve_everybody_in_order() -> None:
    assert failed(turns(rounds=8, seed=1)) == []


def test_random_load_leaves_the_mlx_engine_as_it_was() -> None:
    assert failed(mlx_load(seconds=10, seed=1)) == []
