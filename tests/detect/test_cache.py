from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from detect import examine as examining
from detect.cache import FILE_NAME, RESTING_SECONDS, Cache
from detect.scan import scan
from detect.types import ModelInfo, ScanReport
from tests.detect import raw_gguf, raw_safetensors
from tests.detect.trees import every_kind, hub, rest


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / FILE_NAME


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders whose files were read."""
    folders: list[str] = []
    real = examining.examine

    def examine(place: Any) -> Any:
        folders.append(place.main.folder.name)
        return real(place)

    monkeypatch.setattr("detect.scan.examine", examine)
    return folders


def facts(report: ScanReport) -> ScanReport:
    return structs.replace(report, seconds=0.0)


def model(report: ScanReport) -> ModelInfo:
    (info,) = report.models
    return info


# Equality


def test_what_is_remembered_equals_what_is_read(
    file: Path, models: Path, looked_at: list[str]
) -> None:
    every_kind(models)
    fresh = facts(scan([models]))
    first = facts(scan([models], cache=Cache(file)))
    looked_at.clear()
    again = facts(scan([models], cache=Cache(file)))
    assert looked_at == []
    assert len(fresh.models) > 30
    assert first == fresh
    assert again == fresh


def test_one_cache_object_answers_again_without_its_file(
    file: Path, models: Path, looked_at: list[str]
) -> None:
    every_kind(models)
    cache = Cache(file)
    first = scan([models], cache=cache)
    file.unlink()
    looked_at.clear()
    again = scan([models], cache=cache)
    assert looked_at == []
    assert again.models is first.models


def test_records_of_other_folders_are_kept(
    file: Path, tmp_path: Path, looked_at: list[str]
) -> None:
    for name in ("a", "b"):
        raw_gguf.model().write(tmp_path / name / name / f"{name}.gguf")
        rest(tmp_path / name)
        scan([tmp_path / name], cache=Cache(file))
    looked_at.clear()
    scan([tmp_path / "a"], cache=Cache(file))
    assert looked_at == []


# Changes


def test_added_changed_and_removed_files_are_seen(
    file: Path, models: Path, looked_at: list[str]
) -> None:
    folder = raw_safetensors.write_model(models / "m", raw_safetensors.dense())
    raw_gguf.model().write(models / "other" / "other.gguf")
    rest(models)
    old = Cache(file)
    scan([models], cache=old)
    changes: list[Any] = [
        lambda: (folder / "chat_template.jinja").write_text("{{ tools }}"),
        lambda: (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"})),
        lambda: (folder / "tokenizer.json").unlink(),
        lambda: os.truncate(folder / "model.safetensors", 3000),
        lambda: (folder / "merges.txt").mkdir(),
        lambda: (folder / "model.safetensors").unlink(),
    ]
    for change in changes:
        change()
        rest(folder)
        fresh = facts(scan([models]))
        looked_at.clear()
        assert facts(scan([models], cache=old)) == fresh
        assert looked_at == ["m"]
        assert facts(scan([models], cache=Cache(file))) == fresh
        assert looked_at == ["m"]


def test_a_file_replaced_by_one_of_the_same_size_and_date_is_seen(file: Path, models: Path) -> None:
    path = raw_gguf.model(architecture="llama").write(models / "m" / "m.gguf")
    rest(models)
    cache = Cache(file)
    assert model(scan([models], cache=cache)).architecture.name == "llama"
    raw_gguf.model(architecture="gemma").write(models / "new")
    os.replace(models / "new", path)
    rest(models)
    for one in (cache, Cache(file)):
        assert model(scan([models], cache=one)).architecture.name == "gemma"


def test_a_blob_that_changes_behind_a_link_is_seen(file: Path, models: Path) -> None:
    blob = hub(models)
    rest(models)
    cache = Cache(file)
    assert not model(scan([models], cache=cache)).broken
    os.truncate(blob, 3000)
    rest(models)
    for one in (cache, Cache(file)):
        assert model(scan([models], cache=one)).broken


def test_what_was_just_written_is_not_remembered(
    file: Path, models: Path, looked_at: list[str]
) -> None:
    path = raw_gguf.model().write(models / "m" / "m.gguf")
    now = path.stat().st_mtime
    cache = Cache(file, clock=lambda: now + RESTING_SECONDS / 2)
    scan([models], cache=cache)
    scan([models], cache=cache)
    assert looked_at == ["m", "m"]
    assert not file.exists()


def test_a_file_that_is_readable_now_is_read(file: Path, models: Path) -> None:
    path = raw_gguf.model().write(models / "m" / "m.gguf")
    rest(models)
    cache = Cache(file)
    scan([models], cache=cache)
    path.chmod(0o600)
    assert not model(scan([models], cache=cache)).broken


# The file


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: b"\x00\xff" * 1000,
        lambda content: content[:-20],
        lambda content: content.replace(b"build ", b"build 0"),
        lambda content: content.replace(b'"gguf"', b'"nonsense"'),
        lambda content: content.replace(b"m.gguf", b"n.gguf"),
        lambda content: content.replace(b"m/m.gguf", b"../../etc/passwd"),
        lambda content: content.replace(b"true", b"1"),
        lambda content: content.replace(b"2048", b'"2048"'),
        lambda content: content.replace(b"[", b"[" * 500),
        lambda content: content.replace(b"ModelInfo", b"Evidence"),
        lambda content: content.replace(b"null", b"{}"),
    ],
)
def test_a_spoilt_file_costs_time_and_nothing_else(
    file: Path, models: Path, looked_at: list[str], spoil: Any
) -> None:
    raw_gguf.model().write(models / "m" / "m.gguf")
    rest(models)
    fresh = facts(scan([models], cache=Cache(file)))
    spoilt = spoil(file.read_bytes())
    assert spoilt != file.read_bytes()
    file.write_bytes(spoilt)
    looked_at.clear()
    assert facts(scan([models], cache=Cache(file))) == fresh
    assert looked_at == ["m"]


def test_a_file_that_cannot_be_read_or_written_is_no_error(file: Path, models: Path) -> None:
    raw_gguf.model().write(models / "m" / "m.gguf")
    rest(models)
    file.parent.mkdir()
    os.mkfifo(file)
    assert scan([models], cache=Cache(file)).models
    file.unlink()
    file.mkdir()
    assert scan([models], cache=Cache(file)).models
    assert list(file.parent.iterdir()) == [file]
    file.rmdir()
    file.parent.rmdir()
    file.parent.write_text("in the way")
    assert scan([models], cache=Cache(file)).models
