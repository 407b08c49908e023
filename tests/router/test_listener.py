from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest

from router import listener
from router.listener import Listener, is_remote
from tests.slack import run, within
from tests.waiting import until


@pytest.mark.parametrize(
    ("kind", "remote"), [("ext4", False), ("apfs", False), ("nfs4", True), ("fuse.sshfs", True)]
)
def test_file_systems_that_others_write_to_are_polled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, remote: bool
) -> None:
    mounts = [
        SimpleNamespace(mountpoint="/", fstype="nfs"),
        SimpleNamespace(mountpoint=str(tmp_path.resolve()), fstype=kind),
    ]
    monkeypatch.setattr("psutil.disk_partitions", lambda **_: mounts)
    assert is_remote(tmp_path / "models") is remote


def test_of_two_file_systems_at_one_place_the_one_above_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path.resolve())
    mounts = [SimpleNamespace(mountpoint=place, fstype=kind) for kind in ("autofs", "nfs4")]
    monkeypatch.setattr("psutil.disk_partitions", lambda **_: mounts)
    assert is_remote(tmp_path / "models")


def test_a_folder_that_cannot_be_polled_is_told_once_and_heard_when_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "POLL_MILLISECONDS", 20)
    monkeypatch.setattr(listener, "is_remote", lambda folder: True)
    folder = tmp_path / "folder"
    heard = asyncio.Event()

    async def main() -> None:
        task = asyncio.create_task(Listener("The folder", [folder]).listen(heard.set))
        async with asyncio.timeout(within(5)):
            await until(lambda: caplog.messages)
            folder.mkdir()
            for number in itertools.count():
                (folder / "news.txt").write_text("x" * number)
                await asyncio.sleep(0.02)
                if heard.is_set():
                    break
        task.cancel()

    run(main())
    assert [line.partition(": ")[0] for line in caplog.messages] == ["The folder"]


def test_where_there_is_nothing_to_listen_to_it_ends() -> None:
    run(Listener("Nothing", []).listen(lambda: None))
