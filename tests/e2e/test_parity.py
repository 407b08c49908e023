"""The same request means the same on every engine: `tests.e2e.parity` says how far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.e2e.daemon import Daemon, serving
from tests.e2e.heard import CHAT, TEXT, heard
from tests.e2e.parity import REQUESTS, Request, differences
from tests.tiny.variants import build

MODELS = {"parrot-mlx": "mlx", "parrot-gguf": "llama.cpp", "parrot-safetensors": "mistral.rs"}
VARIANTS = {
    "parrot-mlx": "mlx-bf16",
    "parrot-gguf": "gguf-q8_0",
    "parrot-safetensors": "safetensors",
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """In 16 bits, of which a processor computes ten times as many as of 4 on mlx."""
    folder = tmp_path_factory.mktemp("parity")
    for name, variant in VARIANTS.items():
        build(variant, folder / name)
    with serving(folder, flags=("--engine", "parrot-safetensors=mistral.rs")) as running:
        yield running


@pytest.fixture(scope="module")
def api(daemon: Daemon) -> Iterator[httpx.Client]:
    with daemon.client() as client:
        yield client


def whole(request: Request, model: str) -> dict[str, Any]:
    return {"model": model, **request.body, **({"stream": False} if request.streams else {})}


def streamed(request: Request, model: str) -> dict[str, Any]:
    body = {"model": model, **request.body, "stream": True}
    if request.path in (CHAT, TEXT):
        body.setdefault("stream_options", {"include_usage": True})
    return body


def wrong(request: Request, model: str, api: httpx.Client) -> list[Any]:
    """What it answers otherwise than the table says, whole and streamed."""
    engine = MODELS[model]
    expected, found = request.said_by(engine), []
    for stream in (False, True)[: 1 + request.streams]:
        body = (streamed if stream else whole)(request, model)
        said = heard(request.path, api.post(request.path, json=body), streamed=stream)
        if any(said.get(name) != value for name, value in expected.items()):
            found.append((engine, "streamed" if stream else "whole", said, expected))
    return found


@pytest.mark.parametrize("asked", REQUESTS, ids=lambda request: request.name)
def test_every_engine_answers_as_the_table_says(api: httpx.Client, asked: Request) -> None:
    with ThreadPoolExecutor(len(MODELS)) as threads:
        answers = threads.map(lambda model: wrong(asked, model, api), MODELS)
        assert not [told for found in answers for told in found]


def test_a_difference_is_one() -> None:
    """One that is gone is no difference any more, and fails the request; this holds the table."""
    for request, engine, difference in differences():
        assert engine in MODELS.values()
        assert request.said_by(engine) != request.says, request.name
        assert any(request.says.get(name) != value for name, value in difference.says.items()), (
            request.name
        )


def test_a_request_has_a_name_of_its_own() -> None:
    assert not [name for name, n in Counter(r.name for r in REQUESTS).items() if n > 1]
    assert len(REQUESTS) >= 60
