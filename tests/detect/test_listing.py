from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from detect.listing import Listing, list_folder


def show(folder: Path, *roots: Path) -> Listing:
    return list_folder(folder, [root.resolve() for root in roots or (folder,)])


def test_files_and_folders_are_listed_in_order(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).write_bytes(b"xy")
    (tmp_path / "sub").mkdir()
    listing = show(tmp_path)
    assert list(listing.files) == ["a", "b"]
    assert list(listing.folders) == ["sub"]
    assert listing.files["a"].size_bytes == 2
    assert listing.skipped == ()


def test_hidden_and_apple_double_files_are_passed_over(tmp_path: Path) -> None:
    for name in (".DS_Store", "._model.gguf", ".cache"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "__MACOSX").mkdir()
    assert show(tmp_path) == Listing(folder=tmp_path)


def test_what_is_no_file_is_named_and_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo.gguf")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.gguf")
        listing = show(tmp_path)
    reasons = {item.path.name: item.reason for item in listing.skipped}
    assert "FIFO" in reasons["fifo.gguf"]
    assert "socket" in reasons["socket.gguf"]
    assert not listing.files


def test_links_must_end_below_a_root(tmp_path: Path) -> None:
    outside, models = tmp_path / "outside", tmp_path / "models"
    outside.mkdir()
    models.mkdir()
    (outside / "x.gguf").write_bytes(b"x")
    (models / "x.gguf").symlink_to(outside / "x.gguf")
    (models / "folder").symlink_to(outside)
    (models / "device").symlink_to("/dev/zero")
    listing = show(models)
    assert not listing.files
    assert not listing.folders
    assert len(listing.skipped) == 3
    assert "outside" in listing.skipped[-1].reason
    both = show(models, models, outside)
    assert list(both.files) == ["x.gguf"]
    assert list(both.folders) == ["folder"]


def test_links_that_end_nowhere_are_dangling_and_loops_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "gone.gguf").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    listing = show(tmp_path)
    assert listing.dangling == {"gone.gguf"}
    assert [item.path.name for item in listing.skipped] == ["loop"]


def test_a_name_that_is_not_text_is_skipped(tmp_path: Path) -> None:
    try:
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.gguf"))).write_bytes(b"x")
    except OSError:
        pytest.skip("the file system takes only text")
    listing = show(tmp_path)
    assert not listing.files
    assert listing.skipped[0].path == tmp_path
    listing.skipped[0].reason.encode()


def test_names_are_normalised(tmp_path: Path) -> None:
    (tmp_path / "e\u0301.gguf").write_bytes(b"x")
    (name,) = show(tmp_path).files
    assert name == "\u00e9.gguf"
    assert show(tmp_path).files[name].path.exists()


def test_a_folder_that_cannot_be_read_is_skipped(tmp_path: Path) -> None:
    listing = show(tmp_path / "nothing", tmp_path)
    assert "cannot be read" in listing.skipped[0].reason
