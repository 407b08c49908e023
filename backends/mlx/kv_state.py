"""What a model remembers of the tokens it has read, one cache per layer: the only file that touches
mlx-lm's cache classes. On the engine thread.

A KV state is a list of mlx-lm's caches for one sequence. Some kinds can be trimmed to any shorter
length (plain attention), others only exist at the length they have (recurrent layers; a sliding
window once it is full).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backends.mlx import library

KVState = list[Any]


def new(network: Any) -> KVState:
    state: KVState = library.load("mlx_lm.models.cache").make_prompt_cache(network)
    return state


def nbytes(state: KVState) -> int:
    return sum(cache.nbytes for cache in state)


def is_mergeable(state: KVState) -> bool:
    """Whether sequences of this kind can be decoded in one batch."""
    return all(hasattr(cache, "merge") for cache in state)


def is_trimmable(state: KVState) -> bool:
    return all(cache.is_trimmable() for cache in state)


def keeps_all(state: KVState) -> bool:
    """Whether it can be trimmed at any length, not only while it is short."""
    parts = [part for cache in state for part in _parts(cache)]
    return is_trimmable(state) and not any(hasattr(part, "max_size") for part in parts)


def trimmed(state: KVState, tokens: int) -> KVState:
    """The same state without its last `tokens`; arrays are shared, and `state` stays as it is.

    Good for merging into a batch, which copies; to go on from it by itself takes `independent`.
    """
    view = [_view(cache) for cache in state]
    if tokens:
        for cache in view:
            cache.trim(tokens)
    return view


def cut(state: KVState, tokens: int) -> int:
    """Trim every layer in place to at most `tokens`, and all to the same; gives what that is.

    Layers differ after drafts that were not accepted. States that cannot be trimmed stay as they
    are.
    """
    if not is_trimmable(state):
        return tokens
    length: int = min([tokens, *(cache.offset for cache in state)])
    for cache in state:
        cache.trim(cache.offset - length)
    return length


def can_quantize(state: KVState) -> bool:
    """Whether layers of this kind can be held with fewer bits; recurrent ones have none to save."""
    kinds = library.load("mlx_lm.models.cache")
    return all(isinstance(cache, kinds.KVCache | kinds.ArraysCache) for cache in state)


def quantize(state: KVState, bits: int) -> None:
    """Hold keys and values with `bits` from now on; in place."""
    kinds = library.load("mlx_lm.models.cache")
    for place, cache in enumerate(state):
        if isinstance(cache, kinds.KVCache) and not cache.empty():
            width = min(cache.keys.shape[-1], cache.values.shape[-1])
            group = next((size for size in (64, 32) if width % size == 0), None)
            if group is None:
                raise ValueError(f"heads of {width} values cannot be quantised in groups of 32")
            state[place] = cache.to_quantized(group_size=group, bits=bits)


def independent(state: KVState) -> KVState:
    """A copy that may be written to: caches write into their arrays in place."""
    return copy.deepcopy(state)


def detached(state: KVState) -> KVState:
    """The same state, computed, in memory of its own: what was cut out of a batch is a view on the
    whole batch's buffers, or a computation that still holds them."""
    mx = library.load("mlx.core")
    for cache in state:
        for inner in _parts(cache):
            if isinstance(getattr(inner, "cache", None), list):
                # Recurrent states come as slices, which share the batch's memory.
                inner.cache = [
                    a if a is None else mx.take(a, mx.array([0]), 0) for a in inner.cache
                ]
    mx.eval([cache.state for cache in state])
    return state


def save(path: Path, state: KVState) -> None:
    """As a safetensors file.

    Raises:
        OSError, ValueError, RuntimeError: it cannot be written, or holds what no file can.
    """
    library.load("mlx_lm.models.cache").save_prompt_cache(str(path), state)


def load(path: Path) -> KVState:
    """
    Raises:
        Exception: the file is damaged, or from another version.
    """
    mx = library.load("mlx.core")
    state: KVState = library.load("mlx_lm.models.cache").load_prompt_cache(str(path))
    mx.eval([cache.state for cache in state])
    return state


def _parts(cache: Any) -> Sequence[Any]:
    return [p for c in cache.caches for p in _parts(c)] if hasattr(cache, "caches") else [cache]


def _view(cache: Any) -> Any:
    view = copy.copy(cache)
    if hasattr(cache, "caches"):
        view.caches = tuple(_view(part) for part in cache.caches)
    return view
