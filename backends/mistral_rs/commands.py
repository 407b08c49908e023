"""Command lines that serve one model: of the user's binary, old or new, and of our worker. Pure.

None ever names an architecture: told a wrong one, the engine believes it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backends.base import InstanceOptions
from detect.types import ModelInfo, WeightFormat

OLD_BINARY = "mistralrs-server"
"""Early releases had a server of its own, with the kind of model as a word of the command."""

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What is loaded: names of files in `folder`, which is relative to the working directory, and
    so is the model's name in requests and answers."""

    folder: str
    gguf: Sequence[str] = ()
    mmproj: str | None = None
    uqff: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class BinaryCommand:
    """The command line of a binary. `help` is what it prints about itself: flags come and go
    between releases, so that those that are not essential are given only where it lists them."""

    program: Path
    help: str

    @property
    def old(self) -> bool:
        return self.program.name.startswith(OLD_BINARY)

    def serve(self, weights: Weights, parallel: int, port: int) -> list[str]:
        kind = "gguf" if weights.gguf else "plain"
        named = ["-m", weights.folder]
        if weights.gguf:
            named += ["-f", ";".join(weights.gguf)]
        if weights.mmproj is not None:
            named += self._listed("--mmproj", weights.mmproj)
        if weights.uqff:
            named += ["--from-uqff", ";".join(weights.uqff)]
        limits = self._listed("--max-seqs", str(parallel))
        if self.old:
            address = ["--serve-ip", LOOPBACK, "--port", str(port)]
            return [str(self.program), *address, *limits, kind, *named]
        address = ["--host", LOOPBACK, "--port", str(port), *self._listed("--no-ui")]
        return [str(self.program), "serve", *address, *limits, "--format", kind, *named]

    def _listed(self, *flag: str) -> list[str]:
        return list(flag) if flag[0] in self.help else []


def worker_command(
    model_id: str,
    info: ModelInfo,
    options: InstanceOptions,
    socket: Path,
    *,
    context_length: int | None,
    multimodal: bool,
) -> list[str]:
    flags = [
        *(sys.executable, "-m", "backends.workers.mistral_rs"),
        *("--socket", str(socket)),
        f"--alias={model_id}",  # it may begin with a dash
        *("--parallel", str(options.parallel)),
    ]
    if context_length is not None:
        flags += ["--context", str(context_length)]
    if info.format is WeightFormat.GGUF:
        flags += ["--gguf", *map(str, info.files)]
        if info.mmproj is not None:
            flags += ["--mmproj", str(info.mmproj)]
        return flags
    flags += ["--folder", str(info.folder)]
    if info.format is WeightFormat.UQFF:
        flags += ["--uqff", *(file.name for file in info.files)]
    return flags + (["--multimodal"] if multimodal else [])
