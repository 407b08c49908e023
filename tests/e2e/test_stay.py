"""How long models stay, as the file of options says."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.e2e.daemon import SLACK, Daemon, serving
from tests.tiny import dialogues as d

FILE = """
[models.parrot-gguf]
aliases = ["gpt-4o"]
idle-seconds = 1
context-length = 512

[models.parrot-mlx-4bit]
preload = true
pin = true
"""


def loaded(daemon: Daemon) -> set[str]:
    return {one["model"] for one in daemon.status()["instances"] if one["state"] == "ready"}


def soon(daemon: Daemon, true: Callable[[set[str]], bool]) -> None:
    deadline = time.monotonic() + 10 * SLACK
    while not true(loaded(daemon)):
        assert time.monotonic() < deadline, daemon.output
        time.sleep(0.05)


def test_models_are_preloaded_named_and_unloaded_as_the_file_says(
    demo_models: Path, tmp_path: Path
) -> None:
    file = tmp_path / "router.toml"
    file.write_text(FILE)
    with serving(demo_models, flags=("--config", str(file))) as daemon:
        soon(daemon, lambda models: "parrot-mlx-4bit" in models)
        answer = daemon.chat("gpt-4o", d.QUESTION)
        assert answer.json()["choices"][0]["message"]["content"] == d.SENTENCE
        soon(daemon, lambda models: models == {"parrot-mlx-4bit"})
        too_long = daemon.chat("gpt-4o", "la " * 600)
        assert too_long.status_code == 400
