"""Which version of this package is installed."""

from __future__ import annotations

from importlib import metadata

DISTRIBUTION = "local-model-router"


def version() -> str:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"
