"""Why an engine did not start, told from how it ended and what it said. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from backends.errors import EngineMemoryError, EngineRefusedError, EngineStartError

KILLED = 128 + 9
"""The status of one that the kernel killed, which it does when memory runs out."""

OUT_OF_MEMORY = re.compile(
    r"out of (device |host )?memory|outofmemory|memoryerror|bad_alloc|insufficient memory"
    r"|cannot allocate memory|(failed|unable) to allocate|allocation failed"
    r"|attempting to allocate \d+ bytes which is greater than",
    re.IGNORECASE,
)
"""What llama.cpp (CPU, CUDA, Metal), mistral.rs (candle, Rust) and MLX say, Python and C++, too."""


def start_failure(
    what: str, *, engine: str, model: str, words: Sequence[str], status: int | None = None
) -> EngineStartError:
    """`what` it did, as the end of a sentence that begins with the engine; `words` are the last
    lines it printed, `status` the one it exited with, 128 + n for signal n."""
    starved = status == KILLED or any(OUT_OF_MEMORY.search(line) for line in words)
    kind = EngineMemoryError if starved else EngineRefusedError
    reason = f"{what}: memory ran out" if starved else what
    return kind(f"{engine} {reason}.", engine=engine, model=model, last_words=words)
