"""The API's description at the real daemon: what is made up after it is answered as it says."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    negative_data_rejection,
    positive_data_acceptance,
    unsupported_method,
)

from router.api.openapi import PATH, document
from tests.e2e.daemon import Daemon, serving
from tests.tiny.variants import build
from tests.truth import ggufs
from tests.truth.embedders import embedder

SECONDS = 100.0
EXAMPLES = int(os.environ.get("EXAMPLES", "5"))
"""For each endpoint. `make test-openapi` asks for more."""

SYSTEMATIC = "EXAMPLES" in os.environ
"""Whether every field is tried at and beyond its limits, beside what is made up, and that anew in
every run."""

MODELS = ("parrot-mlx", "parrot-gguf", "vectors-mlx", "ranker-gguf")

API = schemathesis.openapi.from_dict(document())
API.config.phases.coverage.enabled = SYSTEMATIC


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder: Path = tmp_path_factory.mktemp("described")
    build("mlx-4bit", folder / "parrot-mlx")
    embedder(folder / "vectors-mlx")
    ggufs.parrot(folder / "parrot-gguf.gguf")
    ggufs.network(folder / "ranker-gguf.gguf", changes=ggufs.ranks)
    # An answer without a limit ends with the context.
    with serving(folder, flags=("--context-length", "64")) as running:
        yield running


def test_the_daemon_describes_itself(daemon: Daemon) -> None:
    with daemon.client() as api:
        assert api.get(PATH).json() == document()
    API.validate()


@API.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=not SYSTEMATIC,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_daemon_answers_as_it_says(daemon: Daemon, case: Case[Any]) -> None:
    """Whatever the schema allows may still be refused, for what the model or the engine cannot do;
    what it forbids must be, where we are the ones who read it. 500 is never said."""
    unchecked = [not_a_server_error, positive_data_acceptance, unsupported_method]
    if _aim(case) or case.operation.tags != ["OpenAI"]:
        unchecked.append(negative_data_rejection)
    answer = case.call_and_validate(base_url=daemon.url, excluded_checks=unchecked, timeout=SECONDS)
    assert answer.status_code != 500


def _aim(case: Case[Any]) -> bool:
    """At a model that there is; tells whether it is one whose engine reads requests itself."""
    model = random.Random(repr(case.body)).choice(MODELS)
    if "model" in case.path_parameters:
        case.path_parameters["model"] = model
    body: Any = case.body
    if isinstance(body, dict) and isinstance(body.get("model"), str) and body["model"]:
        body["model"] = model
    return model.endswith("gguf")
