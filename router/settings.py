"""Every option, written once: its name, default, meaning and how to read it from text.

Flags win over the environment (`ROUTER_…`), that over the TOML file of `--config`, and that over
the defaults.
"""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from router.errors import SettingsError
from router.preference import ModelClass, Wishes

DEFAULT_PORT = 8642
ENGINE_NAMES = ("mlx", "llama.cpp", "mistral.rs")
CLASS_NAMES = tuple(ModelClass)

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_SCALE = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Bytes, or a share of the machine's memory: whichever the user wrote."""

    bytes: int | None = None
    percent: float | None = None

    def resolve(self, total_bytes: int) -> int:
        if self.bytes is not None:
            return self.bytes
        return int(total_bytes * (self.percent or 0) / 100)

    def __str__(self) -> str:
        return str(self.bytes) if self.bytes is not None else f"{self.percent:g}%"


LEAST_BUDGET_BYTES = 2**20
"""Less is a unit forgotten."""


def parse_size(text: str) -> int:
    """`512M`, `16GB` or a plain number of bytes; units are binary."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("takes a size such as 512M or 16G")
    size = float(match[1]) * _SCALE[match[2].lower()]
    if size >= 2**63:
        raise ValueError("takes a size such as 512M or 16G")
    return int(size)


def parse_budget(text: str) -> MemoryBudget:
    if text.strip().endswith("%"):
        percent = float(text.strip()[:-1])
        if not 0 < percent <= 100:
            raise ValueError("takes a percentage between 0 and 100, or a size such as 16G")
        return MemoryBudget(percent=percent)
    if (size := parse_size(text)) < LEAST_BUDGET_BYTES:
        raise ValueError("takes a size such as 16G or a percentage such as 80%")
    return MemoryBudget(bytes=size)


def parse_path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError("takes a path")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise ValueError("takes a path; there is no user of that name") from None


def parse_port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError("takes a port between 0 and 65535")
    return port


def parse_tokens(text: str) -> int:
    """A number of tokens; `8k` is 8192."""
    number = text.strip().lower()
    scale = 1024 if number.endswith("k") else 1
    try:
        tokens = int(number.removesuffix("k")) * scale
    except ValueError:
        tokens = 0
    if tokens < 1:
        raise ValueError("takes a number of tokens such as 8192 or 8k")
    return tokens


SWITCH = {"yes": True, "true": True, "on": True, "1": True,
          "no": False, "false": False, "off": False, "0": False}  # fmt: skip


def parse_switch(text: str) -> bool:
    if (value := SWITCH.get(text.strip().lower())) is None:
        raise ValueError("takes yes or no")
    return value


def parse_positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError("takes a whole number of at least 1")
    return number


def parse_seconds(text: str) -> float:
    seconds = float(text)
    if not seconds >= 0:
        raise ValueError("takes a number of seconds")
    return seconds


def parse_level(text: str) -> str:
    level = text.lower()
    if level not in ("debug", "info", "warning", "error"):
        raise ValueError("takes debug, info, warning or error")
    return level


def parse_engine_choice(text: str) -> tuple[str, str]:
    """`MODEL=ENGINE`."""
    model, separator, engine = text.rpartition("=")
    if not separator or not model or engine not in ENGINE_NAMES:
        raise ValueError(f"takes MODEL=ENGINE, with ENGINE one of {', '.join(ENGINE_NAMES)}")
    return model, engine


def parse_class_choice(text: str) -> tuple[str, str]:
    """`CLASS=ENGINE`."""
    kind, _, engine = text.rpartition("=")
    if kind not in CLASS_NAMES or engine not in ENGINE_NAMES:
        raise ValueError(
            f"takes CLASS=ENGINE, with CLASS one of {', '.join(CLASS_NAMES)} and ENGINE one of "
            f"{', '.join(ENGINE_NAMES)}"
        )
    return kind, engine


def _option(
    default: Any,
    help: str,  # noqa: A002 - argparse's own word for it
    parse: Callable[[str], Any],
    metavar: str,
    *,
    repeated: bool = False,
    secret: bool = False,
) -> Any:
    metadata = {
        "help": help,
        "parse": parse,
        "metavar": metavar,
        "repeated": repeated,
        "secret": secret,
    }
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    config: Path | None = _option(
        None,
        'A TOML file with any of these options, e.g. `models-dir = ["~/Models"]`.',
        parse_path,
        "FILE",
    )
    models_dir: tuple[Path, ...] = _option(
        (), "A folder with models; may be given several times.", parse_path, "DIR", repeated=True
    )
    watch: bool = _option(
        True,
        "Watch the folders: models that come, change and go are served, or not, without a restart.",
        parse_switch,
        "YES|NO",
    )
    host: str = _option("127.0.0.1", "Address to listen on.", str, "ADDRESS")
    port: int = _option(DEFAULT_PORT, "Port to listen on; 0 takes a free one.", parse_port, "PORT")
    api_key: str | None = _option(
        None,
        "Key that clients must send; needed to listen on anything but loopback. "
        "Better set by the environment than on the command line.",
        str,
        "KEY",
        secret=True,
    )
    allow_host: tuple[str, ...] = _option(
        (),
        "Another Host header to accept on a loopback address, e.g. that of a reverse proxy.",
        str,
        "NAME",
        repeated=True,
    )
    allow_origin: tuple[str, ...] = _option(
        (),
        "A web page's origin that may call this daemon, e.g. http://localhost:3000.",
        str,
        "ORIGIN",
        repeated=True,
    )
    engine: tuple[tuple[str, str], ...] = _option(
        (),
        "Run MODEL on ENGINE (mlx, llama.cpp, mistral.rs) where its verdict allows.",
        parse_engine_choice,
        "MODEL=ENGINE",
        repeated=True,
    )
    prefer: tuple[tuple[str, str], ...] = _option(
        (),
        f"Try ENGINE first for a class of models: {', '.join(CLASS_NAMES)}.",
        parse_class_choice,
        "CLASS=ENGINE",
        repeated=True,
    )
    llama_server: Path | None = _option(
        None, "The llama-server binary to use instead of the one on PATH.", parse_path, "FILE"
    )
    mistralrs: Path | None = _option(
        None,
        "The mistralrs or mistralrs-server binary to use instead of the one on PATH.",
        parse_path,
        "FILE",
    )
    memory: MemoryBudget = _option(
        MemoryBudget(percent=80),
        "Memory that all models together may take: a percentage of the machine's, or a size.",
        parse_budget,
        "SIZE",
    )
    context_length: int = _option(
        32768,
        "Most context, in tokens, that a model is loaded with; less where the model has less.",
        parse_tokens,
        "TOKENS",
    )
    parallel: int = _option(
        4, "Requests that one model answers at the same time.", parse_positive, "N"
    )
    max_queue: int = _option(
        256, "Requests that may wait for a model; more are refused with 429.", parse_positive, "N"
    )
    queue_seconds: float = _option(
        300.0, "Longest wait for memory before a request is given up.", parse_seconds, "SECONDS"
    )
    start_seconds: float = _option(
        600.0, "Longest time an engine may take to load a model.", parse_seconds, "SECONDS"
    )
    drain_seconds: float = _option(
        30.0,
        "Time that running answers get when the daemon is asked to end.",
        parse_seconds,
        "SECONDS",
    )
    max_body: int = _option(64 * 2**20, "Largest request body accepted.", parse_size, "SIZE")
    cache_dir: Path = _option(
        Path("~/.cache/local-model-router").expanduser(),
        "Where is remembered what the folders hold and what the engines say they support.",
        parse_path,
        "DIR",
    )
    log_level: str = _option(
        "info", "How much to log: debug, info, warning or error.", parse_level, "LEVEL"
    )

    @property
    def wishes(self) -> Wishes:
        return Wishes(dict(self.engine), dict(self.prefer))


OPTIONS: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(Settings)


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
        text += f" Default: {_shown(option)}."
    return (text + f" [{variable(option)}]").replace("%", "%%")


def _shown(option: dataclasses.Field[Any]) -> str:
    """The default as a user would write it."""
    default: Any = option.default
    if isinstance(default, bool):
        return "yes" if default else "no"
    if option.metadata["parse"] is parse_size:
        return f"{default // 2**20}M"
    return f"{default:g}" if isinstance(default, float) else str(default)


def load(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Settings from parsed flags, the environment, and the file that one of them names.

    Raises:
        SettingsError: a value that cannot be read, naming where it was written.
    """
    given = _from_environment(environment) | _from_flags(flags)
    if CONFIG in given:
        given = _from_file(*given[CONFIG]) | given
    settings = Settings(**{name: value for name, (value, _) in given.items()})
    _check(settings, {name: where for name, (_, where) in given.items()})
    return settings


CONFIG = "config"
MAX_FILE_BYTES = 2**20

Given = dict[str, tuple[Any, str]]
"""Values by option, each with where it was written: `--port`, `ROUTER_PORT`, `port in FILE`."""


def _from_flags(flags: Mapping[str, Any]) -> Given:
    return {
        option.name: (_read(option, _given(flags[option.name]), flag(option)), flag(option))
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
        given[option.name] = (_read(option, value, name), name)
    return given


def _from_file(path: Path, named_by: str) -> Given:
    by_name = {option.name: option for option in OPTIONS if option.name != CONFIG}
    given: Given = {}
    for key, value in _toml(path, named_by).items():
        option = by_name.get(key.replace("-", "_"))
        if option is None:
            raise SettingsError(f"{path} has {key!r}, which is not an option.")
        where = f"{key} in {path}"
        given[option.name] = (_read(option, _texts(value), where), where)
    return given


def _toml(path: Path, named_by: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb") as file:
            written = file.read(MAX_FILE_BYTES + 1)
        if len(written) > MAX_FILE_BYTES:
            raise SettingsError(f"{named_by} {path} is too large for a file of options.")
        return tomllib.loads(written.decode("utf-8"))
    except OSError as error:
        raise SettingsError(f"{named_by} {path} cannot be read: {error.strerror}.") from None
    except RecursionError:
        raise SettingsError(f"{named_by} {path} is nested too deeply.") from None
    except ValueError as error:
        raise SettingsError(f"{named_by} {path} is not a TOML file: {error}.") from None


def _texts(value: Any) -> str | list[str]:
    """A number may be written as one; everything is then read as on the command line."""
    return [str(item) for item in value] if isinstance(value, list) else str(value)


def _read(option: dataclasses.Field[Any], given: str | list[str], where: str) -> Any:
    if not option.metadata["repeated"]:
        return _parse(option, given, where)
    return tuple(
        _parse(option, one, where) for one in ([given] if isinstance(given, str) else given)
    )


def _parse(option: dataclasses.Field[Any], text: str | list[str], where: str) -> Any:
    try:
        if isinstance(text, list):
            raise ValueError("takes one value")
        return option.metadata["parse"](text)
    except ValueError as error:
        shown = "the value given" if option.metadata["secret"] else repr(text)
        reason = str(error) if str(error).startswith("takes") else f"takes {_kind(option)}"
        raise SettingsError(f"{where} {reason}, not {shown}.") from None


def _kind(option: dataclasses.Field[Any]) -> str:
    return f"a {option.metadata['metavar'].lower()}"


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine for sure: `127.0.0.1.example.com` is a stranger's name."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check(settings: Settings, where: Mapping[str, str]) -> None:
    if not is_loopback(settings.host) and not settings.api_key:
        raise SettingsError(
            f"{where['host']} {settings.host} would let everyone on the network use your models: "
            "set --api-key (or ROUTER_API_KEY) as well."
        )
    for folder in settings.models_dir:
        if not folder.exists():
            raise SettingsError(f"{where['models_dir']} {folder} does not exist.")
        if not folder.is_dir():
            raise SettingsError(
                f"{where['models_dir']} {folder} is a file: give the folder that it lies in."
            )
