"""Engines installed on this machine: the user's binaries and Python wheels."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backends.base import Installation
from backends.guard import CANNOT_RUN
from backends.probe import Finished, run

ASK_SECONDS = 20.0
"""For `--version` or `--help`: a binary with CUDA inside looks at the devices first."""

_VERSION = re.compile(r"(?:version:?\s+|^\S+\s+)v?(\d[\w.+-]*)", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Binary:
    """An engine's program. `problem` is a sentence when it cannot be run."""

    path: Path
    version: str | None = None
    problem: str = ""

    def ask(self, *arguments: str) -> str:
        """What it prints; empty when it cannot be run."""
        finished = _ran(self.path, *arguments)
        return finished.stdout + finished.stderr if finished else ""


def find_binary(configured: Path | None, names: Sequence[str]) -> Binary | None:
    """The configured program, whatever its state, else the first of `names` on PATH."""
    if configured is None:
        found = next((path for name in names if (path := shutil.which(name))), None)
        if found is None:
            return None
        configured = Path(found)
    # A bare name would be looked for on PATH when it is run.
    return _examined(configured.absolute())


def _examined(path: Path) -> Binary:
    if not path.is_file():
        return Binary(path, problem=f"{path} does not exist.")
    if not os.access(path, os.X_OK):
        return Binary(path, problem=f"{path} is not executable.")
    finished = _ran(path, "--version")
    if finished is None:
        return Binary(path, problem=f"{path} cannot be run on this machine.")
    printed = finished.stdout + finished.stderr
    if match := _VERSION.search(printed):
        return Binary(path, version=match[1])
    if finished.status:
        # A library that is missing, mostly: the loader's own words say which.
        words = (printed.strip().splitlines() or [f"it ended with status {finished.status}"])[-1]
        return Binary(path, problem=f"{path} cannot be run: {words[:300].rstrip('.')}.")
    return Binary(path)


def _ran(path: Path, *arguments: str) -> Finished | None:
    finished = run([str(path), *arguments], timeout_seconds=ASK_SECONDS)
    return None if finished and finished.status == CANNOT_RUN else finished


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A Python package that carries an engine."""

    distribution: str
    module: str


def installation(
    engine: str,
    binary: Binary | None,
    wheel: Wheel,
    *,
    option: str,
    install: str,
    capabilities: tuple[str, ...],
) -> Installation:
    """The user's binary, else the wheel, else what to do: `install`.

    `option` is the flag that names a binary.
    """
    if binary is not None:
        return Installation(
            engine=engine,
            version=binary.version,
            how="binary",
            path=binary.path,
            capabilities=capabilities,
            problem=binary.problem,
            remedy=f"Mend it, or name another one with {option}." if binary.problem else "",
        )
    version = wheel_version(wheel.distribution)
    return Installation(
        engine=engine,
        version=version,
        how="worker" if version else "",
        path=wheel_folder(wheel.module),
        capabilities=capabilities,
        problem="" if version else f"{engine} is not installed.",
        remedy="" if version else install,
    )


def wheel_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def wheel_folder(module: str) -> Path | None:
    """Where a module is installed, found without importing it."""
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).parent if spec and spec.origin else None
