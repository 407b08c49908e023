"""A `llama-server` for the daemon that is llama.cpp itself, except for models in `fakes`: those
are served by a fake engine that behaves as `FakeEngine(fakes / model)` says."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.fake_engine import PROGRAM as FAKE

SOURCE = """#!{python} -S
import os, sys
argv = sys.argv[1:]
if "--version" in argv:
    sys.exit(print("version: 1 (proof)"))
if "--help" in argv:
    sys.exit(print("--cache-ram"))
given = dict(zip(argv[::2], argv[1::2]))
if "--alias" not in given:
    sys.exit("key not found in model: every architecture is known")
fake = os.path.join({fakes!r}, given["--alias"])
if os.path.isdir(fake):
    files = ["--behaviour", fake + "/behaviour.json", "--record", fake + "/record.jsonl"]
    command = ["-S", {program!r}, "--unix", given["--host"], *files]
else:
    names = {{"--host": "--socket", "--ctx-size": "--context"}}
    flags = [word for name, value in given.items() for word in (names.get(name, name), value)]
    command = ["-m", "backends.workers.llama_cpp", *flags]
os.execv(sys.executable, [sys.executable, *command])
"""


def llama_server(folder: Path, fakes: Path) -> Path:
    path = folder / "llama-server"
    source = SOURCE.format(python=sys.executable, fakes=str(fakes), program=str(FAKE))
    path.write_text(source)
    path.chmod(0o755)
    return path
