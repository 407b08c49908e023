"""The registry of now. It is replaced as a whole, so that nobody ever sees half of one."""

from __future__ import annotations

from router.registry import Registry


class Catalog:
    """Whoever answers a request asks for `registry` once, and keeps to what it got."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
