"""mlx-lm without the router, as a process that is told what to do: `python -m
tests.bench.mlx_alone`. A line with a folder unloads what is loaded, loads the model there and
generates a token; an empty one only unloads. Each is answered with its seconds, of which the first
include the import."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from tests.tiny.dialogues import QUESTION


def first_token(folder: str) -> Any:
    import mlx.core as mx
    from mlx_lm import load, stream_generate

    mx.clear_cache()
    model, tokenizer, *_ = load(folder)
    messages = [{"role": "user", "content": QUESTION}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    next(iter(stream_generate(model, tokenizer, prompt, max_tokens=1)))
    return model


def main() -> None:
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    loaded: list[Any] = []
    for line in sys.stdin:
        began = time.perf_counter()
        loaded.clear()
        if folder := line.strip():
            loaded.append(first_token(folder))
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
