"""The command `router`. Every error ends here, as one sentence and an exit status."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backends.base import Backend, Installation, InstanceOptions
from backends.memory import keep_one_arena, machine_memory
from detect.cache import FILE_NAME, Cache
from detect.errors import DetectError
from detect.types import ScanReport
from router import experience, log, settings
from router.api import describe
from router.entry import ModelEntry
from router.errors import RouterError, SettingsError
from router.experience import Experience
from router.option import parse_path
from router.overview import overview
from router.portrait import portrait
from router.provenance import fine, provenance
from router.registry import Registry, build
from router.reload import absent_models, unknown_models
from router.running import running
from router.settings import Settings
from router.table import printable, table
from router.version import version
from router.ways import Ways

OK, FAILED, USAGE, NOTHING_CAN = 0, 1, 2, 3

LIST_OPTIONS = (
    "config",
    "models_dir",
    "engine",
    "prefer",
    "llama_server",
    "mistralrs",
    "cache_dir",
)
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
        logging.getLogger("router").debug("failed", exc_info=error)
        what = f"{type(error).__name__}: {error}"
        return _complain(f"unexpectedly failed ({what}); please report this.", FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="router",
        description="One OpenAI-compatible endpoint for any local model: MLX, GGUF and "
        "safetensors, each on the engine that can really run it.",
    )
    parser.add_argument("--version", action="version", version=f"router {version()}")
    parser.set_defaults(command=lambda arguments: _help(parser))
    commands = parser.add_subparsers(metavar="COMMAND")

    serve = commands.add_parser("serve", help="start the daemon")
    settings.add_flags(serve)
    _add_folders(serve)
    serve.set_defaults(command=_serve)

    show = commands.add_parser("list", help="what is in the folders, and what can run it")
    settings.add_flags(show, *LIST_OPTIONS)
    _add_folders(show)
    show.add_argument("--json", action="store_true", help="print one JSON object")
    show.set_defaults(command=_list)

    inspect = commands.add_parser("inspect", help="what one model is, and why")
    inspect.add_argument("target", metavar="MODEL_OR_DIR", help="a folder, a file or a model's id")
    settings.add_flags(inspect, *LIST_OPTIONS, "context_length", "memory")
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    inspect.set_defaults(command=_inspect)

    ps = commands.add_parser("ps", help="what a running daemon has loaded, and what waits")
    settings.add_flags(ps, "config", "host", "port", "api_key")
    ps.add_argument("--json", action="store_true", help="print one JSON object")
    ps.set_defaults(command=_ps)

    doctor = commands.add_parser("doctor", help="which engines are here, and what is missing")
    settings.add_flags(doctor, "config", "llama_server", "mistralrs", "cache_dir")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.set_defaults(command=_doctor)

    _add_config(
        commands.add_parser("config", help="whether the settings are fine, and what is set")
    )
    return parser


def _add_config(config: argparse.ArgumentParser) -> None:
    """Both take what `serve` takes, and read it as `serve` does."""
    config.set_defaults(command=lambda arguments: _help(config))
    parts = config.add_subparsers(metavar="WHAT")
    check = parts.add_parser("check", help="whether `serve` could honour the settings")
    check.set_defaults(command=_config_check)
    show = parts.add_parser("show", help="every option, its value and where that comes from")
    show.set_defaults(command=_config_show)
    for parser in (check, show):
        settings.add_flags(parser)
        _add_folders(parser)


def _help(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return USAGE


def _add_folders(parser: argparse.ArgumentParser) -> None:
    """Folders as plain arguments are the same as --models-dir."""
    parser.add_argument("folders", metavar="DIR", nargs="*", help="the same as --models-dir")


# serve


def _serve(arguments: argparse.Namespace) -> int:
    from router import server
    from router.watch import Sources

    keep_one_arena()
    server.await_hangups()
    chosen = _chosen(arguments)
    log.to_stderr(chosen.log_level)
    if chosen.log_file is not None:
        log.to_file(chosen.log_file)
    _check_cache(chosen.cache_dir)
    sock = server.bind(chosen.host, chosen.port)
    backends = server.create_backends(chosen)
    kept = _cache(chosen)
    registry = _registry(chosen, backends, kept)
    for sentence in absent_models(chosen, registry):
        logging.getLogger("router").warning("%s", sentence)
    base = server.address(sock)
    print(overview(registry, chosen.models_dir, _width()), flush=True)
    print(_invitation(registry, base, chosen), flush=True)
    sources = Sources(lambda: _chosen(arguments), lambda now: _rescan(now, backends, kept))
    server.run(chosen, registry, backends, sock, sources)
    _end_at_once()
    return OK


def _end_at_once() -> None:
    """Nothing is left to clean up, and a thread of mlx that still loads would abort the
    interpreter's own way out."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(OK)


def _invitation(registry: Registry, base: str, chosen: Settings) -> str:
    from router.api.task import TEXT_ROLES

    able = [entry for entry in registry.servable if entry.info.role in TEXT_ROLES]
    if not able:
        return f"\nListening on {base}, with nothing to serve yet."
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


# list


def _list(arguments: argparse.Namespace) -> int:
    from router import server

    chosen = _chosen(arguments)
    registry = _registry(chosen, server.create_backends(chosen), _cache(chosen))
    if arguments.json:
        models = [describe.entry(model) for model in registry]
        skipped = [describe.skipped(item) for item in registry.skipped]
        _print_json({"models": models, "skipped": skipped})
    else:
        print(overview(registry, chosen.models_dir, _width()))
    return OK


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
        print(portrait(entry, memory, _width()))
    return OK if entry.servable else NOTHING_CAN


def _find(target: str, chosen: Settings, backends: Mapping[str, Backend]) -> ModelEntry:
    """The model at a path, or of an id under the models folders."""
    from detect.scan import inspect_path

    path = parse_path(target)
    if path.exists():
        report = ScanReport(models=(inspect_path(path),))
        (entry,) = build(
            report, tuple(backends.values()), chosen.wishes, chosen.models, _experience(chosen)
        )
        return entry
    if os.sep in target and not chosen.models_dir and target.startswith((".", os.sep, "~")):
        raise SettingsError(f"There is no file or folder {target}.")
    return _registry(_with_models_dir(chosen), backends, _cache(chosen)).find(target)


def _memory(
    entry: ModelEntry, chosen: Settings, backends: Mapping[str, Backend]
) -> dict[str, int] | None:
    if entry.choice.engine is None:
        return None
    options = InstanceOptions(context_length=chosen.context_length, parallel=chosen.parallel)
    ways = Ways(backends, options, _experience(chosen))
    footprint, needed = ways.footprint(entry), ways.needed_bytes(entry)
    return {
        "needed": needed,
        "budget": chosen.memory.resolve(machine_memory().usable_bytes),
        "weights": footprint.weights_bytes,
        "kv": footprint.kv_bytes,
        "overhead": footprint.overhead_bytes,
        "total": footprint.total_bytes,
    }


# ps


def _ps(arguments: argparse.Namespace) -> int:
    chosen = _settings(arguments)
    status = _ask_daemon(chosen, "/router/status")
    if arguments.json:
        _print_json(status)
    else:
        print(running(status))
    return OK


def _ask_daemon(chosen: Settings, path: str) -> dict[str, Any]:
    """Raises SettingsError: there is no daemon at that address, or it does not know us."""
    import httpx

    host = f"[{chosen.host}]" if ":" in chosen.host else chosen.host
    url = f"http://{host}:{chosen.port}"
    headers = {"authorization": f"Bearer {chosen.api_key}"} if chosen.api_key else {}
    try:
        answer = httpx.get(url + path, headers=headers, timeout=10, trust_env=False)
        told: dict[str, Any] = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        raise SettingsError(
            f"No router answers at {url}; start one with `router serve`, or say where it is with "
            "--host and --port."
        ) from None
    if answer.status_code != httpx.codes.OK:
        raise SettingsError(f"The router at {url} says: {told['error']['message']}")
    return told


# doctor


def _doctor(arguments: argparse.Namespace) -> int:
    from router import server

    backends = server.create_backends(_settings(arguments))
    found = [backend.installation() for backend in backends.values()]
    if arguments.json:
        _print_json({"router": version(), "engines": [_installation(i) for i in found]})
    else:
        head = ("ENGINE", "VERSION", "HOW", "WHAT IT CAN DO HERE")
        print(f"router {version()}, Python {sys.version.split()[0]}, {sys.platform}\n")
        print(table(head, [_doctor_row(i) for i in found], _width()))
        places = [(i.engine, str(i.path)) for i in found if i.path]
        print("\n" + table(("ENGINE", "WHERE"), places))
    broken = any(i.how == "binary" and not i.usable for i in found)
    return OK if any(i.usable for i in found) and not broken else FAILED


def _doctor_row(found: Installation) -> tuple[str, ...]:
    able = ", ".join(found.capabilities)
    what = able if found.usable else f"{found.problem} {found.remedy}".strip()
    return found.engine, found.version or "–", found.how or "–", what


def _installation(found: Installation) -> dict[str, Any]:
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


# config


def _config_check(arguments: argparse.Namespace) -> int:
    from router import server

    chosen = _chosen(arguments)
    backends = server.create_backends(chosen)
    _refuse_broken_binaries(backends)
    absent = []
    if chosen.models or chosen.engine:
        absent = absent_models(chosen, _registry(chosen, backends, _cache(chosen)))
    print("\n".join([fine(chosen), *map(printable, absent)]))
    return OK


def _config_show(arguments: argparse.Namespace) -> int:
    print(provenance(_settings(arguments)))
    return OK


# Shared


def _chosen(arguments: argparse.Namespace) -> Settings:
    return _with_models_dir(_settings(arguments))


def _settings(arguments: argparse.Namespace) -> Settings:
    flags = dict(vars(arguments))
    if folders := flags.get("folders"):
        flags["models_dir"] = [*(flags["models_dir"] or ()), *folders]
    return settings.load(flags, os.environ)


def _width() -> int:
    return max(60, shutil.get_terminal_size((100, 24)).columns)


def _with_models_dir(chosen: Settings) -> Settings:
    """The folders given, or the usual one if it exists."""
    import dataclasses

    if chosen.models_dir:
        return chosen
    for folder in DEFAULT_MODELS_DIRS:
        if folder.expanduser().is_dir():
            return dataclasses.replace(chosen, models_dir=(folder.expanduser(),))
    raise SettingsError(
        "No folder with models was given, and there is no ~/Models: use --models-dir DIR."
    )


def _check_cache(folder: Path) -> None:
    """Without it everything works, and the next start takes longer: worth a line, not the end."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        logging.getLogger("router").warning(
            "--cache-dir %s cannot be written: %s. Nothing is remembered for the next start.",
            folder,
            error.strerror,
        )


def _cache(chosen: Settings) -> Cache:
    return Cache(chosen.cache_dir / FILE_NAME)


def _experience(chosen: Settings) -> Experience:
    return Experience(chosen.cache_dir / experience.FILE_NAME)


def _rescan(chosen: Settings, backends: Mapping[str, Backend], kept: Cache) -> Registry:
    from detect.scan import scan

    report = scan(chosen.models_dir, cache=kept)
    return build(
        report, tuple(backends.values()), chosen.wishes, chosen.models, _experience(chosen)
    )


def _registry(chosen: Settings, backends: Mapping[str, Backend], kept: Cache) -> Registry:
    from detect.scan import scan

    _refuse_broken_binaries(backends)
    names = ", ".join(str(folder) for folder in chosen.models_dir)
    with _progress(f"Looking through {names}") as count:
        report = scan(chosen.models_dir, progress=count, cache=kept)
        return _judge(report, chosen, backends)


def _refuse_broken_binaries(backends: Mapping[str, Backend]) -> None:
    """The user's own binary is a wish: another engine in its place would be a surprise."""
    for backend in backends.values():
        found = backend.installation()
        if found.how == "binary" and not found.usable:
            raise SettingsError(f"{found.engine}: {found.problem} {found.remedy}")


def _judge(report: ScanReport, chosen: Settings, backends: Mapping[str, Backend]) -> Registry:
    registry = build(
        report, tuple(backends.values()), chosen.wishes, chosen.models, _experience(chosen)
    )
    for sentence in unknown_models(chosen, registry):
        raise SettingsError(sentence)
    return registry


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int], None]]:
    """A line on stderr for every second that the work takes, with the latest count."""
    done = threading.Event()
    latest = 0

    def count(number: int) -> None:
        nonlocal latest
        latest = number

    def tell() -> None:
        while not done.wait(1.0):
            print(f"{printable(what)}: {latest} so far …", file=sys.stderr, flush=True)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield count
    finally:
        done.set()
        teller.join()


def _print_json(value: Any) -> None:
    print(_json(value, indent=2))


def _json(value: Any, indent: int | None = None) -> str:
    """Readable, and with what no terminal should get, or can be sent, escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def _complain(sentence: str, status: int) -> int:
    print(f"router: {printable(sentence)}", file=sys.stderr)
    log.keep(sentence)
    return status
