"""The examples in `configs/` are read as the programs they are for read them."""

from __future__ import annotations

import configparser
import dataclasses
import os
import plistlib
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from router import cli
from router.settings import OPTIONS, Settings, load
from router.settings import flag as flag_of

CONFIGS = Path(__file__).parents[1] / "configs"
TOML, PLIST, UNIT = "router.toml", "local.router.plist", "router.service"

SWITCHED_OFF = re.compile(r"^#(?=[a-z-]+ = )", re.MULTILINE)
ENDS_WITHIN = Settings().drain_seconds + 10
"""Seconds: the drain, and then the engines' own end."""


def name(option: dataclasses.Field[Any]) -> str:
    return flag_of(option).removeprefix("--")


IN_A_FILE = [option for option in OPTIONS if option.name != "config"]


def uncommented(folder: Path) -> Path:
    file = folder / TOML
    file.write_text(SWITCHED_OFF.sub("", (CONFIGS / TOML).read_text()))
    return file


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "Models").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_every_config_has_a_test() -> None:
    assert {path.name for path in CONFIGS.iterdir()} == {TOML, PLIST, UNIT}


def test_the_toml_names_every_option_once() -> None:
    text = (CONFIGS / TOML).read_text()
    named = re.findall(r"^#?([a-z-]+) = ", text, re.MULTILINE)
    assert sorted(named) == sorted(map(name, IN_A_FILE))


def test_the_toml_as_it_stands_changes_nothing() -> None:
    file = CONFIGS / TOML
    assert load({"config": str(file)}, {}) == Settings(config=file)


def test_the_toml_loads_with_everything_switched_on(home: Path) -> None:
    loaded = load({"config": str(uncommented(home))}, {})
    assert loaded.models_dir == (home / "Models",)
    assert loaded.engine == (("my-model", "mistral.rs"),)
    assert loaded.api_key == "a long random text"
    assert loaded.llama_server == Path("/usr/local/bin/llama-server")
    unset = [o.name for o in IN_A_FILE if getattr(loaded, o.name) in (None, ())]
    assert not unset


def test_the_toml_shows_the_defaults_where_there_are_any(home: Path) -> None:
    loaded = load({"config": str(uncommented(home))}, {})
    shown = {option.name: getattr(loaded, option.name) for option in IN_A_FILE}
    defaults = {o.name: o.default for o in IN_A_FILE if o.default not in (None, ())}
    # Its default was read with the home folder of whoever runs the tests.
    del defaults["cache_dir"]
    assert shown["cache_dir"] == home / ".cache/local-model-router"
    assert {option: shown[option] for option in defaults} == defaults


def test_the_launchd_agent_starts_the_daemon_and_lets_it_end(home: Path) -> None:
    agent: dict[str, Any] = plistlib.loads((CONFIGS / PLIST).read_bytes())
    assert f"{agent['Label']}.plist" == PLIST
    shell, flag, script = agent["ProgramArguments"]
    assert (shell, flag) == ("/bin/sh", "-c")
    words = [os.path.expandvars(word) for word in shlex.split(script)]
    assert words[:2] == ["exec", str(home / ".local/bin/router")]
    settings = check_command(words[2:])
    assert settings.log_file == home / "Library/Logs/router.log"
    assert agent["ExitTimeOut"] > ENDS_WITHIN
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert agent["Umask"] == 0o077


def test_the_systemd_unit_starts_the_daemon_and_lets_it_end(home: Path) -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.read(CONFIGS / UNIT)
    service = unit["Service"]
    program, *arguments = shlex.split(service["ExecStart"].replace("%h", str(home)))
    assert program == str(home / ".local/bin/router")
    check_command(arguments)
    assert shlex.split(service["ExecReload"]) == ["kill", "-HUP", "$MAINPID"]
    assert service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) > ENDS_WITHIN
    assert unit["Install"]["WantedBy"] == "default.target"


def check_command(arguments: list[str]) -> Settings:
    """What the program itself makes of its command line, with the example in its place."""
    parsed = vars(cli._parser().parse_args(arguments))
    assert parsed["command"] is cli._serve
    file = Path(parsed["config"])
    file.parent.mkdir(parents=True)
    shutil.copyfile(CONFIGS / TOML, file)
    settings = load(parsed, {})
    assert settings.config == file
    return settings
