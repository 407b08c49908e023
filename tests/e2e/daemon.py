"""The real daemon as a process, started and asked as a user would."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

SLACK = 5.0
"""Times promised for a quiet machine are multiplied by this: tests run on two busy cores."""

START_SECONDS = 20.0 * SLACK
LISTENING = re.compile(r"Listening on (http://[^\s,]+)")


class Daemon:
    """`router serve` on a free port. `output` is everything it has printed so far."""

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "router", "serve", "--port", "0", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
        )
        self.lines: list[str] = []
        self.url = ""
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            self.lines.append(line)
            if match := LISTENING.search(line):
                self.url = match[1]
                self._listening.set()
        self._listening.set()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_listening(self) -> None:
        assert self._listening.wait(START_SECONDS), self.output
        assert self.url, self.output
        # What follows the address belongs to the start, too.
        httpx.get(f"{self.url}/livez", timeout=START_SECONDS, trust_env=False)

    def client(self, **arguments: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60 * SLACK, trust_env=False, **arguments)

    def chat(self, model: str, content: str, **fields: Any) -> httpx.Response:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            **fields,
        }
        with self.client() as client:
            return client.post("/v1/chat/completions", json=body)

    def status(self) -> dict[str, Any]:
        with self.client() as client:
            value: dict[str, Any] = client.get("/router/status").json()
            return value

    def family(self) -> list[psutil.Process]:
        """Every process that the daemon has started, directly or not."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float) -> int:
        status = self.process.wait(seconds * SLACK)
        self._reader.join(5)
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15 * SLACK)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def serving(*folders: Path, flags: tuple[str, ...] = (), **options: Any) -> Iterator[Daemon]:
    """A daemon that serves `folders` and has nothing remembered from before."""
    with tempfile.TemporaryDirectory() as cache:
        arguments = [word for folder in folders for word in ("--models-dir", str(folder))]
        daemon = Daemon(*arguments, "--cache-dir", cache, *flags, **options)
        try:
            daemon.wait_listening()
            yield daemon
        finally:
            daemon.close()


def gone(processes: list[psutil.Process], within_seconds: float) -> bool:
    """Whether all have ended, or are dead and waiting for whoever adopted them."""
    deadline = time.monotonic() + within_seconds * SLACK
    while time.monotonic() < deadline:
        if not any(_alive(process) for process in processes):
            return True
        time.sleep(0.02)
    return False


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
