from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon, serving
from tests.tiny import demo

MODELS = {
    "parrot-mlx-4bit": "mlx",
    "parrot-gguf": "llama.cpp",
    "parrot-safetensors": "mistral.rs",
}
"""The demonstration models, and the engine that each is served by in these tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def demo_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    demo.prepare(folder)
    return folder


@pytest.fixture(scope="module")
def daemon(demo_models: Path) -> Iterator[Daemon]:
    """The three engines behind one address; plain safetensors go to mistral.rs by choice."""
    flags = ("--engine", "parrot-safetensors=mistral.rs")
    with serving(demo_models, flags=flags) as running:
        yield running


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)
