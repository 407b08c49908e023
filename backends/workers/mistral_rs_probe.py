"""Ask the `mistralrs` wheel which architectures it knows.

    python -m backends.workers.mistral_rs_probe hf:LlamaForCausalLM gguf:llama …

It refuses an unknown architecture before it looks for weights, so that empty models do for a
question. Prints one JSON array `[name, answer]` per line, as soon as it is known.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from backends.mistral_rs.stub import refusal, write_stub


def main(names: list[str]) -> None:
    os.environ["RUST_LOG"] = "off"
    import mistralrs

    with tempfile.TemporaryDirectory(prefix="router-probe-") as folder:
        for name in names:
            sys.stdout.write(json.dumps([name, _answer(mistralrs, name, Path(folder))]) + "\n")
            sys.stdout.flush()


def _answer(mistralrs: Any, name: str, folder: Path) -> str:
    stub = write_stub(name, folder)
    for answer, which in _loaders(mistralrs, stub):
        refused = refusal(_words(mistralrs, which))
        if refused is None:
            return answer
    return refused or ""


def _loaders(mistralrs: Any, stub: Path) -> list[tuple[str, Any]]:
    """What to call a loader that knows the name, and the loader."""
    if stub.suffix == ".gguf":
        return [("text", mistralrs.Which.GGUF(str(stub.parent), stub.name))]
    return [
        ("text", mistralrs.Which.Plain(model_id=str(stub))),
        ("multimodal", mistralrs.Which.MultimodalPlain(model_id=str(stub))),
        ("embedding", mistralrs.Which.Embedding(model_id=str(stub))),
    ]


def _words(mistralrs: Any, which: Any) -> str:
    try:
        mistralrs.Runner(which=which, token_source="none")
    except BaseException as error:
        # A panic of the engine is none of Python's ordinary exceptions.
        return str(error)
    return ""


if __name__ == "__main__":
    main(sys.argv[1:])
