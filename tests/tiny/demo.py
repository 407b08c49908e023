"""Prepare the demonstration models on first use: `python -m tests.tiny.demo FOLDER`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.tiny.variants import build

MODELS = {
    "parrot-mlx-4bit": "mlx-4bit",
    "parrot-gguf": "gguf-q8_0",
    "parrot-safetensors": "safetensors",
}


def prepare(folder: Path) -> None:
    for name, variant in MODELS.items():
        if (folder / name).exists():
            continue
        print(f"Preparing {name} …", end=" ", file=sys.stderr, flush=True)
        began = time.monotonic()
        build(variant, folder / name)
        print(f"done ({time.monotonic() - began:.1f} s)", file=sys.stderr, flush=True)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
