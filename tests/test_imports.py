"""Who may import whom, held by the text of every module."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("detect", "backends", "router")

MAY_IMPORT = {
    "detect": {"detect"},
    "backends": {"detect", "backends"},
    "router": {"detect", "backends", "router"},
}

LAYERS: tuple[frozenset[str], ...] = (
    frozenset(
        {"errors", "table", "preference", "runtime", "experience", "tally", "exposition", "version"}
    ),
    frozenset({"toml_file", "explain", "log", "last_words", "keep_alive"}),
    frozenset({"option"}),
    frozenset({"model_settings"}),
    frozenset({"settings"}),
    frozenset({"entry"}),
    frozenset({"relatives"}),
    frozenset({"registry"}),
    frozenset(
        {
            "catalog",
            "configuration",
            "overview",
            "portrait",
            "provenance",
            "reload",
            "running",
            "fit",
        }
    ),
    frozenset({"known_file", "listener"}),
    frozenset({"policy", "circuit"}),
    frozenset({"scheduler"}),
    frozenset({"ways", "failures"}),
    frozenset({"pool"}),
    frozenset({"watch", "gauge"}),
    frozenset({"api"}),
    frozenset({"app"}),
    frozenset({"server"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
"""The nouns of `router`, from the inside out: each may import those before it."""

ENGINE_LIBRARIES = frozenset(
    {
        "mlx",
        "mlx_lm",
        "transformers",
        "tokenizers",
        "xllamacpp",
        "mistralrs",
        "numpy",
        "gguf",
        "llguidance",
    }
)
ENGINE_HOMES = ("backends.mlx", "backends.mistral_rs", "backends.workers", "backends.wire.form")

PURE = ("router.policy", "router.circuit", "router.scheduler")
NOT_PURE = frozenset(
    {"asyncio", "httpx", "httpcore", "h11", "httptools", "starlette", "uvicorn", "anyio", "uvloop",
     "http", "urllib", "socket", "ssl", "threading", "subprocess", "time"}
)  # fmt: skip

SLOW = (
    "mlx", "mlx_lm", "transformers", "uvicorn", "httpx", "numpy", "xllamacpp", "mistralrs",
    "llguidance",
)  # fmt: skip


@dataclass(frozen=True)
class Import:
    """`inside`: in a function, and so not done before somebody calls it."""

    module: str
    target: str
    line: int
    inside: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[Import]:
    name = module_name(path)
    yield from _walk(ast.parse(path.read_text("utf-8")), name, inside=False)


def _walk(node: ast.AST, module: str, inside: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(module, alias.name, child.lineno, inside)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{module}:{child.lineno} imports relatively"
            assert child.module is not None
            for alias in child.names:
                yield Import(module, f"{child.module}.{alias.name}", child.lineno, inside)
        else:
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _walk(child, module, inside or function)


IMPORTS = tuple(
    found
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    for found in imports_of(path)
)


def top(name: str) -> str:
    return name.partition(".")[0]


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def layer(module: str) -> int:
    noun = module.split(".")[1]
    return next(i for i, nouns in enumerate(LAYERS) if noun in nouns)


def test_the_walk_sees_what_there_is() -> None:
    seen = {(found.module, found.target, found.inside) for found in IMPORTS}
    assert ("router.pool", "router.scheduler.Scheduler", False) in seen
    assert ("router.server", "backends.llama_cpp.LlamaCppBackend", True) in seen
    assert {found.module for found in IMPORTS} >= {"detect.scan", "backends.served", "router.cli"}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_those_below_it_and_never_the_tests(package: str) -> None:
    ours = {*PACKAGES, "tests"}
    wrong = [
        str(found)
        for found in IMPORTS
        if top(found.module) == package and top(found.target) in ours - MAY_IMPORT[package]
    ]
    assert not wrong


def test_every_module_of_the_router_has_its_layer() -> None:
    nouns = {
        path.stem if path.is_file() else path.name
        for path in (ROOT / "router").iterdir()
        if (path.suffix == ".py" or path.is_dir())
        and path.name not in ("__init__.py", "__pycache__")
    }
    assert nouns == set().union(*LAYERS)


def test_inside_the_router_imports_point_inwards() -> None:
    wrong = [
        str(found)
        for found in IMPORTS
        if within(found.module, "router")
        and within(found.target, "router")
        and found.module != "router"
        and not _points_inwards(found)
    ]
    assert not wrong


def _points_inwards(found: Import) -> bool:
    if within(found.module, "router.api") and within(found.target, "router.api"):
        return True
    return layer(found.target) < layer(found.module)


@pytest.mark.parametrize("module", PURE)
def test_policy_and_scheduler_know_no_event_loop_no_network_and_no_clock(module: str) -> None:
    wrong = [str(f) for f in IMPORTS if f.module == module and top(f.target) in NOT_PURE]
    assert not wrong


def test_the_engines_libraries_are_imported_in_functions_of_their_own_backend_only() -> None:
    wrong = [
        str(found)
        for found in IMPORTS
        if top(found.target) in ENGINE_LIBRARIES
        and not (found.inside and any(within(found.module, home) for home in ENGINE_HOMES))
    ]
    assert not wrong


def loaded_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(shown.stdout.split())


def test_the_command_line_starts_without_what_is_slow_to_import() -> None:
    loaded = loaded_by("router.cli")
    assert "router.cli" in loaded
    assert not loaded & set(SLOW)


def test_the_detector_knows_no_engine_at_run_time_either() -> None:
    loaded = loaded_by("detect.scan")
    assert "detect.scan" in loaded
    assert not {top(name) for name in loaded} & {"backends", "router", *ENGINE_LIBRARIES}
