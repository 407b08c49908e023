"""Which decoder a model gets."""

from __future__ import annotations

from backends.mlx import kv_state
from backends.mlx.batch import BatchDecoder
from backends.mlx.decoder import Decoder
from backends.mlx.model import Weights
from backends.mlx.prefixes import Prefixes
from backends.mlx.sequential import SequentialDecoder


def make_decoder(
    weights: Weights,
    stop_ids: frozenset[int],
    max_rows: int,
    prefixes: Prefixes,
    kv_bits: int | None = None,
) -> Decoder:
    """Batched where every layer's state can be merged with others, else one row after another.

    Raises:
        ValueError: a draft or quantised keys and values do not go with this network.
    """
    network, draft = weights.network, weights.draft
    state = kv_state.new(network)
    if draft is None and kv_bits is None and kv_state.is_mergeable(state):
        return BatchDecoder(network, stop_ids, max_rows, prefixes)
    if kv_bits is not None and not kv_state.can_quantize(state):
        raise ValueError("kv-bits does not go with this model's kind of attention.")
    if draft is not None and not kv_state.keeps_all(state):
        raise ValueError("A draft needs a model whose state can be trimmed; this one's cannot.")
    return SequentialDecoder(network, stop_ids, prefixes, draft=draft, kv_bits=kv_bits)
