"""How a text's vector is made, by the files that sentence-transformers writes: claims, bounded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from detect import strict_json
from detect.listing import Listing
from detect.regular_file import read_bounded
from detect.types import Pooling

MODULES = "modules.json"
MAX_BYTES = 1 << 20
MAX_MODULES = 32
FLAG = "pooling_mode_"
FOLDER = re.compile(r"\w{1,64}")
PLAIN = frozenset({"Transformer", "Pooling", "Normalize"})
"""Modules without weights of their own, beside the network itself."""


def read_pooling(listing: Listing) -> Pooling | None:
    """None: there is no list of modules that can be read. Never raises."""
    modules = list(_modules(_json(listing, MODULES)))
    if not modules:
        return None
    kinds = [kind for kind, _ in modules]
    folder = next((path for kind, path in modules if kind == "Pooling"), "")
    config = _json(_inside(listing, folder), "config.json")
    return Pooling(
        modes=tuple(_modes(config)) if isinstance(config, dict) else (),
        normalized="Normalize" in kinds,
        others=tuple(kind for kind in kinds if kind not in PLAIN),
        with_prompt=not isinstance(config, dict) or config.get("include_prompt") is not False,
    )


def _modules(value: Any) -> Iterator[tuple[str, str]]:
    """Kind and folder of each: the kind is the last part of a class's name."""
    for module in value[:MAX_MODULES] if isinstance(value, list) else ():
        match module:
            case {"type": str(kind), "path": str(path)}:
                yield kind.rpartition(".")[2][:100], path


def _modes(config: dict[str, Any]) -> Iterator[str]:
    """As flags, or by name as newer versions write it; several are put one after the other."""
    named = config.get("pooling_mode")
    for name in named if isinstance(named, list) else [named]:
        if isinstance(name, str):
            yield name[:100]
    for key, value in config.items():
        if key.startswith(FLAG) and value is True:
            yield key.removeprefix(FLAG).removesuffix("_tokens").removesuffix("_token")[:100]


def _inside(listing: Listing, folder: str) -> Listing:
    """Of a folder that was listed itself: a path could lead anywhere."""
    entry = listing.folders.get(folder) if FOLDER.fullmatch(folder) else None
    return Listing(folder=entry.path if entry else listing.folder / "\0")


def _json(listing: Listing, name: str) -> Any:
    try:
        return strict_json.parse(read_bounded(listing.folder / name, MAX_BYTES))
    except (OSError, ValueError):
        return None
