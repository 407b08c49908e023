"""How a worker serves its app: on a Unix socket, until SIGTERM ends the process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from backends.wire.app import EngineApp


def server(app: EngineApp, socket: Path) -> uvicorn.Server:
    return _Server(
        uvicorn.Config(
            app,
            uds=str(socket),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
        )
    )


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM keeps its default: it ends the process, whatever runs."""
        yield
