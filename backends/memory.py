"""What the machine has, and what a process really uses. Bytes everywhere."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

APPLE: bool = sys.platform == "darwin"


@dataclass(frozen=True, slots=True)
class MachineMemory:
    """Of the machine, or of the container that it is to us.

    `gpu_bytes` is what the GPU of Apple silicon may hold of it, where there is one.
    """

    total_bytes: int
    available_bytes: int
    gpu_bytes: int | None = None

    @property
    def usable_bytes(self) -> int:
        return min(self.total_bytes, self.gpu_bytes or self.total_bytes)


def machine_memory() -> MachineMemory:
    memory = psutil.virtual_memory()
    total_bytes, available_bytes = memory.total, memory.available
    if (limit_bytes := _first_number(CGROUP_LIMITS)) is not None and limit_bytes < total_bytes:
        total_bytes = limit_bytes
        left_bytes = limit_bytes - (_first_number(CGROUP_USED) or 0) + _reclaimable_bytes()
        available_bytes = max(0, min(available_bytes, left_bytes))
    return MachineMemory(total_bytes, available_bytes, gpu_limit_bytes(total_bytes))


def used_bytes(pid: int) -> int | None:
    """Memory of a process and its descendants; None when it is gone. It walks through all
    processes, which takes milliseconds.

    On Linux pages that several processes share are divided between them (PSS); macOS counts what
    it holds a process to account for (physical footprint); elsewhere pages are counted in each
    process that has them.
    """
    try:
        root = psutil.Process(pid)
        return sum(_used(process) for process in (root, *root.children(recursive=True)))
    except psutil.Error:
        return None


def _used(process: psutil.Process) -> int:
    try:
        exact = _exact(process.pid)
        return int(process.memory_info().rss) if exact is None else exact
    except psutil.Error:
        return 0


# Linux

CGROUP = Path("/sys/fs/cgroup")
CGROUP_LIMITS = (CGROUP / "memory.max", CGROUP / "memory" / "memory.limit_in_bytes")
CGROUP_USED = (CGROUP / "memory.current", CGROUP / "memory" / "memory.usage_in_bytes")
CGROUP_STATISTICS = (CGROUP / "memory.stat", CGROUP / "memory" / "memory.stat")


def _first_number(files: tuple[Path, ...]) -> int | None:
    """Of the first file that has one; `max` is none."""
    for file in files:
        try:
            return int(file.read_text())
        except (OSError, ValueError):
            continue
    return None


def _reclaimable_bytes() -> int:
    """File pages that a container has to its account and that are given up on demand."""
    for file in CGROUP_STATISTICS:
        try:
            pairs = (line.split() for line in file.read_text().splitlines())
            return next(int(value) for name, value in pairs if name == "inactive_file")
        except (OSError, ValueError, StopIteration):
            continue
    return 0


def _proportional_bytes(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    except (OSError, ValueError, StopIteration):
        return None


# macOS

RUSAGE_INFO_V0 = 0
FOOTPRINT_WORD = 9
"""`ri_phys_footprint` in `struct rusage_info_v0` of <sys/resource.h>: a UUID of two words and
seven counters come before it."""

RUSAGE_WORDS = 12


def _footprint_bytes(pid: int) -> int | None:
    words = (ctypes.c_uint64 * RUSAGE_WORDS)()
    failed = ctypes.CDLL(None).proc_pid_rusage(pid, RUSAGE_INFO_V0, ctypes.byref(words))
    return None if failed else int(words[FOOTPRINT_WORD])


def gpu_limit_bytes(total_bytes: int) -> int | None:
    """What the GPU may wire down: set by the user (`sysctl iogpu.wired_limit_mb`), else two thirds
    of the memory up to 36 GiB and three quarters of more."""
    if not (APPLE and platform.machine() == "arm64"):
        return None
    if set_mib := _sysctl("iogpu.wired_limit_mb"):
        return set_mib * 2**20
    return total_bytes * 2 // 3 if total_bytes <= 36 * 2**30 else total_bytes * 3 // 4


def _sysctl(name: str) -> int | None:
    value, size = ctypes.c_int64(0), ctypes.c_size_t(8)
    call = ctypes.CDLL(None).sysctlbyname
    failed = call(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0)
    return None if failed else int(value.value)


_exact = _footprint_bytes if APPLE else _proportional_bytes


M_ARENA_MAX = -8
"""Of `mallopt(3)`, in glibc's <malloc.h>."""


def keep_one_arena() -> None:
    """Let all threads of this process allocate from one heap, which `trim` can return to its last
    page; to be called before there is a second thread.

    glibc gives threads heaps of their own, and trims all of them except for their ends: up to
    64 MiB of each stayed with us, of weights that were freed long ago (glibc 2.36, malloc.c,
    `mtrim`).
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def trim() -> None:
    """Return freed memory to the system. glibc keeps what lies between blocks in use: without this,
    most of the weights of a model that was unloaded. Elsewhere nothing is to be done."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
