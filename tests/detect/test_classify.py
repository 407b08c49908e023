from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from detect.scan import inspect_path
from detect.types import ModelInfo, Role, SafetensorsDetails, WeightFormat
from tests.detect import raw_safetensors as raw


def model(folder: Path, **changes: Any) -> ModelInfo:
    return inspect_path(raw.write_model(folder / "m", raw.dense(), {**raw.CONFIG, **changes}))


def codes(info: ModelInfo) -> list[str]:
    return [problem.code for problem in info.problems]


def test_a_plain_model_is_described_completely(tmp_path: Path) -> None:
    info = model(tmp_path)
    assert info.id == "m"
    assert info.path == tmp_path / "m"
    assert info.folder == tmp_path / "m"
    assert info.format is WeightFormat.SAFETENSORS
    assert info.role is Role.GENERATIVE
    assert info.architecture.hf_class == "Qwen3ForCausalLM"
    assert info.architecture.model_type == "qwen3"
    assert info.weights_bytes == 2 * raw.PARAMETERS
    assert info.parameters == raw.PARAMETERS
    assert info.active_parameters is None
    assert info.context_length == 4096
    assert info.kv_bytes_per_token == 2 * raw.LAYERS * raw.KV_HEADS * raw.HEAD * 2
    assert info.problems == ()
    assert isinstance(info.details, SafetensorsDetails)
    assert info.details.census == {"plain": 7 * raw.LAYERS + 1}
    assert info.details.files_beside == {"config.json", "tokenizer.json"}
    assert info.details.architectures == ("Qwen3ForCausalLM",)
    assert info.details.config["model_type"] == "qwen3"
    source = next(e.source for e in info.evidence if e.field == "format")
    assert source == "float weights in 15 of 15 linear layers"


def test_the_evidence_of_an_mlx_model_counts_its_layers(tmp_path: Path) -> None:
    packed = raw.mlx(4, 32)
    tensors = raw.dense(quantize=packed, embeddings=packed)
    info = inspect_path(raw.write_model(tmp_path / "m", tensors))
    source = next(e.source for e in info.evidence if e.field == "format")
    assert source == "U32 weight with float scales and biases in 15 of 15 linear layers"


@pytest.mark.parametrize("architectures", [None, [], ["A", "B"], "Qwen3ForCausalLM", [1]])
def test_a_config_that_does_not_name_one_architecture_conflicts(
    tmp_path: Path, architectures: Any
) -> None:
    info = model(tmp_path, architectures=architectures)
    assert codes(info) == ["conflict.config_vs_tensors"]
    assert info.architecture.model_type == "qwen3"


def test_no_config_breaks_a_model_but_its_tensors_are_still_described(tmp_path: Path) -> None:
    info = inspect_path(raw.write_model(tmp_path / "m", raw.dense(quantize=raw.mlx()), None))
    assert info.broken
    assert codes(info) == ["missing.config"]
    assert info.quantization is not None


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"a":' * 3000, b"null"])
def test_an_unreadable_config_breaks_the_model(tmp_path: Path, content: bytes) -> None:
    folder = raw.write_model(tmp_path / "m", raw.dense())
    (folder / "config.json").write_bytes(content)
    assert inspect_path(folder).fatal_problem is not None
    assert "missing.config" in codes(inspect_path(folder))


def test_a_config_of_odd_values_is_no_reason_to_fail(tmp_path: Path) -> None:
    values: list[Any] = [None, [], {}, "x", -1, 1e400, True, [[]], {"a": {"b": []}}]
    keys = ("quantization", "quantization_config", "text_config", "layer_types", "num_experts")
    for value in values:
        odd = dict.fromkeys([*raw.CONFIG, *keys, "rope_scaling"], value)
        folder = raw.write_model(tmp_path / "m", raw.dense(), odd, tokenizer_config=odd)
        assert inspect_path(folder).id == "m"


def test_mistrals_own_layout_is_named(tmp_path: Path) -> None:
    folder = raw.write_model(
        tmp_path / "m", raw.dense(), None, name="consolidated.safetensors", params={"dim": 128}
    )
    assert "Mistral" in inspect_path(folder).problems[0].message


def test_a_missing_tokenizer_is_told(tmp_path: Path) -> None:
    info = inspect_path(raw.write_model(tmp_path / "m", raw.dense(), tokenizer=False))
    assert codes(info) == ["missing.tokenizer"]
    assert not info.broken


@pytest.mark.parametrize("key", ["model_file", "auto_map"])
def test_code_that_comes_with_a_model_is_told_and_never_run(tmp_path: Path, key: str) -> None:
    folder = raw.write_model(tmp_path / "m", raw.dense(), {**raw.CONFIG, key: "evil.py"})
    canary = tmp_path / "canary"
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w')")
    info = inspect_path(folder)
    assert codes(info) == ["unsafe.remote_code"]
    assert not info.broken
    assert not canary.exists()


def test_templates_are_found_in_every_place_they_are_kept(tmp_path: Path) -> None:
    body = "{% if tools %}{{ tools | tojson }}{% endif %}{{ '<think>' }}"
    base = raw.write_model(tmp_path / "none", raw.dense())
    assert not inspect_path(base).chat_template
    places = {
        "chat_template.jinja": body,
        "chat_template.json": json.dumps({"chat_template": body}),
        "tokenizer_config.json": json.dumps({"chat_template": body}),
    }
    for name, content in places.items():
        folder = raw.write_model(tmp_path / name, raw.dense())
        (folder / name).write_text(content)
        info = inspect_path(folder)
        assert (info.chat_template, info.tools, info.thinking) == (True, True, True), name
    named = [{"name": "default", "template": "x"}, {"name": "tool_use", "template": body}]
    folder = raw.write_model(
        tmp_path / "list", raw.dense(), tokenizer_config={"chat_template": named}
    )
    assert inspect_path(folder).tools


def test_a_dangerous_template_is_only_read(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    attack = (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}"
        f"{{{{ lipsum.__globals__['os'].system('touch {canary}') }}}}"
        "{% for i in range(10**9) %}{% for j in range(10**9) %}x{% endfor %}{% endfor %}"
    )
    folder = raw.write_model(
        tmp_path / "m", raw.dense(), tokenizer_config={"chat_template": attack}
    )
    assert inspect_path(folder).chat_template
    assert not canary.exists()


def test_thinking_is_seen_in_the_vocabulary_too(tmp_path: Path) -> None:
    added = {"5": {"content": "<think>"}, "6": "odd"}
    folder = raw.write_model(
        tmp_path / "m", raw.dense(), tokenizer_config={"added_tokens_decoder": added}
    )
    assert inspect_path(folder).thinking


def test_fewer_layers_than_promised_are_a_conflict(tmp_path: Path) -> None:
    info = model(tmp_path, num_hidden_layers=3)
    assert codes(info) == ["conflict.config_vs_tensors"]
    assert "3 layers" in info.problems[0].message


@pytest.mark.parametrize("claim", [10_000_000, 10**30])
def test_more_layers_than_tensors_break_the_model(tmp_path: Path, claim: int) -> None:
    for changes in ({"num_hidden_layers": claim}, {"text_config": {"n_layer": claim}}):
        info = model(tmp_path, **changes)
        assert info.fatal_problem is not None
        assert info.fatal_problem.code == "corrupt.bounds"
        assert "config.json tells of " in info.fatal_problem.message
        shutil.rmtree(info.path)


def test_experts_must_be_in_both_or_in_neither(tmp_path: Path) -> None:
    info = model(tmp_path, num_experts=8)
    assert codes(info) == ["conflict.config_vs_tensors"]
    config = {**raw.CONFIG, "model_type": "mixtral", "architectures": ["MixtralForCausalLM"]}
    info = inspect_path(raw.write_model(tmp_path / "n", raw.mixture(), config))
    assert codes(info) == ["conflict.config_vs_tensors"]
