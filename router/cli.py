"""The command `router`. Every error ends here, as one sentence and an exit status."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backends.base import Backend, InstanceOptions
from detect.errors import DetectError
from detect.types import ScanReport
from router import explain, settings
from router.api import describe
from router.errors import RouterError, SettingsError
from router.registry import ModelEntry, Registry, build
from router.settings import Settings
from router.table import printable, table, wrap

log = logging.getLogger("router")

DISTRIBUTION = "local-model-router"

OK, FAILED, USAGE, NOTHING_CAN = 0, 1, 2, 3

LIST_OPTIONS = ("config", "models_dir", "engine", "llama_server", "mistralrs", "cache_dir")
DEFAULT_MODELS_DIRS = (Path("~/Models"), Path("~/models"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status.

    0 done, 1 failed, 2 used wrongly, 3 (`inspect`) nothing can run the model.
    """
    try:
        arguments = _parser().parse_args(argv)
        command: Callable[[argparse.Namespace], int] = arguments.command
        return command(arguments)
    except SettingsError as error:
        return _complain(str(error), USAGE)
    except (RouterError, DetectError) as error:
        return _complain(error.message, FAILED)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has seen enough; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:
        # Ours to mend: the log has where, when it is asked for everything.
        log.debug("failed", exc_info=error)
        what = f"{type(error).__name__}: {error}"
        return _complain(f"unexpectedly failed ({what}); please report this.", FAILED)


def version() -> str:
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="router",
        description="One OpenAI-compatible endpoint for any local model: MLX, GGUF and "
        "safetensors, each on the engine that can really run it.",
    )
    parser.add_argument("--version", action="version", version=f"router {version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    serve = commands.add_parser("serve", help="start the daemon")
    settings.add_flags(serve)
    serve.set_defaults(command=_serve)

    show = commands.add_parser("list", help="what is in the folders, and what can run it")
    settings.add_flags(show, *LIST_OPTIONS)
    show.add_argument("--json", action="store_true", help="print one JSON object")
    show.set_defaults(command=_list)

    inspect = commands.add_parser("inspect", help="what one model is, and why")
    inspect.add_argument("target", metavar="MODEL_OR_DIR", help="a folder, a file or a model's id")
    settings.add_flags(inspect, *LIST_OPTIONS, "context_length")
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    inspect.set_defaults(command=_inspect)

    doctor = commands.add_parser("doctor", help="which engines are here, and what is missing")
    settings.add_flags(doctor, "config", "llama_server", "mistralrs", "cache_dir")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.set_defaults(command=_doctor)
    return parser


# serve


def _serve(arguments: argparse.Namespace) -> int:
    from router import server

    chosen = _with_models_dir(_settings(arguments))
    _log_to_stderr(chosen.log_level)
    sock = server.bind(chosen.host, chosen.port)
    backends = server.create_backends(chosen)
    registry = _registry(chosen, backends)
    base = server.address(sock)
    print(_overview(registry), flush=True)
    print(_invitation(registry, base, chosen), flush=True)
    server.run(chosen, registry, backends, sock)
    return OK


def _invitation(registry: Registry, base: str, chosen: Settings) -> str:
    from router.api.openai import NOT_FOR_TEXT

    able = [entry for entry in registry.servable if entry.info.role not in NOT_FOR_TEXT]
    if not able:
        return f"Listening on {base}, with nothing to serve yet."
    body = {
        "model": able[0].id,
        "messages": [{"role": "user", "content": "Who are you?"}],
    }
    key = ' -H "authorization: Bearer $ROUTER_API_KEY"' if chosen.api_key else ""
    return (
        f"\nListening on {base} (OpenAI's base URL: {base}/v1). Try:\n\n"
        f"  curl {base}/v1/chat/completions{key} -H 'content-type: application/json' \\\n"
        f"    -d {_shell_quoted(_json(body))}\n"
    )


def _shell_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PrintableLines("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # uvicorn tells of its own start and end; ours says it better. Its errors still show.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)


class _PrintableLines(logging.Formatter):
    """Engines colour what they say, and paths say what their client wrote."""

    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).expandtabs(4).split("\n")
        return "\n".join(map(printable, lines))


# list


def _list(arguments: argparse.Namespace) -> int:
    from router import server

    chosen = _with_models_dir(_settings(arguments))
    registry = _registry(chosen, server.create_backends(chosen))
    if arguments.json:
        models = [describe.entry(model) for model in registry]
        skipped = [describe.skipped(item) for item in registry.skipped]
        _print_json({"models": models, "skipped": skipped})
    else:
        print(_overview(registry))
    return OK


def _overview(registry: Registry) -> str:
    if not len(registry):
        folders = "No models were found."
        return "\n".join([folders, *_skipped(registry)])
    head = ("MODEL", "FORMAT", "QUANTISATION", "SIZE", "ENGINE")
    rows = [_row(entry) for entry in registry]
    width = shutil.get_terminal_size((120, 24)).columns
    return "\n".join([table(head, rows, max(width, 100)), *_skipped(registry)])


def _row(entry: ModelEntry) -> tuple[str, ...]:
    info = entry.info
    return (
        entry.id,
        info.format.value,
        explain.quantization(info),
        explain.size(info.weights_bytes),
        entry.choice.engine or "– " + _why_not(entry),
    )


def _why_not(entry: ModelEntry) -> str:
    if (problem := entry.info.fatal_problem) is not None:
        return problem.message
    return "; ".join(f"{v.engine}: {v.reason}" for v in entry.verdicts)


def _skipped(registry: Registry) -> list[str]:
    if not registry.skipped:
        return []
    lines = [f"  {item.path}: {item.reason}" for item in registry.skipped]
    return ["", "Skipped:", *map(printable, lines)]


# inspect


def _inspect(arguments: argparse.Namespace) -> int:
    from router import server

    chosen = _settings(arguments)
    backends = server.create_backends(chosen)
    entry = _find(arguments.target, chosen, backends)
    memory = _memory(entry, chosen, backends)
    if arguments.json:
        _print_json({**describe.entry(entry), "memory_bytes": memory})
    else:
        print(_portrait(entry, memory))
    return OK if entry.servable else NOTHING_CAN


def _find(target: str, chosen: Settings, backends: Mapping[str, Backend]) -> ModelEntry:
    """The model at a path, or of an id under the models folders."""
    from detect.scan import inspect_path

    path = settings.parse_path(target)
    if path.exists():
        report = ScanReport(models=(inspect_path(path),))
        (entry,) = build(report, tuple(backends.values()), dict(chosen.engine))
        return entry
    if os.sep in target and not chosen.models_dir and target.startswith((".", os.sep, "~")):
        raise SettingsError(f"There is no file or folder {target}.")
    return _registry(_with_models_dir(chosen), backends).find(target)


def _memory(
    entry: ModelEntry, chosen: Settings, backends: Mapping[str, Backend]
) -> dict[str, int] | None:
    if entry.choice.engine is None:
        return None
    options = InstanceOptions(context_length=chosen.context_length)
    footprint = backends[entry.choice.engine].footprint(entry.info, options)
    return {
        "weights": footprint.weights_bytes,
        "kv": footprint.kv_bytes,
        "overhead": footprint.overhead_bytes,
        "total": footprint.total_bytes,
    }


def _portrait(entry: ModelEntry, memory: dict[str, int] | None) -> str:
    width = max(100, shutil.get_terminal_size((120, 24)).columns)
    facts = table(("", ""), _facts(entry, memory)).lstrip("\n ")
    verdicts = table(
        ("ENGINE", "RUNS IT", "WHY"),
        [_verdict_row(entry, i) for i in range(len(entry.verdicts))],
        width,
    )
    parts = [facts, verdicts]
    parts += [
        "\n".join(wrap(printable(f"Problem: {p.message} [{p.code}]"), width))
        for p in entry.info.problems
    ]
    if entry.info.evidence:
        rows = [(e.field, e.value, e.source) for e in entry.info.evidence]
        parts.append(table(("EVIDENCE", "VALUE", "SOURCE"), rows, width))
    parts.append(printable(_conclusion(entry)))
    return "\n\n".join(parts)


def _facts(entry: ModelEntry, memory: dict[str, int] | None) -> list[tuple[str, str]]:
    info = entry.info
    context = f"{info.context_length} tokens" if info.context_length else "not stated"
    if info.extended_context_length:
        context += f", {info.extended_context_length} extended"
    rows = [
        ("model", entry.id),
        ("path", str(info.path)),
        ("format", info.format.value),
        ("quantisation", explain.quantization(info)),
        ("architecture", info.architecture.name or "unknown"),
        ("role", info.role.value),
        ("parameters", explain.parameters(info.parameters)),
        ("weights", explain.size(info.weights_bytes)),
        ("context", context),
        ("chat template", _yes(info.chat_template) + (", with tools" if info.tools else "")),
    ]
    if memory is not None:
        rows.append(("memory", f"about {explain.size(memory['total'])} when loaded"))
    return rows


def _verdict_row(entry: ModelEntry, index: int) -> tuple[str, str, str]:
    verdict = entry.verdicts[index]
    code = f" [{verdict.code}]" if verdict.code else ""
    remedy = f" {verdict.remedy}" if verdict.remedy else ""
    answer = {"yes": "yes", "limited": "with limits", "no": "no"}[verdict.support.value]
    return verdict.engine, answer, f"{verdict.reason}{code}{remedy}".strip()


def _conclusion(entry: ModelEntry) -> str:
    if entry.choice.engine is None:
        return explain.sentence(entry.info, entry.verdicts)
    return f"It will be served by {entry.choice.engine} ({entry.choice.why})."


def _yes(value: bool) -> str:
    return "yes" if value else "no"


# doctor


def _doctor(arguments: argparse.Namespace) -> int:
    from router import server

    backends = server.create_backends(_settings(arguments))
    found = [backend.installation() for backend in backends.values()]
    if arguments.json:
        _print_json({"router": version(), "engines": [_installation(i) for i in found]})
    else:
        width = max(100, shutil.get_terminal_size((120, 24)).columns)
        head = ("ENGINE", "VERSION", "HOW", "WHERE", "WHAT IT CAN DO HERE")
        rows = [
            (
                i.engine,
                i.version or "–",
                i.how or "–",
                str(i.path or "–"),
                ", ".join(i.capabilities) if i.usable else f"{i.problem} {i.remedy}".strip(),
            )
            for i in found
        ]
        print(f"router {version()}, Python {sys.version.split()[0]}, {sys.platform}\n")
        print(table(head, rows, width))
    return OK if any(i.usable for i in found) else FAILED


def _installation(found: Any) -> dict[str, Any]:
    return {
        "engine": found.engine,
        "usable": found.usable,
        "version": found.version,
        "how": found.how,
        "path": str(found.path) if found.path else None,
        "capabilities": list(found.capabilities),
        "problem": found.problem,
        "remedy": found.remedy,
    }


# Shared


def _settings(arguments: argparse.Namespace) -> Settings:
    return settings.load(vars(arguments), os.environ)


def _with_models_dir(chosen: Settings) -> Settings:
    """The folders given, or the usual one if it exists."""
    import dataclasses

    if chosen.models_dir:
        return chosen
    for folder in DEFAULT_MODELS_DIRS:
        if folder.expanduser().is_dir():
            return dataclasses.replace(chosen, models_dir=(folder.expanduser(),))
    raise SettingsError("No folder with models was given: use --models-dir DIR.")


def _registry(chosen: Settings, backends: Mapping[str, Backend]) -> Registry:
    from detect.scan import scan

    report = scan(chosen.models_dir, progress=_Progress("Scanning"))
    return _judge(report, chosen, backends)


def _judge(report: ScanReport, chosen: Settings, backends: Mapping[str, Backend]) -> Registry:
    registry = build(report, tuple(backends.values()), dict(chosen.engine))
    for name, engine in chosen.engine:
        if not any(name in (entry.id, *entry.aliases) for entry in registry):
            raise SettingsError(f"engine {name}={engine} names a model that was not found.")
    return registry


class _Progress:
    """A line on stderr about work that takes more than a second, rewritten in place."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = time.monotonic()

    def __call__(self, count: int) -> None:
        now = time.monotonic()
        if now - self._shown >= 1.0:
            self._shown = now
            print(f"{self._what}: {count} so far …", file=sys.stderr, flush=True)


def _print_json(value: Any) -> None:
    print(_json(value, indent=2))


def _json(value: Any, indent: int | None = None) -> str:
    """Readable, and with what no terminal should get, or can be sent, escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def _complain(sentence: str, status: int) -> int:
    print(f"router: {printable(sentence)}", file=sys.stderr)
    return status
