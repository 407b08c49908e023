"""Fixtures that every part of the tests shares: the tiny models, made once per run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from backends.base import Backend
from tests.engines import installed
from tests.tiny.variants import build

# How fast examples are made says nothing on a machine that does other things as well.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

Variant = Callable[[str], Path]


@pytest.fixture(scope="session")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Variant:
    """`variant("mlx-4bit")` is the folder of that variant of the tiny model. Do not change it."""
    root = tmp_path_factory.mktemp("models")
    return lambda name: build(name, root / name)


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Backend, ...]:
    return installed(tmp_path_factory.mktemp("cache"))
