from __future__ import annotations

import os
import threading
from pathlib import Path

from router.known_file import REST_SECONDS, KnownFile


def test_a_file_is_changed_until_it_was_looked_at_and_when_it_is_another(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("one")
    file = KnownFile(path)
    assert file.changed()
    file.look()
    assert not file.changed()
    os.utime(path, (1, 1))
    assert not file.changed()
    path.write_text("two")
    assert file.changed()
    file.look()
    path.unlink()
    assert file.changed()
    file.look()
    assert not file.changed()
    path.write_text("two")
    assert file.changed()


def test_no_file_and_a_pipe_never_change(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for nothing in (KnownFile(None), KnownFile(tmp_path / "pipe")):
        assert not nothing.changed()
        assert nothing.path is None
        assert nothing.folders == ()


def test_a_link_is_changed_where_it_lies_and_where_it_leads(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    (tmp_path / "there" / "f").write_text("one")
    (tmp_path / "here" / "f").symlink_to(tmp_path / "there" / "f")
    file = KnownFile(tmp_path / "here" / "f")
    file.look()
    assert file.folders == (tmp_path / "here", (tmp_path / "there").resolve())
    (tmp_path / "there" / "f").write_text("two")
    assert file.changed()


def test_a_file_that_is_being_written_is_looked_at_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("")
    file = KnownFile(path)
    writing = threading.Timer(REST_SECONDS / 2, path.write_text, ["whole"])
    writing.start()
    file.look()
    writing.join()
    assert not file.changed()
