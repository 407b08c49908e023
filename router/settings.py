"""Every option, written once: its name, default, meaning and how to read it from text.

Flags win over the environment (`ROUTER_…`), that over the TOML file of `--config`, and that over
the defaults.
"""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.base import Isolation, Patience
from router import toml_file
from router.errors import SettingsError
from router.model_settings import MODELS, ModelSettings, model_settings
from router.option import (
    CLASS_NAMES,
    MemoryBudget,
    Progress,
    option_field,
    parse_bits,
    parse_budget,
    parse_class_choice,
    parse_engine_choice,
    parse_isolation,
    parse_level,
    parse_name,
    parse_path,
    parse_port,
    parse_positive,
    parse_progress,
    parse_seconds,
    parse_share_of_memory,
    parse_size,
    parse_switch,
    parse_tokens,
    read,
    read_table,
    written,
)
from router.preference import Wishes

DEFAULT_PORT = 8642


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    config: Path | None = option_field(
        None,
        'A TOML file with any of these options, e.g. `models-dir = ["~/Models"]`.',
        parse_path,
        "FILE",
    )
    models_dir: tuple[Path, ...] = option_field(
        (), "A folder with models; may be given several times.", parse_path, "DIR", repeated=True
    )
    watch: bool = option_field(
        True,
        "Watch the folders and the file of --config: what changes there holds without a restart.",
        parse_switch,
        "YES|NO",
    )
    host: str = option_field("127.0.0.1", "Address to listen on.", str, "ADDRESS", at_start=True)
    port: int = option_field(
        DEFAULT_PORT, "Port to listen on; 0 takes a free one.", parse_port, "PORT", at_start=True
    )
    api_key: str | None = option_field(
        None,
        "Key that clients must send; needed to listen on anything but loopback. "
        "Better set by the environment than on the command line.",
        str,
        "KEY",
        secret=True,
    )
    allow_host: tuple[str, ...] = option_field(
        (),
        "Another Host header to accept on a loopback address, e.g. that of a reverse proxy.",
        str,
        "NAME",
        repeated=True,
    )
    allow_origin: tuple[str, ...] = option_field(
        (),
        "A web page's origin that may call this daemon, e.g. http://localhost:3000.",
        str,
        "ORIGIN",
        repeated=True,
    )
    engine: tuple[tuple[str, str], ...] = option_field(
        (),
        "Run MODEL on ENGINE (mlx, llama.cpp, mistral.rs) where its verdict allows.",
        parse_engine_choice,
        "MODEL=ENGINE",
        repeated=True,
    )
    prefer: tuple[tuple[str, str], ...] = option_field(
        (),
        f"Try ENGINE first for a class of models: {', '.join(CLASS_NAMES)}.",
        parse_class_choice,
        "CLASS=ENGINE",
        repeated=True,
    )
    default_model: str | None = option_field(
        None,
        "The model that answers requests for a model that is not there.",
        parse_name,
        "MODEL",
    )
    llama_server: Path | None = option_field(
        None,
        "The llama-server binary to use instead of the one on PATH.",
        parse_path,
        "FILE",
        at_start=True,
    )
    mistralrs: Path | None = option_field(
        None,
        "The mistralrs or mistralrs-server binary to use instead of the one on PATH.",
        parse_path,
        "FILE",
        at_start=True,
    )
    memory: MemoryBudget = option_field(
        MemoryBudget(percent=80),
        "Memory that all models together may take: a percentage of the machine's, or a size.",
        parse_budget,
        "SIZE",
    )
    context_length: int = option_field(
        32768,
        "Most context, in tokens, that a model is loaded with; less where the model has less.",
        parse_tokens,
        "TOKENS",
    )
    idle_seconds: float = option_field(
        0.0,
        "Unload a model that was not used for so long; 0 keeps it until its room is needed.",
        parse_seconds,
        "SECONDS",
    )
    isolation: Isolation = option_field(
        Isolation.DAEMON,
        "Where mlx runs: in the daemon, or each model in a worker process of its own.",
        parse_isolation,
        "WHERE",
    )
    prefix_cache: MemoryBudget = option_field(
        MemoryBudget(percent=5),
        "Memory in which mlx keeps the beginnings of prompts, for each model: a percentage of the "
        "machine's, or a size; 0 keeps none.",
        parse_share_of_memory,
        "SIZE",
    )
    prefix_cache_disk: int = option_field(
        0,
        "Disk space below --cache-dir in which mlx keeps them over restarts, for each model. "
        "Whoever can read it can read conversations.",
        parse_size,
        "SIZE",
    )
    kv_bits: int | None = option_field(
        None,
        "Bits in which mlx holds the context, 4 or 8, to need less memory; requests for one model "
        "are then answered one after another.",
        parse_bits,
        "BITS",
    )
    parallel: int = option_field(
        4, "Requests that one model answers at the same time.", parse_positive, "N"
    )
    max_queue: int = option_field(
        256, "Requests that may wait for a model; more are refused with 429.", parse_positive, "N"
    )
    queue_seconds: float = option_field(
        300.0, "Longest wait for memory before a request is given up.", parse_seconds, "SECONDS"
    )
    start_seconds: float = option_field(
        600.0, "Longest time an engine may take to load a model.", parse_seconds, "SECONDS"
    )
    load_progress: Progress = option_field(
        Progress.OFF,
        "Tell those who stream how their model loads: in comments of the stream, or as reasoning; "
        "off, unless they ask by the header X-Router-Progress.",
        parse_progress,
        "HOW",
    )
    first_token_seconds: float = option_field(
        3600.0,
        "Longest time until an engine begins its answer; 0 waits for ever.",
        parse_seconds,
        "SECONDS",
    )
    next_token_seconds: float = option_field(
        300.0,
        "Longest silence of an engine in the middle of an answer; 0 waits for ever.",
        parse_seconds,
        "SECONDS",
    )
    stall_seconds: float = option_field(
        120.0,
        "End an engine that has requests, and for so long neither says nor computes anything; "
        "0 never does.",
        parse_seconds,
        "SECONDS",
    )
    drain_seconds: float = option_field(
        30.0,
        "Time that running answers get when the daemon is asked to end.",
        parse_seconds,
        "SECONDS",
    )
    max_body: int = option_field(64 * 2**20, "Largest request body accepted.", parse_size, "SIZE")
    cache_dir: Path = option_field(
        Path("~/.cache/local-model-router").expanduser(),
        "Where is remembered what the folders hold and what the engines say they support.",
        parse_path,
        "DIR",
        at_start=True,
    )
    log_level: str = option_field(
        "info", "How much to log: debug, info, warning or error.", parse_level, "LEVEL"
    )
    log_file: Path | None = option_field(
        None,
        "A file that gets the log, too; full, it is set aside, and the oldest of five is removed.",
        parse_path,
        "FILE",
        at_start=True,
    )

    models: tuple[ModelSettings, ...] = ()
    """What the file says of single models; there are no flags for them."""

    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Where each option that is not at its default was written."""

    @property
    def patience(self) -> Patience:
        return Patience(
            first_seconds=self.first_token_seconds or math.inf,
            next_seconds=self.next_token_seconds or math.inf,
            stall_seconds=self.stall_seconds or math.inf,
        )

    @property
    def wishes(self) -> Wishes:
        in_file = {model.id: model.engine for model in self.models if model.engine}
        return Wishes({**in_file, **dict(self.engine)}, dict(self.prefer))


OPTIONS: tuple[dataclasses.Field[Any], ...] = tuple(
    field for field in dataclasses.fields(Settings) if field.metadata
)


def flag(option: dataclasses.Field[Any]) -> str:
    return "--" + option.name.replace("_", "-")


def variable(option: dataclasses.Field[Any]) -> str:
    return "ROUTER_" + option.name.upper()


def add_flags(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add the flags of the named options, or of all of them."""
    for option in OPTIONS:
        if not names or option.name in names:
            _add_flag(parser, option)


def _add_flag(parser: argparse.ArgumentParser, option: dataclasses.Field[Any]) -> None:
    common: dict[str, Any] = {"dest": option.name, "help": _help(option), "default": None}
    if option.metadata["parse"] is parse_switch:
        switch = argparse.BooleanOptionalAction
        parser.add_argument(flag(option), action=switch, **common)
        return
    parser.add_argument(
        flag(option),
        metavar=option.metadata["metavar"],
        action="append" if option.metadata["repeated"] else "store",
        **common,
    )


def _help(option: dataclasses.Field[Any]) -> str:
    text = str(option.metadata["help"])
    if option.default not in (None, ()) and option.name != "cache_dir":
        text += f" Default: {written(option, option.default)}."
    return (text + f" [{variable(option)}]").replace("%", "%%")


def load(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Settings from parsed flags, the environment, and the file that one of them names.

    Raises:
        SettingsError: a value that cannot be read, naming where it was written.
    """
    given = _from_environment(environment) | _from_flags(flags)
    models: tuple[ModelSettings, ...] = ()
    if CONFIG in given:
        in_file, models = _from_file(*given[CONFIG])
        given = in_file | given
    values = {name: value for name, (value, _) in given.items()}
    origins = {name: where for name, (_, where) in given.items()}
    settings = Settings(**values, models=models, origins=origins)
    check(settings)
    return settings


CONFIG = "config"

Given = dict[str, tuple[Any, str]]
"""Values by option, each with where it was written: `--port`, `ROUTER_PORT`, `port in FILE`."""


def _from_flags(flags: Mapping[str, Any]) -> Given:
    return {
        option.name: (read(option, _given(flags[option.name]), flag(option)), flag(option))
        for option in OPTIONS
        if flags.get(option.name) is not None
    }


def _given(value: Any) -> Any:
    """A switch has been read by argparse, everything else is as it was written."""
    return str(value) if isinstance(value, bool) else value


def _from_environment(environment: Mapping[str, str]) -> Given:
    given: Given = {}
    for option in OPTIONS:
        name = variable(option)
        if not (written := environment.get(name)):
            continue
        separator = ":" if option.name == "models_dir" else ","
        texts = [text.strip() for text in written.split(separator) if text.strip()]
        value = texts if option.metadata["repeated"] else written
        given[option.name] = (read(option, value, name), name)
    return given


def _from_file(path: Path, named_by: str) -> tuple[Given, tuple[ModelSettings, ...]]:
    """The options in the file, and what it says of single models under `[models.ID]`."""
    table, place = toml_file.read(path, named_by)
    models = model_settings(table.pop(MODELS, {}), place)
    in_a_file = [option for option in OPTIONS if option.name != CONFIG]
    return read_table(table, in_a_file, place), models


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine for sure: `127.0.0.1.example.com` is a stranger's name."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check(settings: Settings) -> None:
    """Raises SettingsError: options that are fine alone, and not here or together."""
    if not is_loopback(settings.host) and not settings.api_key:
        raise SettingsError(
            f"{_origin(settings, 'host')} {settings.host} would let everyone on the network use "
            "your models: set --api-key (or ROUTER_API_KEY) as well."
        )
    where = _origin(settings, "models_dir")
    for folder in settings.models_dir:
        if not folder.exists():
            raise SettingsError(f"{where} {folder} does not exist.")
        if not folder.is_dir():
            raise SettingsError(f"{where} {folder} is a file: give the folder that it lies in.")


def _origin(settings: Settings, name: str) -> str:
    return settings.origins.get(name, "--" + name.replace("_", "-"))
