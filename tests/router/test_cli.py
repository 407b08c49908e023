"""What the command line prints; that it works is in `tests/e2e`."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from detect.types import Evidence, Problem, Role
from router import cli
from router.entry import ModelEntry
from router.overview import overview
from router.portrait import portrait
from router.registry import Registry
from router.settings import Settings
from tests.router.entries import entry, no

EVIL = "\x1b[2J\x9b\r\udcff\N{RIGHT-TO-LEFT OVERRIDE}"


def strange(**facts: Any) -> ModelEntry:
    return entry(f"m{EVIL}", no("fake", f"knows no {EVIL}"), **facts)


def assert_printable(text: str) -> None:
    assert all(c.isprintable() or c == "\n" for c in text)


def test_no_control_character_of_a_models_files_reaches_the_terminal() -> None:
    problem = Problem("conflict.layout", f"config.json says {EVIL}.")
    broken = Problem("corrupt.header", f"{EVIL} is no header.")
    for problems in ((problem,), (problem, broken)):
        model = strange(problems=problems, evidence=(Evidence("role", EVIL, EVIL),))
        assert_printable(portrait(model, None, 80))
        assert_printable(overview(Registry([model]), (), 80))


def test_json_is_readable_and_holds_what_no_terminal_should_get_escaped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    value = {"id": f"Größe 模型 {EVIL}\N{TAG SPACE}", "n": [1, None]}
    cli._print_json(value)
    shown = capsys.readouterr().out
    assert_printable(shown)
    assert "Größe 模型" in shown
    assert json.loads(shown) == value


def invitation(*models: ModelEntry, **settings: Any) -> str:
    return cli._invitation(Registry(models), "http://127.0.0.1:1", Settings(**settings))


def test_the_invitation_is_a_command_for_a_model_that_writes_text() -> None:
    first = entry("it's", role=Role.GENERATIVE)
    text = invitation(strange(), entry("bge", role=Role.EMBEDDING), first, entry("other"))
    words = shlex.split(text.partition("Try:")[2])
    assert words[1] == "http://127.0.0.1:1/v1/chat/completions"
    assert json.loads(words[-1])["model"] == "it's"


def test_the_invitation_does_not_show_the_key() -> None:
    text = invitation(entry("a"), api_key="hunter2")
    assert "$ROUTER_API_KEY" in text
    assert "hunter2" not in text


def test_without_a_model_that_writes_text_there_is_no_invitation() -> None:
    for models in ((), (strange(),), (entry("bge", role=Role.EMBEDDING),)):
        assert invitation(*models).endswith("with nothing to serve yet.")


def test_whatever_goes_wrong_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: object) -> int:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(cli, "_doctor", fail)
    assert cli.main(["doctor"]) == cli.FAILED
    shown = capsys.readouterr()
    assert shown.err == (
        "router: unexpectedly failed (ZeroDivisionError: by nothing); please report this.\n"
    )
    assert not shown.out
