"""The shim between the daemon and one engine: run as a program, it dies with us and takes the
engine, and everything the engine started, along.

    python -I -S guard.py GRACE_SECONDS ARGV...

The daemon starts it in a session of its own and keeps the write end of its standard input open:
end of file there means the daemon is gone, however it went. So does SIGTERM. The guard then
terminates the engine's process group, waits GRACE_SECONDS, and kills what is left. The byte `t`
means: terminate, and leave it to the daemon how long to wait; `k` means: kill at once.

- The engine shares the guard's process group, which the guard leads: the daemon can kill them
  together even when the guard is dead.
- On Linux the engine is killed by the kernel when the guard dies, and orphans of the engine
  become the guard's children, wherever they went (`PR_SET_CHILD_SUBREAPER`). macOS has neither:
  there the process group is all we have.
- A wrapper that starts the real server and exits well is followed: the guard stays until no
  descendant is left. An engine that crashes takes its descendants with it.

It exits with the engine's status, or 128 + n where signal n ended the engine. It imports little,
because every model load waits for it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

LINUX = sys.platform == "linux"
POLL_SECONDS = 0.05
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
CANNOT_RUN = 126
CHANGED_SIGNALS = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ
)  # fmt: skip
"""By us, or by Python when it starts; an engine gets them as they were."""


def main(argv: list[str]) -> int:
    grace_seconds, command = float(argv[0]), argv[1:]
    # A byte per signal: SIGCHLD and SIGTERM wake the one place that waits.
    waker, wakee = os.pipe()
    os.set_blocking(wakee, False)
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(wakee, warn_on_full_buffer=False)
    ending = Ending()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, ending.request)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    engine = spawn(command)
    family = Family(engine)
    while family.alive():
        if ending.requested or family.status:
            return stop(family, grace_seconds, ending)
        readable, _, _ = select.select([0, waker], [], [])
        if waker in readable:
            os.read(waker, 4096)
        if 0 in readable:
            ending.listen()
    return family.status or 0


class Ending:
    """Whether we were asked to end. Group signals of our own come back here, harmlessly."""

    def __init__(self) -> None:
        self.requested = False
        self.patient = False
        self.at_once = False
        self.heard_all = False

    def request(self, *_: object) -> None:
        self.requested = True

    def listen(self) -> None:
        """Read what the daemon says; its silence for good is the end as well."""
        said = os.read(0, 4096)
        self.heard_all = not said
        self.patient = not self.heard_all and (self.patient or b"t" in said)
        self.at_once = self.at_once or b"k" in said
        self.requested = True

    def wait(self, seconds: float) -> None:
        readable, _, _ = select.select([] if self.heard_all else [0], [], [], seconds)
        if readable:
            self.listen()


class Family:
    """The engine and all that descends from it; reaps as it looks."""

    def __init__(self, engine: int) -> None:
        self.engine = engine
        self.status: int | None = None

    def alive(self) -> bool:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.engine:
                code = os.waitstatus_to_exitcode(status)
                self.status = code if code >= 0 else 128 - code

    def terminate(self) -> None:
        """Ask everyone to end: the group, and descendants that left it."""
        for pid in descendants(os.getpid()):
            if _outside(pid):
                _signal(pid, signal.SIGTERM)
        os.killpg(0, signal.SIGTERM)

    def kill(self) -> None:
        """End everyone. Where descendants cannot be listed, the group's end is ours, too."""
        while self.alive() and (pids := descendants(os.getpid())):
            for pid in pids:
                _signal(pid, signal.SIGKILL)
            time.sleep(POLL_SECONDS / 5)
        if self.alive():
            os.killpg(0, signal.SIGKILL)


def spawn(command: list[str]) -> int:
    guard = os.getpid()
    # A signal between the fork and the engine's own handlers must wait, or our handler eats it.
    signal.pthread_sigmask(signal.SIG_BLOCK, CHANGED_SIGNALS)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CHANGED_SIGNALS)
        return pid
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(127)
        signal.set_wakeup_fd(-1)
        for number in CHANGED_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CHANGED_SIGNALS)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, os.fsencode(f"cannot run {command[0]}: {error.strerror}\n"))
    finally:
        os._exit(CANNOT_RUN)


def stop(family: Family, grace_seconds: float, ending: Ending) -> int:
    deadline = time.monotonic() + grace_seconds
    family.terminate()
    while family.alive():
        if ending.patient:
            deadline = time.monotonic() + grace_seconds
        if ending.at_once or time.monotonic() >= deadline:
            family.kill()
            break
        ending.wait(POLL_SECONDS / 5)
    return 128 + signal.SIGTERM if family.status is None else family.status


def descendants(ancestor: int) -> list[int]:
    """All processes below `ancestor`. Empty where there is no /proc (macOS)."""
    parents: dict[int, int] = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    for name in names:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The command's name, in parentheses, may contain anything.
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
            except (OSError, ValueError):
                continue
            if state != b"Z":
                parents[int(name)] = int(parent)
    return [pid for pid in parents if _descends(pid, ancestor, parents)]


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    for _ in parents:
        pid = parents.get(pid, 0)
        if pid in (0, 1, ancestor):
            break
    return pid == ancestor


def _outside(pid: int) -> bool:
    try:
        return os.getpgid(pid) != os.getpgrp()
    except OSError:
        return False


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        pass


def prctl(option: int, value: int) -> None:
    """Linux only; elsewhere the daemon's own kill of the group has to do."""
    if not LINUX:
        return
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
