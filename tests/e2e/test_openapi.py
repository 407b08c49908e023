"""The API's description at the real daemon: what is made up after it is answered as it says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error

from router.api.openapi import PATH, document
from tests.e2e.daemon import Daemon, serving
from tests.tiny.variants import build
from tests.truth import ggufs
from tests.truth.embedders import embedder

EXAMPLES = 12
MODELS = ("parrot-mlx", "parrot-gguf", "vectors-mlx", "ranker-gguf")
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")

API = schemathesis.openapi.from_dict(document())


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder: Path = tmp_path_factory.mktemp("described")
    build("mlx-4bit", folder / "parrot-mlx")
    embedder(folder / "vectors-mlx")
    ggufs.parrot(folder / "parrot-gguf.gguf")
    ggufs.network(folder / "ranker-gguf.gguf", changes=ggufs.ranks)
    with serving(folder) as running:
        yield running


def test_the_daemon_describes_itself(daemon: Daemon) -> None:
    with daemon.client() as api:
        assert api.get(PATH).json() == document()
    API.validate()


@API.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, phases=[Phase.explicit, Phase.generate],
          suppress_health_check=list(HealthCheck))  # fmt: skip
def test_the_daemon_answers_as_it_says(daemon: Daemon, case: Case) -> None:
    """A 5xx may be said, where it is described; 500 never is."""
    _aim(case)
    answer = case.call_and_validate(base_url=daemon.url, excluded_checks=[not_a_server_error])
    assert answer.status_code != 500


def _aim(case: Case) -> None:
    """At a model that there is, for a few tokens."""
    choice = random.Random(repr(case.body))
    if "model" in case.path_parameters:
        case.path_parameters["model"] = choice.choice(MODELS)
    body: Any = case.body
    if isinstance(body, dict) and isinstance(body.get("model"), str) and body["model"]:
        body["model"] = choice.choice(MODELS)
