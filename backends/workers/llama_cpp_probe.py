"""Ask the `xllamacpp` wheel which GGUF architectures and pre-tokenizers it knows.

    python -m backends.workers.llama_cpp_probe llama qwen3 pre:qwen2 …

It refuses what it does not know before it looks for weights, so that a stub does for a question.
Prints one JSON array `[name, answer]` per line, as soon as it is known.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from backends.stub import gguf_question, said_of

LAST_WORDS_SECONDS = 1.0


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
    stub.write_bytes(gguf_question(name))
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
    return _logged(name, log)


def _logged(name: str, log: Any) -> str:
    """Its log is written by a thread of its own, so that the last words may come late."""
    deadline = time.monotonic() + LAST_WORDS_SECONDS
    while True:
        log.seek(0)
        words = str(log.read(), "utf-8", "replace")
        if said_of(name, words) or time.monotonic() > deadline:
            return words
        time.sleep(0.01)


if __name__ == "__main__":
    main(sys.argv[1:])
