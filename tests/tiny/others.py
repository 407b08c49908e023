"""The tiny model with one thing about it changed, in a folder that was copied."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any


def forgetful(model: Path, folder: Path) -> Path:
    """One that has learnt nothing, so that whatever may be written is written."""
    import mlx.core as mx

    shutil.copytree(model, folder)
    weights: Any = mx.load(str(folder / "model.safetensors"))
    mx.random.seed(7)
    noise = {name: mx.random.normal(value.shape) * 0.05 for name, value in weights.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), noise, {"format": "mlx"})
    return folder


def thoughtful(model: Path, folder: Path) -> Path:
    """The trained one with other markers: what was a call of a tool is a thought."""
    shutil.copytree(model, folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_text((folder / file).read_text().replace("tool_call>", "think>"))
    return folder


def penalised(model: Path, folder: Path, penalty: float) -> Path:
    """One whose own repetition penalty is this."""
    shutil.copytree(model, folder)
    file = folder / "generation_config.json"
    usual = json.loads(file.read_text())
    file.write_text(json.dumps({**usual, "repetition_penalty": penalty}))
    return folder
