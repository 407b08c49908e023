"""mistral.rs as an HTTP server of ours, around the `mistralrs` wheel.

    python -m backends.workers.mistral_rs --socket SOCKET --alias ID
        (--folder DIR [--multimodal] [--uqff FILE…] | --gguf FILE… [--mmproj FILE])

For those who have no `mistralrs` binary. It listens on a Unix socket once the model is loaded;
SIGTERM ends it at once, because the engine's threads cannot be asked to.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from backends.mistral_rs.engine import ENGINE, PASSTHROUGH, SUPPORTED, Engine
from backends.mistral_rs.text import (
    stop_ids_of_folder,
    stop_ids_of_gguf,
    template_of_folder,
    template_of_gguf,
)
from backends.mistral_rs.view import link_files
from backends.wire.app import EngineApp, completion_handlers
from backends.wire.defaults import SamplingDefaults, defaults_of_folder
from backends.workers.serving import server

DEAD = 70
"""Exit status when the engine inside does not generate any more."""

LAST_ANSWER_SECONDS = 0.3


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    os.environ.setdefault("RUST_LOG", "warn")
    os.environ["NO_COLOR"] = "1"
    arguments = _arguments()
    try:
        engine = _load(arguments)
    except BaseException as error:
        # A panic of the engine is none of Python's ordinary exceptions, and its threads may
        # still run: nothing but the end of the process ends them.
        sys.stderr.write(f"{ENGINE} could not load the model: {error}\n")
        sys.stderr.flush()
        os._exit(1)
    handlers = completion_handlers(
        engine.generate, engine.count, engine=ENGINE, model=arguments.alias, supported=SUPPORTED
    )
    server(EngineApp(handlers, engine=ENGINE), arguments.socket).run()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="backends.workers.mistral_rs")
    parser.add_argument("--socket", required=True, type=Path)
    parser.add_argument("--alias", required=True)
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("--folder", type=Path)
    weights.add_argument("--gguf", type=Path, nargs="+")
    parser.add_argument("--multimodal", action="store_true")
    parser.add_argument("--uqff", nargs="+")
    parser.add_argument("--mmproj", type=Path)
    parser.add_argument("--context", type=int)
    parser.add_argument("--parallel", type=int, default=4)
    return parser.parse_args()


def _load(arguments: argparse.Namespace) -> Engine:
    with tempfile.TemporaryDirectory(dir=arguments.socket.parent, prefix="view-") as view:
        runner = _runner(arguments, Path(view))
    template = (
        template_of_folder(arguments.folder)
        if arguments.folder
        else template_of_gguf(
            arguments.gguf[0], lambda token: str(runner.detokenize_text([token], False))
        )
    )
    return Engine(
        runner,
        model=arguments.alias,
        template=template,
        defaults=defaults_of_folder(arguments.folder) if arguments.folder else SamplingDefaults(),
        stop_ids=(
            stop_ids_of_folder(arguments.folder)
            if arguments.folder
            else stop_ids_of_gguf(arguments.gguf[0])
        ),
        context_length=arguments.context,
        parallel=arguments.parallel,
        on_death=_die,
    )


def _runner(arguments: argparse.Namespace, view: Path) -> Any:
    """The loaded model. Nothing in `view` is needed afterwards."""
    import mistralrs

    template = view / "passthrough.jinja"
    template.write_text(PASSTHROUGH)
    return mistralrs.Runner(
        which=_which(mistralrs, arguments, view),
        jinja_explicit=str(template),
        max_seqs=arguments.parallel,
        token_source="none",
    )


def _which(mistralrs: Any, arguments: argparse.Namespace, view: Path) -> Any:
    """Never with an architecture: told a wrong one, the engine believes it."""
    if arguments.folder is None:
        return _gguf(mistralrs, arguments, view)
    loader = mistralrs.Which.MultimodalPlain if arguments.multimodal else mistralrs.Which.Plain
    return loader(model_id=str(arguments.folder), from_uqff=arguments.uqff)


def _gguf(mistralrs: Any, arguments: argparse.Namespace, view: Path) -> Any:
    files = arguments.gguf + ([arguments.mmproj] if arguments.mmproj else [])
    links = link_files(files, "model", view)
    names = [link.name for link in links]
    return mistralrs.Which.GGUF(
        quantized_model_id=str(links[0].parent),
        quantized_filename=names[: len(arguments.gguf)],
        mmproj_filename=names[-1] if arguments.mmproj else None,
    )


def _die() -> None:
    """The router starts another process on demand; those who wait get their error first."""
    time.sleep(LAST_ANSWER_SECONDS)
    os._exit(DEAD)


if __name__ == "__main__":
    main()
