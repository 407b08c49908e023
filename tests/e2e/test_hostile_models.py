"""Models whose files lie must not take the daemon, or its other models, with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemon import serving
from tests.tiny import dialogues as d

ENDLESS = (
    "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}"
    "{% endfor %}{% endfor %}{% endfor %}"
)


def hostile(demo_models: Path, folder: Path, file: str, **changes: Any) -> Path:
    """A models folder with an honest MLX model, and with one that differs in `file`."""
    honest = demo_models / "parrot-mlx-4bit"
    shutil.copytree(honest, folder / "honest")
    shutil.copytree(honest, folder / "hostile")
    changed = folder / "hostile" / file
    changed.write_text(json.dumps({**json.loads(changed.read_text()), **changes}))
    return folder


def test_a_claim_of_millions_of_layers_takes_no_memory(demo_models: Path, tmp_path: Path) -> None:
    models = hostile(demo_models, tmp_path, "config.json", num_hidden_layers=10**7)
    with serving(models, flags=("--engine", "hostile=mlx")) as daemon:
        assert daemon.chat("hostile", d.QUESTION).status_code >= 400
        assert d.SENTENCE in daemon.chat("honest", d.QUESTION).text


@pytest.mark.parametrize(
    "template",
    ["{{ 'a' * 10**9 }}", "{{ '\ud800' }}", ENDLESS],
    ids=["huge", "half", "endless"],
)
def test_a_template_that_writes_nonsense_fails_its_own_request(
    demo_models: Path, tmp_path: Path, template: str
) -> None:
    models = hostile(demo_models, tmp_path, "tokenizer_config.json", chat_template=template)
    with serving(models) as daemon:
        refused = daemon.chat("hostile", d.QUESTION)
        assert refused.status_code == 400
        assert refused.json()["error"]["type"] == "invalid_request_error"
        assert d.SENTENCE in daemon.chat("honest", d.QUESTION).text
        assert "Traceback" not in daemon.output
