"""What tests ask the operating system about processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

import psutil
import pytest

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="macOS cannot tie a process's life to another's"
)


def alive(pid: int) -> bool:
    """A zombie is dead: it only waits for whoever adopted it. One with threads that are still
    ending is not: they hold its sockets open."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    except psutil.NoSuchProcess:
        return False


def none_alive(pids: Iterable[int]) -> bool:
    return not any(alive(pid) for pid in pids)


def open_descriptors() -> int:
    return psutil.Process(os.getpid()).num_fds()
