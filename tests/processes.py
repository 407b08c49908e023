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
    """A zombie is dead: it only waits for whoever adopted it."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def none_alive(pids: Iterable[int]) -> bool:
    return not any(alive(pid) for pid in pids)


def open_descriptors() -> int:
    return psutil.Process(os.getpid()).num_fds()
