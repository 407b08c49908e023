from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backends import installed as module
from backends.base import Installation
from backends.installed import (
    Binary,
    Wheel,
    find_binary,
    installation,
    wheel_folder,
    wheel_version,
)
from tests.processes import none_alive
from tests.slack import soon

Script = Callable[..., Path]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """`script("echo a")` is a program that prints `a`."""

    def write(body: str, name: str = "engine", mode: int = 0o755) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(mode)
        return path

    return write


def found(path: Path | None, *names: str) -> Binary:
    binary = find_binary(path, names)
    assert binary is not None
    return binary


@pytest.mark.parametrize(
    ("prints", "version"),
    [
        ("echo 'version: 4567 (abcdef)'; echo 'built with cc'", "4567"),
        ("echo 'version: 4567 (abcdef)' >&2", "4567"),
        ("echo 'mistralrs 0.9.5'", "0.9.5"),
        ("echo 'mistralrs-server v0.8.0-rc1'", "0.8.0-rc1"),
        ("echo 'ggml_init: found 2 devices' >&2; echo 'version: 12 (x)' >&2", "12"),
        ("echo 'version: 7'; exit 1", "7"),
        ("echo 'no idea'", None),
        ("printf '\\377\\376'", None),
        ("true", None),
    ],
)
def test_a_binary_tells_its_version(script: Script, prints: str, version: str | None) -> None:
    path = script(prints)
    assert found(path) == Binary(path, version=version)


def test_a_binary_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "missing"
    assert found(path) == Binary(path, problem=f"{path} does not exist.")
    assert found(tmp_path).problem == f"{tmp_path} does not exist."


def test_a_binary_that_is_not_executable(script: Script) -> None:
    path = script("echo 'version: 1'", mode=0o644)
    assert found(path) == Binary(path, problem=f"{path} is not executable.")


def test_a_binary_that_fails_says_so_in_its_own_last_words(script: Script) -> None:
    path = script("echo first; echo 'libx.so: not found' >&2; exit 127")
    assert found(path).problem == f"{path} cannot be run: libx.so: not found."


def test_a_binary_that_fails_in_silence_says_its_status(script: Script) -> None:
    path = script("exit 3")
    assert found(path).problem == f"{path} cannot be run: it ended with status 3."


@pytest.mark.parametrize("content", [b"\x7fELF\x02\x01\x01", b"#!/does/not/exist\n", b"\0"])
def test_a_binary_for_another_machine(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "engine"
    path.write_bytes(content)
    path.chmod(0o755)
    assert found(path) == Binary(path, problem=f"{path} cannot be run on this machine.")
    assert found(path).ask("--help") == ""


def test_a_binary_that_hangs_is_given_up_and_leaves_nothing(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASK_SECONDS", 0.5)
    path = script(f"sleep 600 & echo $! $$ > {tmp_path}/pids; wait")
    assert found(path).problem == f"{path} cannot be run on this machine."
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    soon(lambda: none_alive(pids), 1)


def test_a_relative_path_means_the_file_there(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = script("echo 'version: 1'", name="engine-of-mine")
    monkeypatch.chdir(tmp_path)
    assert found(Path("engine-of-mine")) == Binary(path, version="1")


def test_the_first_name_on_the_path_is_taken(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = script("echo 'version: 1'", "old"), script("echo 'version: 2'", "new")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert found(None, "new", "old") == Binary(new, version="2")
    assert found(None, "none-of-that-name", "old") == Binary(old, version="1")
    assert find_binary(None, ("none-of-that-name",)) is None


def test_a_configured_binary_is_taken_whatever_its_state(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script("echo 'version: 1'", "engine")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert found(tmp_path / "missing", "engine").problem


def test_a_binary_can_be_asked_for_more(script: Script) -> None:
    binary = found(script('echo "asked: $*"; echo "and more" >&2'))
    assert binary.ask("serve", "--help").splitlines() == ["asked: serve --help", "and more"]


def test_a_binary_sees_none_of_our_secrets(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary")
    assert "canary" not in found(script("env")).ask()


# What is reported


NOTHING = Wheel(distribution="no-such-distribution", module="no_such_module")
PRESENT = Wheel(distribution="pytest", module="pytest")


def report(binary: Binary | None, wheel: Wheel) -> Installation:
    return installation(
        "fake",
        binary,
        wheel,
        option="--fake-binary",
        install="pip install fake",
        capabilities=("a",),
    )


def test_a_binary_is_preferred_to_a_wheel(tmp_path: Path) -> None:
    reported = report(Binary(tmp_path, version="1"), PRESENT)
    assert (reported.how, reported.version, reported.path) == ("binary", "1", tmp_path)
    assert (reported.usable, reported.remedy) == (True, "")
    assert reported.capabilities == ("a",)


def test_a_binary_that_cannot_be_run_is_no_reason_to_take_a_wheel(tmp_path: Path) -> None:
    reported = report(Binary(tmp_path, problem="It is broken."), PRESENT)
    assert (reported.usable, reported.problem) == (False, "It is broken.")
    assert "--fake-binary" in reported.remedy


def test_a_wheel_is_reported_with_its_folder() -> None:
    reported = report(None, PRESENT)
    assert (reported.how, reported.version) == ("worker", pytest.__version__)
    assert reported.path == Path(pytest.__file__).parent
    assert reported.usable


def test_without_any_the_way_to_install_it_is_named() -> None:
    reported = report(None, NOTHING)
    assert (reported.how, reported.version, reported.path) == ("", None, None)
    assert (reported.problem, reported.remedy) == ("fake is not installed.", "pip install fake")


def test_looking_for_a_wheel_does_not_import_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "explosive_wheel").mkdir()
    (tmp_path / "explosive_wheel" / "__init__.py").write_text("raise SystemExit(1)")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert wheel_folder("explosive_wheel") == tmp_path / "explosive_wheel"
    assert "explosive_wheel" not in sys.modules
    assert wheel_version("explosive_wheel") is None
