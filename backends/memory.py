"""What the machine has, and what a process really uses. Bytes everywhere."""

from __future__ import annotations

from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class MachineMemory:
    total_bytes: int
    available_bytes: int


def machine_memory() -> MachineMemory:
    memory = psutil.virtual_memory()
    return MachineMemory(memory.total, memory.available)


def resident_bytes(pid: int) -> int | None:
    """Resident memory of a process and its descendants; None when it is gone.

    Shared pages (a mapped GGUF, the interpreter) are counted in each process that has them: an
    overestimate, which is the safe side.
    """
    try:
        root = psutil.Process(pid)
        return sum(_resident(process) for process in (root, *root.children(recursive=True)))
    except psutil.Error:
        return None


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
