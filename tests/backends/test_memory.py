from __future__ import annotations

import os
import subprocess
import sys

from backends.memory import machine_memory, used_bytes

MEGABYTE = 1024 * 1024
HOLD = "import sys; held = b'x' * int(sys.argv[1]); print(flush=True); sys.stdin.read()"


def test_a_machine_has_more_than_is_available() -> None:
    memory = machine_memory()
    assert 0 < memory.available_bytes <= memory.total_bytes


def test_our_own_memory_is_counted() -> None:
    own = used_bytes(os.getpid())
    assert own is not None
    assert 5 * MEGABYTE < own < machine_memory().total_bytes


def test_what_descendants_hold_is_counted_too() -> None:
    held = 64 * MEGABYTE
    command = 'exec 3<&0; "$0" -c "$1" "$2" <&3 & wait'
    argv = ["sh", "-c", command, sys.executable, HOLD, str(held)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as wrapper:
        assert wrapper.stdout is not None
        assert wrapper.stdin is not None
        wrapper.stdout.readline()
        counted = used_bytes(wrapper.pid)
        assert counted is not None
        assert held < counted < 3 * held
        wrapper.stdin.close()


def test_a_process_that_is_gone_holds_nothing() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert used_bytes(process.pid) is None
