"""What the words of a layer's name say of it. Pure; most models share most of their names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

NOT_LINEAR = re.compile(r"embed|norm|conv|rotary|rope|position|patch|^wte$|^wpe$|^ln_")
EMBEDDINGS = frozenset({"embed_tokens", "wte", "tok_embeddings", "word_embeddings", "embeddings"})
LM_HEADS = frozenset({"lm_head"})
TOWER = re.compile(
    r"(^|\.)(vision_\w+|visual|audio_\w+|image_\w+|vpm|apm|vit|multi_modal_projector|"
    r"mm_projector|connector|aligner|resampler|embed_vision|embed_audio|sound_\w+|speech_\w+)\."
)
"""Layers that see or hear: not part of the language model."""

STACKED = re.compile(r"\.(switch_mlp|switch_glu)\.")
EXPERT = re.compile(r"(\.experts[.:_]|\.experts$|\.switch_mlp\.|\.switch_glu\.|_exps\b)")
ROUTER = re.compile(
    r"(mlp|feed_forward|block_sparse_moe|moe|ffn|mixer)\.(gate|router|gate\.wg)$|"
    r"\.(router|router\.(proj|layer|classifier)|experts\.router)$"
)
LAYER = re.compile(r"^((?:[^.]+\.)*?)(?:model\.)?layers\.(\d+)\.")

MAX_DIGITS = 9
KEPT = 4096
MAX_KEPT_LENGTH = 200
"""Longer names are no model's, and would fill the memory."""


@dataclass(frozen=True, slots=True)
class Words:
    """`last` is the last word; `number` is where the layer's number stands, if it has one, and
    `root` what precedes `model.layers.` or `layers.`."""

    last: str
    tower: bool
    not_linear: bool
    stacked: bool
    expert: bool
    router: bool
    root: str
    number: tuple[int, int] | None


def of(name: str) -> Words:
    """The same object for the same name, mostly."""
    return _kept(name) if len(name) <= MAX_KEPT_LENGTH else _read(name)


def layers_up_to(name: str) -> int:
    """One more than the number of the layer that the name is part of; 0 if it has none."""
    layer = LAYER.match(name)
    return 1 + int(layer[2][:MAX_DIGITS]) if layer else 0


@lru_cache(maxsize=KEPT)
def _kept(name: str) -> Words:
    return _read(name)


def _read(name: str) -> Words:
    last, layer = name.rpartition(".")[2], LAYER.match(name)
    return Words(
        last=last,
        tower=TOWER.search(name + ".") is not None,
        not_linear=NOT_LINEAR.search(last) is not None,
        stacked=STACKED.search(name) is not None,
        expert=EXPERT.search(name) is not None,
        router=ROUTER.search(name) is not None,
        root=layer[1] if layer else "",
        number=layer.span(2) if layer else None,
    )
