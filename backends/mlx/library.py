"""The one door to mlx-lm: its import, its models' list and its version.

Importing `mlx_lm` lowers this process's limit of open files, which the daemon and its children
would keep; importing one of its model modules may end the process (`olmo` calls `sys.exit`).
Nothing here is imported before the first MLX model is loaded.
"""

from __future__ import annotations

import ast
import gc
import importlib
import importlib.metadata
import importlib.util
import os
import re
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

EVERY_MODEL_NEEDS = (
    "mlx_lm.utils",
    "mlx_lm.generate",
    "mlx_lm.models.cache",
    "mlx_lm.sample_utils",
    "llguidance.hf",
)

_import_lock = threading.Lock()
_settle_lock = threading.Lock()
_settled = False
_IMPORTED = re.compile(rb"^ *(?:import|from) (\w+)", re.MULTILINE)
_MODEL_CLASS = re.compile(rb"^class Model\b|^from \S+ import .*\bModel\b", re.MULTILINE)


def load(name: str) -> Any:
    """Import a module of mlx or mlx-lm, with this process's limits as they were.

    Raises:
        ImportError: it is not installed, or it tried to end the process.
    """
    import resource

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    with _import_lock:
        unchanged = resource.setrlimit
        resource.setrlimit = lambda *_: None
        try:
            return importlib.import_module(name)
        except SystemExit as error:
            raise ImportError(f"{name} ended while it was imported: {error}") from None
        finally:
            resource.setrlimit = unchanged


def settle() -> None:
    """Import what every model needs, and hide it from the garbage collector; once, before the first
    model is loaded, because what is hidden is never collected.

    These are 80,000 objects, and looking at all of them takes 40 to 80 ms, for which everything
    else in this process stands still: every unloading did it, now and then any allocation, and the
    import itself. So it looks for garbage before there are so many. What the import leaves of it,
    300 objects, is kept for ever, and what others leave in cycles during those seconds.
    """
    global _settled
    with _settle_lock:
        if _settled:
            return
        gc.collect()
        gc.disable()
        try:
            for name in EVERY_MODEL_NEEDS:
                load(name)
            gc.freeze()
        finally:
            gc.enable()
        _settled = True


def version() -> str | None:
    try:
        return importlib.metadata.version("mlx-lm")
    except importlib.metadata.PackageNotFoundError:
        return None


def folder() -> Path | None:
    """The installed package's folder, found without importing it."""
    spec = importlib.util.find_spec("mlx_lm")
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None


@dataclass(frozen=True, slots=True)
class Supported:
    """Architectures of the installed mlx-lm, read from its files without importing them.

    `remapped` gives the module for a `model_type` that has none of its own name, `folder` has
    their files.
    """

    modules: frozenset[str]
    remapped: dict[str, str]
    folder: Path | None = None

    def module(self, model_type: str) -> str | None:
        name = self.remapped.get(model_type, model_type)
        return name if name in self.modules else None

    def mentions(self, model_type: str, word: str) -> bool:
        """Whether the module's code has the word: what renames tensors has to name them."""
        module = self.module(model_type)
        if module is None or self.folder is None:
            return False
        return word.encode() in _source(self.folder / f"{module}.py")


@cache
def _source(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def supported(package: Path) -> Supported:
    files = (package / "models").glob("*.py")
    modules = {file.stem for file in files if _is_model(file.read_bytes())}
    return Supported(frozenset(modules), _remapped(package / "utils.py"), package / "models")


def _is_model(source: bytes) -> bool:
    """It defines a model, and would not end the process for want of another package."""
    if not _MODEL_CLASS.search(source):
        return False
    needed = _IMPORTED.findall(source) if b"sys.exit(" in source else []
    return all(importlib.util.find_spec(name.decode()) for name in needed)


def _remapped(source: Path) -> dict[str, str]:
    """`MODEL_REMAPPING`, a literal in mlx-lm's `utils.py`; empty should it move away."""
    for node in ast.parse(source.read_text()).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="MODEL_REMAPPING")], value=literal):
                value = ast.literal_eval(literal)
                return {str(key): str(name) for key, name in value.items()}
    return {}
