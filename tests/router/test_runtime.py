from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from router.runtime import OWNER, runtime_dir, sweep


def folder(base: Path, name: str, owner: str | None) -> Path:
    made = base / name
    made.mkdir()
    (made / "x.sock").touch()
    if owner is not None:
        (made / OWNER).write_text(owner)
    return made


def dead_pid() -> str:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return str(process.pid)


def test_the_folder_is_private_short_and_gone_afterwards() -> None:
    with runtime_dir() as made:
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
        assert len(str(made / "0123456789.sock")) < 100
        assert (made / OWNER).read_text() == str(os.getpid())
    assert not made.exists()


def test_folders_of_dead_daemons_are_removed_and_no_others(tmp_path: Path) -> None:
    dead = folder(tmp_path, "router-dead", dead_pid())
    kept = [
        folder(tmp_path, "router-living", str(os.getpid())),
        folder(tmp_path, "router-of-others", None),
        folder(tmp_path, "router-strange", "no number"),
        folder(tmp_path, "other", dead_pid()),
    ]
    (tmp_path / "router-link").symlink_to(kept[3])
    sweep(tmp_path)
    assert not dead.exists()
    assert all((made / "x.sock").exists() for made in kept)
