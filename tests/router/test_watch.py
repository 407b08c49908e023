from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backends.base import Backend
from detect.fingerprint import fingerprint
from detect.scan import inspect_path, scan
from detect.types import Problem
from router import watch
from router.catalog import Catalog
from router.pool import Pool
from router.registry import Registry, build
from router.watch import Watch, differences, is_remote
from tests.detect import raw_gguf, raw_safetensors
from tests.fake_engine import model
from tests.router.entries import entry, no
from tests.router.pools import Engines, pooled
from tests.slack import run
from tests.waiting import until

# What is told


def test_what_came_changed_and_went_is_told_in_a_line_each() -> None:
    old = Registry([entry("a"), entry("b"), entry("c")])
    changed = replace(entry("b"), fingerprint=(("b.gguf", 1, 1, 1),))
    new = Registry([changed, entry("c"), entry("d"), entry("e", no("fake"))])
    assert differences(old, new) == [
        "a: removed",
        "b: changed, for fake",
        "d: found, for fake",
        "e: found, and no engine here can run it",
    ]
    assert differences(new, new) == []


def test_a_model_that_is_still_being_written_says_so() -> None:
    writing = Problem("settling", "m.gguf is still being written.")
    new = Registry([entry("m", no("fake"), problems=(writing,))])
    assert differences(Registry([]), new) == ["m: found, m.gguf is still being written."]
    assert next(iter(new)).settling


# Fingerprints


def test_a_gguf_has_no_part_in_its_neighbours(tmp_path: Path) -> None:
    path = raw_gguf.model().write(tmp_path / "a.gguf")
    before = fingerprint(inspect_path(path))
    raw_gguf.model().write(tmp_path / "b.gguf")
    assert fingerprint(inspect_path(path)) == before
    os.utime(path, (1, 1))
    assert fingerprint(inspect_path(path)) != before


def test_a_folder_is_another_model_when_its_tokenizer_is(tmp_path: Path) -> None:
    info = inspect_path(raw_safetensors.write_model(tmp_path / "m", raw_safetensors.dense()))
    before = fingerprint(info)
    (tmp_path / "m" / "tokenizer.json").write_text('{"a": 1}')
    assert fingerprint(info) != before
    (tmp_path / "m" / "model.safetensors").unlink()
    assert len(fingerprint(info)) == 2


def test_files_that_are_not_there_have_no_fingerprint() -> None:
    assert fingerprint(model("m")) == ()


# Where events do not reach


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


# The watch itself


@pytest.fixture(params=["events", "polling"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(watch, "is_remote", lambda folder: request.param == "polling")
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def watching(folder: Path, backend: Backend, steps: Any, rescan: Any = None) -> None:
    async def main() -> None:
        async with pooled(backend) as pool:
            catalog = Catalog(Registry([]))
            look = rescan or (lambda: build(scan([folder]), [backend]))
            async with Watch([folder], look, catalog, pool).running():
                await steps(catalog)

    run(main())


def test_the_registry_follows_the_folder(folder: Path, tmp_path: Path) -> None:
    async def steps(catalog: Catalog) -> None:
        path = raw_gguf.model().write(folder / "m" / "m.gguf")
        await until(lambda: [entry.id for entry in catalog.registry] == ["m"])
        path.unlink()
        await until(lambda: len(catalog.registry) == 0)

    watching(folder, Engines(tmp_path), steps)


def test_a_look_that_fails_leaves_the_registry_and_the_watch(folder: Path, tmp_path: Path) -> None:
    looks = iter("a!b")

    def look() -> Registry:
        name = next(looks, "b")
        if name == "!":
            raise OSError("no")
        return Registry([entry(name)])

    async def steps(catalog: Catalog) -> None:
        seen: set[str] = set()
        for number in range(1000):
            (folder / f"{number}.txt").write_text("x")
            seen.update(entry.id for entry in catalog.registry)
            if seen == {"a", "b"}:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(seen)

    watching(folder, Engines(tmp_path), steps, look)


def test_a_registry_that_cannot_be_followed_does_not_end_the_watch(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed: list[Registry] = []

    def follow(pool: Pool, registry: Registry) -> None:
        followed.append(registry)
        raise RuntimeError("no")

    async def steps(catalog: Catalog) -> None:
        await until(lambda: len(followed) == 1)
        (folder / "news.txt").write_text("x")
        await until(lambda: len(followed) > 1)

    monkeypatch.setattr(Pool, "follow", follow)
    watching(folder, Engines(tmp_path), steps)


def test_a_look_that_takes_long_does_not_hold_up_the_end(folder: Path, tmp_path: Path) -> None:
    looking, enough = threading.Event(), threading.Event()

    def look() -> Registry:
        looking.set()
        assert enough.wait(60)
        return Registry([])

    async def steps(catalog: Catalog) -> None:
        await until(looking.is_set)

    watching(folder, Engines(tmp_path), steps, look)
    enough.set()
