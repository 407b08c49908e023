"""Memory that comes back: an mlx model with weights enough to be seen in what the daemon holds,
loaded and unloaded again and again: `python -m tests.lifecycle.heavy COUNT`, which is `make heavy`.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.e2e.daemon import Daemon
from tests.lifecycle import samples
from tests.lifecycle.check import Check, report
from tests.lifecycle.samples import MIB, Sample
from tests.lifecycle.site import built, emptied, process_of
from tests.tiny.train import WEIGHTS

SIZES: Mapping[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 64,
    "num_hidden_layers": 8,
}
"""200 MB at 16 bits."""

HELD_SHARE, LEFT_SHARE = 0.9, 0.1
"""Of the weights: what is held at least while loaded, and kept at most afterwards."""

WARM_UP = 2
GONE_SECONDS = 60.0


def heavy(count: int) -> list[Check]:
    with built({}) as site:
        weights_mib = write_heavy(site.models / "heavy") / MIB
        with site.serving("4G") as daemon:
            cycles = [_cycle(daemon) for _ in range(WARM_UP + count)]
    loaded, unloaded = zip(*cycles[WARM_UP:], strict=True)
    first, *later = map(samples.resident_mib, unloaded)
    held = samples.median(loaded, samples.resident_mib) - first
    left = max(later) - first
    size = f"{weights_mib:.0f} MiB of weights"
    least, most = HELD_SHARE * weights_mib, LEFT_SHARE * weights_mib
    return [
        Check("mlx: MiB held while loaded", f"{held:.0f} ({size})", f"at least {least:.0f}",
              held >= least),
        Check(f"mlx: MiB left by any of {count} cycles", f"{left:+.1f}", f"at most {most:.0f}",
              left <= most),
    ]  # fmt: skip


def _cycle(daemon: Daemon) -> tuple[Sample, Sample]:
    """What the daemon holds with the model, and without it."""
    taken = []
    with daemon.client() as api:
        for what in ("load", "unload"):
            answer = api.post(f"/router/models/heavy/{what}")
            assert answer.status_code == 200, answer.text
            if what == "unload":
                assert emptied(daemon, GONE_SECONDS), daemon.output
            taken.append(samples.take(process_of(daemon)))
    loaded, unloaded = taken
    return loaded, unloaded


def write_heavy(folder: Path) -> int:
    """A llama with random weights and the trained model's tokenizer; the bytes of its weights."""
    import mlx.core as mx
    from mlx_lm.models import llama
    from mlx_lm.utils import save_config, save_model

    folder.mkdir()
    for file in WEIGHTS.iterdir():
        if file.name not in ("model.safetensors", "config.json"):
            shutil.copyfile(file, folder / file.name)
    config = {**json.loads((WEIGHTS / "config.json").read_text()), **SIZES}
    network = llama.Model(llama.ModelArgs.from_dict(config))
    network.set_dtype(mx.bfloat16)
    save_model(folder, network)
    save_config(config, folder / "config.json")
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def main(arguments: list[str]) -> int:
    return report(heavy(int(arguments[0])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
