"""Adapters, drafts, short keys and values, and saved prompts, on the trained tiny model."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from backends.mlx.engine import Engine
from backends.mlx.options import EngineOptions
from backends.mlx.thread import EngineThread
from tests.backends.mlx.test_engine import answer, asking, end, text
from tests.conftest import Variant
from tests.tiny import dialogues as d

LORA = {"rank": 4, "scale": 10.0, "dropout": 0.0}


def adapter(folder: Path, base: Path, strength: float) -> Path:
    """As `mlx_lm.lora` writes it; of strength 0, it changes nothing."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model

    network, _ = load_model(base)
    network.freeze()
    linear_to_lora_layers(network, 2, LORA)
    mx.random.seed(3)
    weights = {
        name: mx.random.normal(array.shape) * (strength if name.endswith("lora_b") else 1.0)
        for name, array in tree_flatten(network.trainable_parameters())
    }
    assert weights
    folder.mkdir()
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    config = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": LORA}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "model": str(base)}))
    return folder


def ask(folder: Path, options: EngineOptions, *questions: str) -> list[tuple[str, int]]:
    """Texts, and how many tokens of each prompt were known before."""

    async def main() -> list[tuple[str, int]]:
        engine = Engine("tiny", folder, options, thread=EngineThread())
        await engine.load()
        try:
            answers = [await answer(engine, asking(q, max_tokens=64)) for q in questions]
            return [(text(told), end(told).usage.cached_tokens) for told in answers]
        finally:
            await engine.close()

    return asyncio.run(main())


def refusal(folder: Path, options: EngineOptions) -> str:
    async def main() -> str:
        engine = Engine("tiny", folder, options, thread=EngineThread())
        with pytest.raises((ValueError, OSError)) as caught:
            await engine.load()
        assert engine.used_bytes is None
        return str(caught.value)

    return asyncio.run(main())


@pytest.mark.parametrize("name", ["mlx-4bit", "mlx-bf16"])
def test_an_adapter_changes_what_is_said(variant: Variant, tmp_path: Path, name: str) -> None:
    base = variant(name)
    none = EngineOptions(adapter=adapter(tmp_path / "none", base, 0.0))
    strong = EngineOptions(adapter=adapter(tmp_path / "strong", base, 1.0))
    assert ask(base, none, d.QUESTION)[0][0] == d.SENTENCE
    assert ask(base, strong, d.QUESTION)[0][0] != d.SENTENCE


def test_an_adapter_of_another_shape_is_refused(variant: Variant, tmp_path: Path) -> None:
    base = variant("mlx-bf16")
    wrong = adapter(tmp_path / "wrong", base, 1.0)
    config = json.loads((wrong / "adapter_config.json").read_text())
    config["lora_parameters"]["rank"] = 10**9
    (wrong / "adapter_config.json").write_text(json.dumps(config))
    assert refusal(base, EngineOptions(adapter=wrong))


def test_a_draft_says_the_same(variant: Variant) -> None:
    options = EngineOptions(draft=variant("mlx-bf16"))
    said = ask(variant("mlx-bf16"), options, d.QUESTION, d.FOOD_QUESTION, d.QUESTION)
    assert [one for one, _ in said] == [d.SENTENCE, d.FOOD, d.SENTENCE]
    assert said[2][1] > 0


def test_a_draft_of_another_vocabulary_is_refused(variant: Variant, tmp_path: Path) -> None:
    other = tmp_path / "other"
    from tests.bench.mlx_models import DENSE, write

    write(other, DENSE)
    said = refusal(variant("mlx-bf16"), EngineOptions(draft=other))
    assert "8192" in said


@pytest.mark.parametrize("bits", [4, 8])
def test_fewer_bits_for_keys_and_values_say_the_same(variant: Variant, bits: int) -> None:
    said = ask(variant("mlx-bf16"), EngineOptions(kv_bits=bits), d.QUESTION, d.QUESTION)
    assert [one for one, _ in said] == [d.SENTENCE] * 2
    assert said[1][1] > 0


def test_a_prompt_is_known_after_a_restart(variant: Variant, tmp_path: Path) -> None:
    options = EngineOptions(disk_folder=tmp_path / "prompts", disk_bytes=2**30)
    first = ask(variant("mlx-bf16"), options, d.QUESTION)
    again = ask(variant("mlx-bf16"), options, d.QUESTION)
    assert first == [(d.SENTENCE, 0)]
    assert again == [(d.SENTENCE, 20)]
    assert (tmp_path / "prompts").stat().st_mode & 0o777 == 0o700


def test_without_room_nothing_is_kept(variant: Variant) -> None:
    said = ask(variant("mlx-bf16"), EngineOptions(prefix_bytes=0), d.QUESTION, d.QUESTION)
    assert said == [(d.SENTENCE, 0)] * 2


def test_options_reach_a_worker_as_they_are(tmp_path: Path) -> None:
    options: Any = EngineOptions(
        context_length=9, max_rows=2, prefix_bytes=3, disk_folder=tmp_path, kv_bits=8
    )
    assert EngineOptions.from_json(options.to_json()) == options
    assert EngineOptions.from_json(EngineOptions().to_json()) == EngineOptions()


def test_a_disk_that_cannot_be_used_costs_the_restart_only(
    variant: Variant, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    options = EngineOptions(disk_folder=tmp_path / "file" / "prompts", disk_bytes=2**30)
    said = ask(variant("mlx-bf16"), options, d.QUESTION, d.QUESTION)
    assert said == [(d.SENTENCE, 0), (d.SENTENCE, 20)]
