"""The settings of now. They are replaced as a whole, as the registry is."""

from __future__ import annotations

from router.settings import Settings


class Configuration:
    """Whoever needs an option asks for `settings` each time, and keeps none."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
