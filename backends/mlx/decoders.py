"""Which decoder a model gets."""

from __future__ import annotations

from typing import Any

from backends.mlx import kv_state
from backends.mlx.batch import BatchDecoder
from backends.mlx.decoder import Decoder
from backends.mlx.prefixes import Prefixes
from backends.mlx.sequential import SequentialDecoder


def make_decoder(
    network: Any, stop_ids: frozenset[int], max_rows: int, prefixes: Prefixes
) -> Decoder:
    """Batched where every layer's state can be merged with others, else one row after another."""
    if kv_state.is_mergeable(kv_state.new(network)):
        return BatchDecoder(network, stop_ids, max_rows, prefixes)
    return SequentialDecoder(network, stop_ids, prefixes)
