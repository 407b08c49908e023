"""Samplers and logits processors for one request, that share a batch with others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from backends.mlx import library
from backends.wire.defaults import SamplingDefaults
from backends.wire.request import Sampling

T = TypeVar("T", int, float)

PENALTY_WINDOW = 64
"""Tokens that penalties look back on, as in llama.cpp."""


def make_sampler(sampling: Sampling, usual: SamplingDefaults) -> Any:
    """A sampler over log-probabilities [rows, vocabulary]; equal parameters share one object,
    and rows that share it are sampled in one call. A seed has a sampler of its own."""
    filters = _Filters(
        temperature=_first(sampling.temperature, usual.temperature),
        top_p=_first(sampling.top_p, usual.top_p),
        top_k=max(0, _first(sampling.top_k, usual.top_k)),
        min_p=_first(sampling.min_p, usual.min_p),
    )
    if sampling.seed is None or filters.temperature == 0:
        return _shared_sampler(filters)
    return _seeded_sampler(filters, sampling.seed)


@dataclass(frozen=True, slots=True)
class _Filters:
    temperature: float
    top_p: float
    top_k: int
    min_p: float

    def __call__(self, logprobs: Any) -> Any:
        """Scaled, and without what is not to be drawn."""
        module = library.load("mlx_lm.sample_utils")
        if 0 < self.top_p < 1:
            logprobs = module.apply_top_p(logprobs, self.top_p)
        if self.min_p > 0:
            logprobs = module.apply_min_p(logprobs, self.min_p, 1)
        # mlx-lm refuses as many as there are, in the middle of a step.
        if 0 < self.top_k < logprobs.shape[-1]:
            logprobs = module.apply_top_k(logprobs, self.top_k)
        return logprobs / self.temperature


@lru_cache(maxsize=64)
def _shared_sampler(filters: _Filters) -> Any:
    mx = library.load("mlx.core")
    if filters.temperature == 0:
        return lambda logprobs: mx.argmax(logprobs, axis=-1)
    return lambda logprobs: mx.random.categorical(filters(logprobs))


def _seeded_sampler(filters: _Filters, seed: int) -> Any:
    """The same distribution, drawn with a key of its own: independent of the batch around it."""
    mx = library.load("mlx.core")
    key = mx.random.key(seed % 2**64)

    def sample(logprobs: Any) -> Any:
        nonlocal key
        key, now = mx.random.split(key)
        return mx.random.categorical(filters(logprobs), key=now)

    return sample


def make_processors(sampling: Sampling, usual: SamplingDefaults) -> list[Any]:
    """Penalties and biases on the logits; empty for most requests."""
    repetition_penalty = _first(sampling.repetition_penalty, usual.repetition_penalty)
    module = library.load("mlx_lm.sample_utils")
    processors: list[Any] = module.make_logits_processors(
        logit_bias=dict(sampling.logit_bias) or None,
        repetition_penalty=None if repetition_penalty == 1 else repetition_penalty,
        repetition_context_size=PENALTY_WINDOW,
        presence_penalty=sampling.presence_penalty,
        presence_context_size=PENALTY_WINDOW,
        frequency_penalty=sampling.frequency_penalty,
        frequency_context_size=PENALTY_WINDOW,
    )
    return processors


def _first(value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value
