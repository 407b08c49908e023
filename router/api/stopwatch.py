"""How long the parts of one answer took."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]

NANOSECONDS = 1_000_000


class Stopwatch:
    """Runs from its creation. All times are in nanoseconds, as Ollama tells them."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._began = clock()
        self._loaded: int | None = None
        self._first: int | None = None

    def loaded(self) -> None:
        """The engine is there, and is asked now."""
        self._loaded = self._clock()

    def spoke(self) -> None:
        """It has said something: the prompt was read by then."""
        self._first = self._first or self._clock()

    def durations(self, timings: Json) -> Json:
        """Until now; `timings` are llama.cpp's own. Where nobody can tell how long the prompt took,
        its time is a part of the answer's."""
        now = self._clock()
        loaded = self._loaded or now
        told = {"total_duration": now - self._began, "load_duration": loaded - self._began}
        prompt, answer = _ns(timings.get("prompt_ms")), _ns(timings.get("predicted_ms"))
        if prompt is not None and answer is not None:
            return {**told, "prompt_eval_duration": prompt, "eval_duration": answer}
        if self._first is None:
            return {**told, "eval_duration": now - loaded}
        read, said = self._first - loaded, now - self._first
        return {**told, "prompt_eval_duration": read, "eval_duration": said}


def _ns(milliseconds: Any) -> int | None:
    number = isinstance(milliseconds, int | float) and 0 <= milliseconds < 2**40
    return int(milliseconds * NANOSECONDS) if number else None
