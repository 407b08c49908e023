from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from detect.errors import NotAModelError
from detect.scan import inspect_path, scan
from detect.types import ModelInfo, WeightFormat
from tests.detect import raw_gguf, raw_safetensors
from tests.detect.raw_gguf import RawGGUF

raw = raw_safetensors


def codes(info: ModelInfo) -> list[str]:
    return [problem.code for problem in info.problems]


def refusal(path: Path) -> NotAModelError:
    with pytest.raises(NotAModelError) as caught:
        inspect_path(path)
    return caught.value


# Complete, and not


def test_a_sharded_model_is_one_with_its_files_in_order(tmp_path: Path) -> None:
    info = inspect_path(raw.write_shards(tmp_path / "m", raw.dense(), 3))
    assert [file.name[:11] for file in info.files] == ["model-00001", "model-00002", "model-00003"]
    assert info.parameters == raw.PARAMETERS
    assert codes(info) == []


def test_a_missing_shard_is_named_with_and_without_an_index(tmp_path: Path) -> None:
    folder = raw.write_shards(tmp_path / "m", raw.dense(), 3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    for _ in range(2):
        info = inspect_path(folder)
        assert codes(info) == ["incomplete.missing_shard"]
        assert "model-00002-of-00003.safetensors" in info.problems[0].message
        assert info.broken
        (folder / "model.safetensors.index.json").unlink(missing_ok=True)


def test_an_index_whose_files_are_all_missing_is_a_broken_model(tmp_path: Path) -> None:
    folder = raw.write_shards(tmp_path / "m", raw.dense(), 2)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    assert codes(inspect_path(folder)) == ["incomplete.missing_shard"]


def test_an_index_that_lists_what_no_file_has_is_a_mismatch(tmp_path: Path) -> None:
    folder = raw.write_shards(tmp_path / "m", raw.dense(), 2)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"]["ghost.weight"] = "model-00001-of-00002.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    info = inspect_path(folder)
    assert codes(info) == ["corrupt.index_mismatch"]
    assert "ghost.weight" in info.problems[0].message


def test_the_same_tensor_in_two_shards_is_a_mismatch(tmp_path: Path) -> None:
    folder = raw.write_shards(tmp_path / "m", raw.dense(), 2)
    first, second = sorted(folder.glob("*.safetensors"))
    second.write_bytes(first.read_bytes())
    assert "corrupt.index_mismatch" in codes(inspect_path(folder))


def test_two_sets_side_by_side_are_a_layout_that_engines_read_differently(tmp_path: Path) -> None:
    folder = raw.write_shards(tmp_path / "m", raw.dense(), 2)
    (folder / "model.safetensors").write_bytes(raw.encode(raw.dense()))
    info = inspect_path(folder)
    assert codes(info) == ["conflict.layout"]
    assert info.parameters == raw.PARAMETERS


def test_mistrals_copy_beside_the_usual_files_is_not_counted(tmp_path: Path) -> None:
    folder = raw.write_model(tmp_path / "m", raw.dense())
    (folder / "consolidated.safetensors").write_bytes(raw.encode(raw.dense()))
    info = inspect_path(folder)
    assert info.weights_bytes == 2 * raw.PARAMETERS
    assert codes(info) == []


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"version https://git-lfs.github.com/spec/v1\nsize 31\n", "incomplete.lfs_pointer"),
        (b"", "incomplete.partial"),
        (b"<!doctype html>", "corrupt.header"),
        (raw.encode(raw.dense())[:-1], "incomplete.truncated"),
    ],
)
def test_a_bad_weight_file_breaks_the_model_and_is_listed(
    tmp_path: Path, content: bytes, code: str
) -> None:
    folder = raw.write_model(tmp_path / "m", raw.dense())
    (folder / "model.safetensors").write_bytes(content)
    os.utime(folder / "model.safetensors", (1, 1))
    (info,) = scan([tmp_path]).models
    assert info.id == "m"
    assert codes(info) == [code]
    assert info.broken
    assert info.architecture.name == "qwen3"


def test_weights_are_known_by_their_content_not_by_their_name(tmp_path: Path) -> None:
    raw_gguf.model().write(tmp_path / "m" / "weights.bin")
    assert inspect_path(tmp_path / "m").format is WeightFormat.GGUF


def test_a_good_file_has_its_name_although_a_broken_one_is_called_the_same(tmp_path: Path) -> None:
    raw_gguf.model().write(tmp_path / "loose.gguf")
    (tmp_path / "loose.safetensors").write_bytes(raw.encode(raw.dense()))
    models = {model.id: model for model in scan([tmp_path]).models}
    assert models["loose"].format is WeightFormat.GGUF
    broken = models[f"loose@{tmp_path.name}"].fatal_problem
    assert broken is not None
    assert broken.message.startswith("loose.safetensors has no config.json beside it.")


# Downloads


def test_a_new_model_is_not_settling_for_being_new(tmp_path: Path) -> None:
    raw.write_model(tmp_path / "a", raw.dense())
    raw_gguf.model().write(tmp_path / "b" / "b.gguf")
    assert [codes(info) for info in scan([tmp_path]).models] == [[], []]


def test_a_short_file_written_to_a_moment_ago_is_settling(tmp_path: Path) -> None:
    path = raw_gguf.model().write(tmp_path / "m" / "m.gguf")
    os.truncate(path, path.stat().st_size - 10)
    assert codes(inspect_path(path.parent)) == ["settling"]
    os.utime(path, (time.time() - 60, time.time() - 60))
    assert codes(inspect_path(path.parent)) == ["incomplete.truncated"]
    path.write_bytes(raw_gguf.model().encode())
    assert codes(inspect_path(path.parent)) == []


def test_a_file_that_grows_while_it_is_looked_at_is_settling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = raw_gguf.model().write(tmp_path / "m" / "m.gguf")
    from detect import gguf_header

    real = gguf_header.read_header

    def read_and_grow(file: Path) -> Any:
        header = real(file)
        with open(file, "ab") as grown:
            grown.write(b"more")
        return header

    monkeypatch.setattr("detect.gguf_header.read_header", read_and_grow)
    assert codes(inspect_path(path.parent)) == ["settling"]


@pytest.mark.parametrize(
    "name", ["x.gguf.part", "x.gguf.crdownload", "incomplete-x.gguf", "downloading_x.gguf.part",
             "x.gguf.part1of2", "x.gguf-split-a"],
)  # fmt: skip
def test_parts_of_downloads_are_skipped_with_the_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"GGUF")
    report = scan([tmp_path])
    assert report.skipped[0].code == "incomplete.partial"


def test_a_file_that_aria2_still_writes_is_incomplete(tmp_path: Path) -> None:
    path = raw_gguf.model().write(tmp_path / "m" / "m.gguf")
    path.with_name("m.gguf.aria2").write_bytes(b"x")
    assert codes(inspect_path(path.parent)) == ["incomplete.partial"]


# What is no model


def test_companions_are_skipped_with_what_they_need(tmp_path: Path) -> None:
    raw_gguf.projector().write(tmp_path / "projector" / "mmproj-F16.gguf")
    RawGGUF(metadata={"general.type": "imatrix"}).write(tmp_path / "imatrix" / "imatrix.gguf")
    RawGGUF(metadata=raw_gguf.llama()).write(tmp_path / "vocabulary" / "vocab.gguf")
    RawGGUF(
        metadata={"general.type": "adapter", "adapter.type": "lora"},
        tensors={"blk.0.lora_a": (raw_gguf.F32, (4,))},
    ).write(tmp_path / "adapter" / "lora.gguf")
    (tmp_path / "legacy").mkdir()
    (tmp_path / "legacy" / "imatrix.dat").write_bytes(b"\x01\x00\x00\x00")
    report = scan([tmp_path])
    assert report.models == ()
    found = {item.path.parent.name: item.code for item in report.skipped}
    assert found == {
        "projector": "missing.base_model",
        "imatrix": "unsupported.role",
        "vocabulary": "unsupported.role",
        "adapter": "missing.base_model",
    }


def test_adapters_are_skipped_with_their_base_model(tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    tensors = {"base_model.model.layers.0.q.lora_A.weight": ("F32", (4, 4))}
    raw.write_model(
        folder,
        tensors,
        None,
        name="adapter_model.safetensors",
        adapter_config={"peft_type": "LORA", "base_model_name_or_path": "org/base"},
    )
    error = refusal(folder)
    assert error.code == "missing.base_model"
    assert "org/base" in error.message
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"\x80\x02x")
    assert refusal(folder).code == "missing.base_model"
    mlx = {"model.layers.0.self_attn.q_proj.lora_a": ("F32", (4, 4))}
    raw.write_model(tmp_path / "mlx", mlx, None, name="weights.safetensors")
    assert refusal(tmp_path / "mlx").code == "missing.base_model"


def test_a_config_without_weights_is_skipped(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(dict(raw.CONFIG)))
    assert refusal(folder).code == "incomplete.partial"


def test_folders_of_other_things_are_silent(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README.md").write_text("hello")
    (tmp_path / "package.json").write_text("{}")
    report = scan([tmp_path])
    assert report.models == ()
    assert report.skipped == ()


# Naming one


def test_a_folder_of_several_models_is_refused_naming_them(tmp_path: Path) -> None:
    raw_gguf.model().write(tmp_path / "m-Q4_K_M.gguf")
    raw_gguf.model().write(tmp_path / "m-Q8_0.gguf")
    message = refusal(tmp_path).message
    assert "2 models" in message
    assert str(tmp_path / "m-Q8_0.gguf") in message


def test_an_empty_and_an_irrelevant_folder_say_what_they_hold(tmp_path: Path) -> None:
    assert refusal(tmp_path).message.endswith("is empty.")
    (tmp_path / "README.md").write_text("x")
    assert "README.md" in refusal(tmp_path).message


def test_one_file_can_be_named(tmp_path: Path) -> None:
    raw_gguf.model().write(tmp_path / "a.gguf")
    path = raw_gguf.model().write(tmp_path / "b.gguf")
    info = inspect_path(path)
    assert (info.id, info.files) == ("b", (path,))
    shards = raw_gguf.write_split(tmp_path, "big", 2)
    assert inspect_path(shards[1]).id == "big"
    folder = raw.write_model(tmp_path / "m", raw.dense())
    assert inspect_path(folder / "model.safetensors").id == "m"


def test_a_file_that_is_no_model_says_what_it_is(tmp_path: Path) -> None:
    path = raw_gguf.projector().write(tmp_path / "mmproj.gguf")
    assert refusal(path).code == "missing.base_model"
    (tmp_path / "x.txt").write_text("x")
    assert "not a model" in refusal(tmp_path / "x.txt").message
    assert "does not exist" in refusal(tmp_path / "nothing").message
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in refusal(tmp_path / "fifo").message


def test_a_file_that_links_elsewhere_was_named_and_is_read(tmp_path: Path) -> None:
    real = raw_gguf.model().write(tmp_path / "real" / "x.gguf")
    (tmp_path / "models").mkdir()
    link = tmp_path / "models" / "y.gguf"
    link.symlink_to(real)
    assert inspect_path(link).id == "y"


# The scan as a whole


def test_one_bad_folder_never_spoils_a_scan(tmp_path: Path) -> None:
    raw.write_model(tmp_path / "good", raw.dense())
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "model.safetensors").write_bytes(os.urandom(1000))
    (bad / "x.gguf").write_bytes(b"GGUF" + os.urandom(1000))
    os.mkfifo(bad / "pipe.gguf")
    (bad / "loop").symlink_to("loop")
    report = scan([tmp_path, tmp_path / "nowhere"])
    models = {model.id: model for model in report.models}
    assert not models["good"].broken
    assert len(models) == 3
    assert all(m.broken for name, m in models.items() if name != "good")
    assert {item.path.name for item in report.skipped} == {"pipe.gguf", "loop", "nowhere"}


def test_an_error_of_our_own_costs_one_folder_and_not_the_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detect import classify

    real = classify.classify

    def fail_once(facts: Any) -> ModelInfo:
        if facts.path.name == "a":
            raise RuntimeError("a bug")
        return real(facts)

    monkeypatch.setattr("detect.classify.classify", fail_once)
    for name in "ab":
        raw.write_model(tmp_path / name, raw.dense())
    report = scan([tmp_path])
    assert [m.id for m in report.models] == ["b"]
    assert "RuntimeError" in report.skipped[0].reason


def test_the_order_is_the_same_every_time_and_progress_is_told(tmp_path: Path) -> None:
    for name in "cab":
        raw.write_model(tmp_path / name, raw.dense())
    counts: list[int] = []
    assert [m.id for m in scan([tmp_path], progress=counts.append).models] == ["a", "b", "c"]
    assert counts == [1, 2, 3]


def test_loose_safetensors_without_a_config_are_listed_and_broken(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(raw.encode(raw.dense()))
    (tmp_path / "b.safetensors").write_bytes(raw.encode(raw.dense()))
    models = scan([tmp_path]).models
    assert [m.id for m in models] == ["a", "b"]
    assert all("missing.config" in codes(m) for m in models)


def test_an_unreadable_file_is_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw_gguf.model().write(tmp_path / "x.gguf")
    real = os.open

    def refuse(path: Any, *rest: Any, **more: Any) -> int:
        if str(path).endswith("x.gguf"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    report = scan([tmp_path])
    assert not report.models
    assert report.skipped[0].reason == "It cannot be read: Permission denied."


def test_a_file_that_vanishes_during_the_scan_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detect import gguf_header, safetensors_header

    folder = raw.write_model(tmp_path / "m", raw.dense())
    path = raw_gguf.model().write(folder / "x.gguf")
    real_gguf, real = gguf_header.read_header, safetensors_header.read_header

    def vanish_gguf(file: Path) -> Any:
        path.unlink()
        return real_gguf(file)

    def vanish(file: Path) -> Any:
        file.unlink()
        return real(file)

    monkeypatch.setattr("detect.gguf_header.read_header", vanish_gguf)
    monkeypatch.setattr("detect.safetensors_folder.read_header", vanish)
    assert [codes(m)[0] for m in scan([tmp_path]).models] == ["incomplete.partial"] * 2


def test_real_models_of_every_format_are_told_apart(tmp_path: Path) -> None:
    """The committed weights, as Hugging Face's libraries wrote them."""
    import shutil

    from tests.tiny.train import WEIGHTS

    shutil.copytree(WEIGHTS, tmp_path / "parrot")
    info = inspect_path(tmp_path / "parrot")
    assert info.format is WeightFormat.SAFETENSORS
    assert info.architecture.name == "llama"
    assert info.chat_template
    assert info.tools
    assert info.problems == ()


def test_ten_thousand_folders_take_seconds_not_minutes(tmp_path: Path) -> None:
    """A tenth of them here; a folder costs the same whatever their number."""
    content = RawGGUF(metadata={"general.architecture": "llama"}, tensors={"x": (0, (1,))})
    for number in range(1000):
        content.write(tmp_path / f"{number:04}" / "m.gguf")
    report = scan([tmp_path])
    assert len(report.models) == 1000
    assert report.seconds < 3
