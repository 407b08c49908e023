"""What is left of a daemon's processes, found by a mark that each of them inherits."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

import psutil

MARK = "LLAMA_PROOF"
"""By its first letters it is among the variables that engines may see."""


@dataclass(frozen=True, slots=True)
class Mark:
    word: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def environment(self) -> dict[str, str]:
        return {MARK: self.word}

    def bearers(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self._borne_by(process)]

    def strangers(self, daemon: psutil.Process) -> list[psutil.Process]:
        """Those that neither are the daemon nor descend from it."""
        known = {daemon.pid, *(process.pid for process in daemon.children(recursive=True))}
        return [process for process in self.bearers() if process.pid not in known]

    def _borne_by(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == self.word
        except psutil.Error:
            return False


def zombies(daemon: psutil.Process) -> list[psutil.Process]:
    return [process for process in daemon.children(recursive=True) if _dead(process)]


def _dead(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
