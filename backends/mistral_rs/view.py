"""A model under the name, and with the files, that mistral.rs should see.

It believes a `config.json` that lies beside a GGUF file, whatever model it belongs to; it wants
that file's name to end in `.gguf`, which Ollama's do not; and it calls a model by the path that
it was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def link_folder(model: Path, name: str, view: Path) -> Path:
    """A link to the folder `model`, called `name` in `view`. The name may have slashes."""
    link = _place(name, view)
    link.symlink_to(model.resolve(), target_is_directory=True)
    return link


def link_files(files: Sequence[Path], name: str, view: Path) -> list[Path]:
    """A folder called `name` in `view` with nothing but links to `files`, in their order."""
    folder = _place(name, view)
    folder.mkdir()
    return [link_beside(file, folder) for file in files]


def link_beside(file: Path, folder: Path) -> Path:
    name = file.name if file.suffix == ".gguf" else f"{file.name}.gguf"
    link = folder / name
    link.symlink_to(file.resolve())
    return link


def _place(name: str, view: Path) -> Path:
    place = view / name
    if ".." in place.parts or not place.is_relative_to(view) or place == view:
        raise ValueError(f"not a name for a folder: {name!r}")
    place.parent.mkdir(parents=True, exist_ok=True)
    return place
