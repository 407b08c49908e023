from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from detect.hf_config import MAX_CONFIG_BYTES, Configs, read_configs
from detect.listing import list_folder


def read(folder: Path, **files: Any) -> Configs:
    for stem, value in files.items():
        (folder / f"{stem}.json").write_text(json.dumps(value))
    return read_configs(list_folder(folder, [folder.resolve()]))


def test_absent_files_are_empty_and_no_problem(tmp_path: Path) -> None:
    configs = read(tmp_path)
    assert configs == Configs()


def test_a_config_larger_than_the_bound_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b" " * (MAX_CONFIG_BYTES + 1))
    (problem,) = read(tmp_path).problems
    assert problem.code == "missing.config"
    assert "larger" in problem.message


def test_a_fifo_in_place_of_a_config_does_not_block(tmp_path: Path) -> None:
    listing = list_folder(tmp_path, [tmp_path.resolve()])
    (tmp_path / "config.json").write_text("{}")
    listing = list_folder(tmp_path, [tmp_path.resolve()])
    (tmp_path / "config.json").unlink()
    os.mkfifo(tmp_path / "config.json")
    assert read_configs(listing).problems[0].code == "missing.config"


def test_an_index_may_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    for name in ("../evil.safetensors", "/etc/passwd", "a/b", ""):
        index = {"weight_map": {"a": name}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        configs = read(tmp_path)
        assert configs.weight_map is None
        assert configs.problems[0].code == "corrupt.index_mismatch"


def test_an_index_of_other_shapes_is_a_problem(tmp_path: Path) -> None:
    indexes: list[Any] = [
        {},
        {"weight_map": []},
        {"weight_map": {"a": 1}},
        {"weight_map": {"a": []}},
    ]
    for index in indexes:
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        assert read(tmp_path).weight_map is None


def test_the_claim_is_found_wherever_it_is_made(tmp_path: Path) -> None:
    said = {"quant_method": "x", "bits": 4}
    for config in (
        {"quantization_config": said},
        {"quantization": said},
        {"text_config": {"quantization_config": said}},
        {"compression_config": said},
    ):
        assert read(tmp_path, config=config).claim == said
    assert read(tmp_path, config={}, quant_config=said).claim == said


def test_numbers_must_be_whole_and_positive() -> None:
    values: list[Any] = [True, -1, 0, "8", 1.5, 2**60, None, [], float("nan"), float("inf")]
    for value in values:
        assert Configs(config={"n": value}).number("n") is None
    assert Configs(config={"n": 8.0}).number("n") == 8


def test_total_parameters_of_the_index_are_kept(tmp_path: Path) -> None:
    index = {"metadata": {"total_parameters": 123}, "weight_map": {"a": "model.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read(tmp_path).stated_parameters == 123


def test_a_generation_config_is_kept_if_it_is_an_object(tmp_path: Path) -> None:
    assert read(tmp_path, generation_config={"eos_token_id": 2}).generation == {"eos_token_id": 2}
    values: list[Any] = [[], "x", 3, None]
    for value in values:
        configs = read(tmp_path, generation_config=value)
        assert configs.generation is None
        assert not configs.problems


def test_a_generation_config_is_passed_over_when_malformed_and_a_problem_when_no_text(
    tmp_path: Path,
) -> None:
    for content, codes in ((b"{", []), (b'{"a": "\xff"}', ["missing.config"])):
        (tmp_path / "generation_config.json").write_bytes(content)
        assert [problem.code for problem in read(tmp_path).problems] == codes
