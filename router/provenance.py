"""Every option with its value and where that comes from, as a text for terminals. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from router.model_settings import MODEL_OPTIONS, MODELS, ModelSettings
from router.option import Option, written
from router.settings import CONFIG, OPTIONS, Settings
from router.table import table

HEAD = ("OPTION", "VALUE", "FROM")
DEFAULT = "default"

Row = tuple[str, str, str]


def provenance(settings: Settings) -> str:
    rows = [_row(option, settings, settings.origins) for option in OPTIONS]
    return table(HEAD, [*rows, *(row for model in settings.models for row in _of(model))])


def fine(settings: Settings) -> str:
    """One sentence, for settings that can be honoured."""
    options, models = len(settings.origins.keys() - {CONFIG}), len(settings.models)
    what = f"{settings.config} is fine" if settings.config else "The settings are fine"
    own = f", and something said of {_count(models, 'model')}" if models else ""
    return f"{what}: {_count(options, 'option')} set{own}."


def _of(model: ModelSettings) -> Iterator[Row]:
    for option in MODEL_OPTIONS:
        if option.name in model.origins:
            name, value, origin = _row(option, model, model.origins)
            yield f"{MODELS}.{model.id}.{name}", value, origin


def _row(option: Option, settings: Any, origins: Any) -> Row:
    name = option.name.replace("_", "-")
    value = written(option, getattr(settings, option.name))
    return name, value, origins.get(option.name, DEFAULT)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
