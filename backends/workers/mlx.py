"""The engine of `backends.mlx` as an HTTP server of its own.

    python -m backends.workers.mlx --folder DIR --socket SOCKET --alias ID --options JSON

For those who want it outside of the daemon: what a native crash or a deadlock takes along is then
one model. It listens on a Unix socket once the model is loaded, and ends on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

from backends import memory
from backends.mlx.embedder import Embedder
from backends.mlx.engine import Engine
from backends.mlx.options import EngineOptions
from backends.mlx.thread import EngineThread
from backends.wire.app import EngineApp, Health
from backends.workers.serving import server


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    arguments = _arguments()
    memory.keep_one_arena()
    asyncio.run(_serve(arguments))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="backends.workers.mlx")
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--socket", required=True, type=Path)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--embedding", action="store_true")
    parser.add_argument("--options", type=EngineOptions.from_json, default=EngineOptions())
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    kind = Embedder if arguments.embedding else Engine
    engine = kind(arguments.alias, arguments.folder, arguments.options, thread=EngineThread())
    try:
        await engine.load()
    except Exception as error:
        sys.stderr.write(f"mlx could not load the model: {type(error).__name__}: {error}\n")
        sys.stderr.flush()
        # Its thread may be in the middle of something that does not end by itself.
        os._exit(1)
    app = EngineApp(
        engine.handlers(),
        engine="mlx",
        health=lambda: Health(prefix_cache=engine.prefix_cache),
    )
    await server(app, arguments.socket).serve()


if __name__ == "__main__":
    main()
