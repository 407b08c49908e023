"""What the user says of single models in the TOML file: `[models."org/name"]`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.base import Isolation
from router.errors import SettingsError
from router.option import (
    ENGINE_NAMES,
    option_field,
    parse_bits,
    parse_engine,
    parse_isolation,
    parse_path,
    parse_positive,
    parse_seconds,
    parse_share,
    parse_switch,
    parse_tokens,
    read_table,
)
from router.toml_file import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """`id` is the model's, or one of its aliases; None leaves a setting to the global one."""

    id: str
    aliases: tuple[str, ...] = option_field(
        (), "More names for it, e.g. those that a client insists on.", str, "NAME", repeated=True
    )
    engine: str | None = option_field(
        None, f"Run it on this engine: {', '.join(ENGINE_NAMES)}.", parse_engine, "ENGINE"
    )
    context_length: int | None = option_field(
        None, "Most context that it is loaded with.", parse_tokens, "TOKENS"
    )
    isolation: Isolation | None = option_field(
        None, "Where mlx runs it: in the daemon, or in a worker.", parse_isolation, "WHERE"
    )
    kv_bits: int | None = option_field(
        None, "Bits in which mlx holds its context: 4 or 8.", parse_bits, "BITS"
    )
    base: str | None = option_field(
        None, "It is an adapter of mlx-lm for this model, which lies in `adapter`.", str, "MODEL"
    )
    adapter: Path | None = option_field(
        None, "The folder with adapters.safetensors, for a model with a `base`.", parse_path, "DIR"
    )
    draft: str | None = option_field(
        None,
        "A smaller model of the same vocabulary, which guesses tokens for this one on mlx.",
        str,
        "MODEL",
    )
    idle_seconds: float | None = option_field(
        None, "Unload it after so long without use; 0 never does.", parse_seconds, "SECONDS"
    )
    temperature: float | None = option_field(
        None,
        "Sampling, where a request does not say; likewise the next ones.",
        parse_share(0, 5),
        "N",
    )
    top_p: float | None = option_field(None, "As OpenAI has it.", parse_share(0, 1), "N")
    top_k: int | None = option_field(None, "Most candidates for a token.", parse_positive, "N")
    min_p: float | None = option_field(
        None, "Least share of the likeliest token's chance.", parse_share(0, 1), "N"
    )
    repeat_penalty: float | None = option_field(
        None, "Above 1, repeated tokens get less likely.", parse_share(0.01, 10), "N"
    )
    presence_penalty: float | None = option_field(
        None, "As OpenAI has it.", parse_share(-2, 2), "N"
    )
    frequency_penalty: float | None = option_field(
        None, "As OpenAI has it.", parse_share(-2, 2), "N"
    )
    max_tokens: int | None = option_field(None, "Longest answer.", parse_tokens, "TOKENS")
    pin: bool = option_field(False, "Never unload it for another model.", parse_switch, "YES|NO")
    preload: bool = option_field(False, "Load it when the daemon starts.", parse_switch, "YES|NO")

    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Where each setting was written."""
    place: str = field(default="", compare=False, repr=False)
    """Where its table stands."""

    @property
    def sampling(self) -> dict[str, Any]:
        """Fields of a request, with the values that it has if it does not say."""
        said = {name: getattr(self, name) for name in SAMPLING}
        return {name: value for name, value in said.items() if value is not None}


SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty",
    "frequency_penalty", "max_tokens",
)  # fmt: skip

MODELS = "models"

NOTHING_SAID = ModelSettings(id="")

MODEL_OPTIONS = tuple(one for one in dataclasses.fields(ModelSettings) if one.metadata)


def model_settings(table: Any, place: Place) -> tuple[ModelSettings, ...]:
    """What stands below `[models]`, which is at `place`.

    Raises:
        SettingsError: naming the model and the key.
    """
    if not isinstance(table, Mapping):
        where = f"{MODELS} in {place.at(MODELS)}"
        raise SettingsError(f"{where} must be tables such as [models.my-model].")
    models = place.table(MODELS)
    return tuple(_one(name, given, models.table(name)) for name, given in table.items())


def _one(name: str, given: Any, place: Place) -> ModelSettings:
    if not isinstance(given, Mapping):
        raise SettingsError(f"{place} must be a table; a name with dots or slashes needs quotes.")
    read = read_table(given, MODEL_OPTIONS, place)
    if ("base" in read) != ("adapter" in read):
        raise SettingsError(f"{place} needs both `base` and `adapter`, or neither.")
    return ModelSettings(
        id=name,
        **{key: value for key, (value, _) in read.items()},
        origins={key: where for key, (_, where) in read.items()},
        place=str(place),
    )
