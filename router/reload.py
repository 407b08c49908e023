"""Other settings for a daemon that runs: what holds at once, and what is told. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence

from router.entry import ModelEntry
from router.errors import UnknownModelError
from router.option import Option
from router.registry import Registry
from router.settings import OPTIONS, Settings, check

AT_START = tuple(option for option in OPTIONS if option.metadata["at_start"])


def honoured(now: Settings, wanted: Settings) -> Settings:
    """What is wanted, but for the options that cannot change while the daemon runs.

    Raises:
        SettingsError: it does not go together with those.
    """
    kept = {option.name: getattr(now, option.name) for option in AT_START}
    origins = {**wanted.origins, **{n: now.origins[n] for n in kept if n in now.origins}}
    settings = dataclasses.replace(wanted, **kept, origins=origins)
    check(settings)
    return settings


def news(now: Settings, wanted: Settings) -> list[str]:
    """One sentence about what is another at once, one about what will be after a restart."""
    changed = [option for option in OPTIONS if _differ(option, now, wanted)]
    at_once = [_name(option) for option in changed if option not in AT_START]
    if now.models != wanted.models:
        at_once.append("single models")
    at_start = [_name(option) for option in changed if option in AT_START]
    told = f"Settings read again; changed: {', '.join(at_once)}." if at_once else ""
    take = "takes" if len(at_start) == 1 else "take"
    later = f"{_listed(at_start)} {take} effect at the next start." if at_start else ""
    return [sentence for sentence in (told, later) if sentence]


def unknown_models(settings: Settings, registry: Registry) -> list[str]:
    """A sentence for each wish about a model that is not there."""
    known = {name for entry in registry for name in (entry.id, *entry.aliases)}
    where = settings.origins.get("engine", "--engine")
    return [
        f"{where} {name}={engine} names a model that was not found; `router list` shows all."
        for name, engine in settings.engine
        if name not in known
    ]


def absent_models(settings: Settings, registry: Registry) -> list[str]:
    """A sentence for a default model and each table of settings whose model is not there: it may
    come later."""
    known = {name for entry in registry for name in (entry.id, *entry.info.aliases)}
    return [
        *_absent_default(settings, registry),
        *(
            f"{model.place} is about a model that was not found{_meant(model.id, registry)}"
            for model in settings.models
            if model.id not in known
        ),
    ]


def _absent_default(settings: Settings, registry: Registry) -> Iterator[str]:
    if (name := settings.default_model) is None:
        return
    try:
        registry.find(name)
    except UnknownModelError:
        where = settings.origins.get("default_model", "--default-model")
        yield f"{where} names a model that was not found{_meant(name, registry)}"


def _meant(name: str, registry: Registry) -> str:
    near = registry.near(name, registry)
    return f"; did you mean {near[0]!r}?" if near else "; `router list` shows all."


def to_preload(old: Registry, new: Registry, retired: Collection[str]) -> list[ModelEntry]:
    """Models of which the settings have not said so before, or that make room for themselves."""
    before = {entry.id for entry in old if entry.settings.preload}.difference(retired)
    return [e for e in new.servable if e.settings.preload and e.id not in before]


def _differ(option: Option, now: Settings, wanted: Settings) -> bool:
    return bool(getattr(now, option.name) != getattr(wanted, option.name))


def _name(option: Option) -> str:
    return option.name.replace("_", "-")


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
