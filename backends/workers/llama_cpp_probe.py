"""Ask the `xllamacpp` wheel which GGUF architectures it knows.

    python -m backends.workers.llama_cpp_probe llama qwen3 …

It refuses an unknown architecture before it looks for anything else in a file, so that a stub
does for a question. Prints one JSON array `[name, answer]` per line, as soon as it is known.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from backends.stub import gguf_stub, said_of


def main(names: list[str]) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="router-probe-") as folder,
        open(Path(folder, "log"), "w+b", buffering=0) as log,
    ):
        # The engine writes to the descriptor, past Python's streams.
        os.dup2(log.fileno(), 2)
        import xllamacpp

        for name in names:
            words = _words(xllamacpp, name, Path(folder), log)
            for pair in said_of(name, words).items():
                sys.stdout.write(json.dumps(pair) + "\n")
                sys.stdout.flush()


def _words(xllamacpp: Any, name: str, folder: Path, log: Any) -> str:
    stub, socket = folder / "stub.gguf", folder / "s.sock"
    stub.write_bytes(gguf_stub(name))
    socket.unlink(missing_ok=True)
    log.truncate(0)
    log.seek(0)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(stub)
    parameters.hostnames = [str(socket)]
    parameters.ui = False
    try:
        xllamacpp.Server(parameters)
    except RuntimeError:
        pass
    log.seek(0)
    return str(log.read(), "utf-8", "replace")


if __name__ == "__main__":
    main(sys.argv[1:])
