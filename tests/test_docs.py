"""The documentation says what the code does, as far as a program can tell."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends import errors as engine_errors
from backends.verdicts import Reason
from backends.wire.features import FEATURES
from router import errors as router_errors
from router.api.anthropic_error import TYPES, anthropic_error
from router.api.fluency import FLUENCY
from router.cli import main
from router.errors import EngineRefusedError
from router.option import ENGINE_NAMES
from router.preference import ORDER, ORDER_ON_MACOS
from tests.e2e.parity import REQUESTS, differences

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
FORMATS = ROOT / "docs" / "formats.md"
ADRS = sorted((ROOT / "docs" / "adr").glob("*.md"))

COMMANDS = ("serve", "list", "inspect", "ps", "doctor", "config")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")

CODED = {"Problem": 0, "HeaderError": 0, "NotAModelError": 0, "Skipped": 1}
"""What carries a code in the detector, and as which argument."""


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code_in(page: Path) -> str:
    return "\n".join(CODE.findall(page.read_text()))


def tables(page: Path) -> Iterator[list[list[str]]]:
    """Rows of cells, the head first and without the line below it."""
    for block in re.findall(r"(?:^\|.*\|\n)+", page.read_text(), re.MULTILINE):
        lines = [line for line in block.splitlines() if not re.fullmatch(r"[|: -]+", line)]
        yield [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def explained_codes() -> set[str]:
    coded = (rows for rows in tables(FORMATS) if rows[0][0] == "code")
    return {code for rows in coded for row in rows[1:] for code in re.findall(r"`(.+?)`", row[0])}


def codes_of_the_detector() -> Iterator[str]:
    for path in (ROOT / "detect").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id=name), args=arguments) if name in CODED:
                    yield from _texts(arguments[CODED[name] : CODED[name] + 1])
                case ast.keyword(arg="code", value=ast.Constant(value=str(code))):
                    yield code


def _texts(nodes: list[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def all_below(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for below in kind.__subclasses__():
        yield from all_below(below)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    targets = [link.partition("#")[0] for link in LINK.findall(page.read_text())]
    relative = [target for target in targets if target and "://" not in target]
    assert not [target for target in relative if not (page.parent / target).exists()]


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_make_target_exists(page: Path) -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", code_in(page), re.MULTILINE))
    exist = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named <= exist


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_named_file_of_ours_exists(page: Path) -> None:
    pattern = r"`((?:router|backends|detect|tests|configs|docs)/[\w/.-]*)`"
    named = re.findall(pattern, page.read_text())
    assert not [name for name in named if not (ROOT / name).exists()]


def test_every_flag_in_the_readme_is_one_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, "--help"])
    assert set(FLAG.findall(README.read_text())) <= set(FLAG.findall(capsys.readouterr().out))


def test_the_readme_names_every_command_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    help_text = capsys.readouterr().out
    assert re.findall(r"^    ([a-z]+) ", help_text, re.MULTILINE) == list(COMMANDS)
    assert set(re.findall(r"`router ([a-z]+)", README.read_text())) == set(COMMANDS)


def test_the_readme_shows_formats_against_every_engine() -> None:
    (head,) = [rows[0] for rows in tables(README) if rows[0][0] == "format"]
    assert [cell.partition(" ")[0] for cell in head[1:]] == list(ENGINE_NAMES)


def test_the_readme_has_a_place_for_a_session() -> None:
    assert "## A session" in README.read_text()


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_explained(reason: Reason) -> None:
    assert reason.value in explained_codes()


def test_every_other_code_is_explained() -> None:
    emitted = {
        *codes_of_the_detector(),
        *(getattr(kind, "code", "") for kind in all_below(router_errors.RouterError)),
        *(getattr(kind, "code", "") for kind in all_below(engine_errors.EngineError)),
    }
    assert {"unreadable", "unsafe.pickle", "queue_full", "engine.died"} <= emitted
    assert not emitted - explained_codes()


def test_every_explained_code_stands_in_the_code() -> None:
    sources = [
        p for folder in ("detect", "backends", "router") for p in (ROOT / folder).rglob("*.py")
    ]
    text = "\n".join(path.read_text() for path in sources)
    assert not [code for code in explained_codes() if f'"{code}"' not in text]


def test_the_orders_of_engines_are_those_of_the_program() -> None:
    shown = [
        {row[0].strip("`"): tuple(row[1].split(", ")) for row in rows[1:]}
        for rows in tables(ROOT / "docs" / "adr" / "0004-engine-preference.md")
        if rows[0] == ["class", "order"]
    ]
    programmed = (ORDER, ORDER_ON_MACOS)
    assert shown == [{kind.value: order for kind, order in table.items()} for table in programmed]


def test_decisions_are_numbered_without_a_gap() -> None:
    numbers = [int(path.name.partition("-")[0]) for path in ADRS]
    assert numbers == list(range(1, len(ADRS) + 1))


@pytest.mark.parametrize("page", ADRS, ids=page_name)
def test_a_decision_has_its_number_a_context_and_consequences(page: Path) -> None:
    title, *sections = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    assert title.startswith(f"{int(page.name[:4])}. ")
    assert sections == ["Context", "Decision", "Consequences"]


def test_the_table_of_dialects_is_that_of_the_code() -> None:
    """What is translated is said of each engine, in the table's order."""
    engines, *rows = next(tables(ROOT / "docs" / "api.md"))
    said = {
        (endpoint, engine): cell.partition(" ")[0]
        for first, *cells in rows
        for endpoint in re.findall(r"`(.+?)`", first)
        for engine, cell in zip(engines[1:], cells, strict=True)
    }
    told = {key: value.value for key, value in FLUENCY.items()}
    assert {key: said[key] for key in told} == told


def test_the_table_of_anthropics_errors_is_that_of_the_code() -> None:
    (rows,) = (rows for rows in tables(ROOT / "docs" / "api.md") if rows[0][0] == "status")
    said = {int(status): row[1].strip("`") for row in rows[1:] for status in row[0].split(", ")}
    for status, kind in said.items():
        error = EngineRefusedError("x", status=status)
        assert anthropic_error(error)["error"]["type"] == kind
    assert said.keys() >= TYPES.keys()


def parameters() -> dict[str, dict[str, str]]:
    """What the page says of each parameter, by engine."""
    (engines, *rows) = next(tables(ROOT / "docs" / "parameters.md"))
    return {
        f"{name}{which}": dict(zip(engines[1:], cells, strict=True))
        for first, *cells in rows
        for name, which in re.findall(r"`(\w+)`( \([^)]+\))?", first.partition(":")[0])
    }


def test_the_table_of_parameters_is_that_of_the_code() -> None:
    said = parameters()
    told = {
        name: {engine: "yes" if engine in feature.engines else "400" for engine in ENGINE_NAMES}
        for name, feature in FEATURES.items()
    }
    assert {name: said.get(name) for name in told} == told
    others = [engines for name, engines in said.items() if name not in told]
    assert {cell for engines in others for cell in engines.values()} == {"yes", "ignored"}


def test_every_parameter_of_the_table_is_put_to_every_engine() -> None:
    asked = {name for request in REQUESTS for name in request.body} | {"stream"}
    assert not {name.partition(" ")[0] for name in parameters()} - asked


def test_every_difference_between_engines_is_told_and_no_other() -> None:
    text = (ROOT / "docs" / "parameters.md").read_text()
    section = text.partition("## What differs\n")[2].partition("\n## ")[0]
    told = [" ".join(item.split()) for item in re.split(r"^- ", section, flags=re.MULTILINE)[1:]]
    assert told == list(dict.fromkeys(d.why for _, _, d in differences() if d.why))
