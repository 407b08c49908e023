from __future__ import annotations

from typing import Any

import pytest

from detect.context import Context, kv_bytes_per_token, length
from detect.hf_config import Configs


def test_the_config_states_the_context_under_many_names() -> None:
    for key in ("max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_seq_len"):
        assert length(Configs(config={key: 4096})).native == 4096


def test_the_text_part_goes_before_the_top_level() -> None:
    config = {"max_position_embeddings": 1, "text_config": {"max_position_embeddings": 2}}
    assert length(Configs(config=config)).native == 2


@pytest.mark.parametrize("stated", [32768, 131072])
def test_yarn_extends_the_context_whether_or_not_it_is_already_stated(stated: int) -> None:
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    found = length(Configs(config={"max_position_embeddings": stated, "rope_scaling": scaling}))
    assert (found.native, found.extended) == (32768, 131072)


def test_the_tokenizer_bounds_the_context_unless_it_means_none() -> None:
    assert length(Configs(tokenizer={"model_max_length": 512})).native == 512
    assert length(Configs(tokenizer={"model_max_length": 10**30})) == Context(None)
    sentence = Configs(sentence_bert={"max_seq_length": 256}, tokenizer={"model_max_length": 512})
    assert length(sentence).native == 256


def test_recurrent_models_have_no_limit_and_no_cache() -> None:
    config = {"model_type": "mamba", "num_hidden_layers": 4, "max_position_embeddings": 10}
    assert length(Configs(config=config)).native is None
    assert kv_bytes_per_token(Configs(config=config)) == 0


BASE = {
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "hidden_size": 1024,
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 2 * 8 * 4 * 64 * 2),
        ({"head_dim": 128}, 2 * 8 * 4 * 128 * 2),
        ({"num_key_value_heads": None}, 2 * 8 * 16 * 64 * 2),
        ({"kv_lora_rank": 512, "qk_rope_head_dim": 64}, 8 * (512 + 64) * 2),
        ({"layer_types": ["linear_attention"] * 6 + ["full_attention"] * 2}, 2 * 2 * 4 * 64 * 2),
        ({"layer_types": ["sliding_attention"] * 6 + ["full_attention"] * 2}, 2 * 8 * 4 * 64 * 2),
        ({"full_attention_interval": 4}, 2 * 2 * 4 * 64 * 2),
        ({"hybrid_override_pattern": "M-M*M-M*"}, 2 * 2 * 4 * 64 * 2),
        ({"full_attn_idxs": [1, 5]}, 2 * 2 * 4 * 64 * 2),
        ({"multi_query": True}, 2 * 8 * 1 * 64 * 2),
        ({"num_hidden_layers": None}, None),
        ({"num_hidden_layers": 10**7}, None),
        ({"num_attention_heads": None, "num_key_value_heads": None}, None),
    ],
)
def test_a_token_costs_keys_and_values_in_the_attention_layers(
    changes: dict[str, Any], expected: int | None
) -> None:
    assert kv_bytes_per_token(Configs(config={**BASE, **changes})) == expected
