from __future__ import annotations

import os
import subprocess
import sys
import textwrap

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


def test_what_another_thread_freed_goes_back_to_the_last_page() -> None:
    """Blocks of 1 MiB at the end of a heap, below what is mapped by itself once one was freed."""
    program = textwrap.dedent("""
        import ctypes, os, threading
        from backends.memory import keep_one_arena, trim, used_bytes

        keep_one_arena()
        libc = ctypes.CDLL(None)
        libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        libc.free.argtypes = [ctypes.c_void_p]

        def fill_and_free():
            libc.free(libc.malloc(30 * 2**20))
            blocks = [libc.malloc(2**20) for _ in range(50)]
            for block in blocks:
                ctypes.memset(block, 1, 2**20)
            for block in blocks:
                libc.free(block)

        before = used_bytes(os.getpid())
        thread = threading.Thread(target=fill_and_free)
        thread.start()
        thread.join()
        trim()
        print((used_bytes(os.getpid()) - before) // 2**20)
    """)
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert int(answer.stdout) < 10
