from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from backends.base import Backend
from detect.fingerprint import fingerprint
from detect.scan import inspect_path, scan
from detect.types import Problem
from router import listener
from router.catalog import Catalog
from router.configuration import Configuration
from router.pool import Pool
from router.registry import Registry, build
from router.settings import Settings, load
from router.watch import Sources, Watch, differences
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


@pytest.fixture(params=["events", "polling"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(listener, "is_remote", lambda folder: request.param == "polling")
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


# Models


def watching(folder: Path, backend: Backend, steps: Any, rescan: Any = None) -> None:
    async def main() -> None:
        async with pooled(backend) as pool:
            settings = Settings(models_dir=(folder,))
            catalog = Catalog(Registry([]))
            look = rescan or (lambda: build(scan([folder]), [backend]))
            sources = Sources(lambda: settings, lambda _: look())
            configuration = Configuration(settings)
            watch = Watch(configuration, catalog, pool, sources, lambda _: None)
            async with watch.running():
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

    def follow(pool: Pool, registry: Registry) -> list[str]:
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


# Settings


class Written:
    """Settings that are in a file, with a key of which the models folder is the value."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.applied: list[Settings] = []

    def read(self) -> Settings:
        return load({"config": str(self.file)}, {})

    @contextlib.asynccontextmanager
    async def watched(self, backend: Backend) -> AsyncIterator[tuple[Watch, Configuration]]:
        configuration = Configuration(self.read())

        def rescan(settings: Settings) -> Registry:
            return build(scan(settings.models_dir), [backend], settings.wishes, settings.models)

        async with pooled(backend, budget_bytes=2**30) as pool:
            catalog = Catalog(rescan(configuration.settings))
            sources = Sources(self.read, rescan)
            watch = Watch(configuration, catalog, pool, sources, self.applied.append)
            async with watch.running():
                yield watch, configuration


@pytest.fixture
def written(folder: Path, tmp_path: Path) -> Written:
    file = tmp_path / "options" / "router.toml"
    file.parent.mkdir()
    file.write_text(f'models-dir = "{folder}"\n')
    return Written(file)


def test_a_file_that_is_changed_holds_at_once(written: Written, tmp_path: Path) -> None:
    async def main() -> None:
        async with written.watched(Engines(tmp_path)) as (_, configuration):
            with written.file.open("a") as file:
                file.write("parallel = 7\n")
            await until(lambda: configuration.settings.parallel == 7)
            assert written.applied[-1] is configuration.settings

    run(main())


def test_a_broken_file_changes_nothing_and_says_where_it_is_broken(
    written: Written, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    right = written.file.read_text()

    async def main() -> None:
        async with written.watched(Engines(tmp_path)) as (_, configuration):
            before = configuration.settings
            for content, words in (
                ("parallel =", "Invalid value (at line 2, column 11)."),
                ("paralel = 7", "(line 2) has 'paralel', which is not an option; did you mean"),
                ("parallel = 0", "(line 2) takes a whole number of at least 1, not '0'."),
                (None, "cannot be read: No such file or directory."),
            ):
                if content is None:
                    written.file.unlink()
                else:
                    written.file.write_text(f"{right}{content}\n")
                await until(partial(told, caplog, words))
                assert configuration.settings == before
            written.file.write_text(f"{right}parallel = 7\n")
            await until(lambda: configuration.settings.parallel == 7)

    run(main())
    refusals = [line for line in caplog.messages if line.startswith("The settings stay as they ")]
    assert len(refusals) == 4
    assert all(str(written.file) in line for line in refusals)


def told(caplog: pytest.LogCaptureFixture, words: str) -> bool:
    return any(words in line for line in caplog.messages)


def test_folders_that_are_added_are_watched_and_those_removed_are_not(
    written: Written, tmp_path: Path
) -> None:
    async def main() -> None:
        new = tmp_path / "more"
        new.mkdir()
        raw_gguf.model().write(new / "m" / "m.gguf")
        async with written.watched(Engines(tmp_path)) as (watch, _):
            written.file.write_text(f'models-dir = "{new}"\n')
            await until(lambda: ids(watch) == ["m"])
            raw_gguf.model().write(new / "n" / "n.gguf")
            await until(lambda: ids(watch) == ["m", "n"])

    run(main())


def ids(watch: Watch) -> list[str]:
    return [entry.id for entry in watch._catalog.registry]


def test_who_asks_is_answered_even_if_nothing_is_watched(
    written: Written, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def main() -> None:
        with written.file.open("a") as file:
            file.write("watch = false\n")
        async with written.watched(Engines(tmp_path)) as (watch, configuration):
            watch.ask()
            await until(lambda: "Settings read again; nothing changed." in caplog.messages)
            assert written.applied == [configuration.settings]
            with written.file.open("a") as file:
                file.write("parallel = 7\n")
            watch.ask()
            await until(lambda: configuration.settings.parallel == 7)

    run(main())


def test_without_a_file_who_asks_gets_a_look_at_the_folders(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    looks: list[Settings] = []

    def rescan(settings: Settings) -> Registry:
        looks.append(settings)
        return Registry([])

    async def main() -> None:
        settings = Settings(models_dir=(folder,), watch=False)
        async with pooled(Engines(tmp_path)) as pool:
            sources = Sources(lambda: pytest.fail("nothing to read"), rescan)
            watch = Watch(
                Configuration(settings), Catalog(Registry([])), pool, sources, lambda _: None
            )
            async with watch.running():
                watch.ask()
                await until(lambda: looks)

    run(main())
    (told,) = caplog.messages
    assert told == "There is no --config file to read again; looking through the folders."


def test_models_that_are_preloaded_from_now_on_are_loaded(written: Written, tmp_path: Path) -> None:
    fake = Engines(tmp_path)

    async def main() -> None:
        folder = written.read().models_dir[0]
        raw_gguf.model().write(folder / "m" / "m.gguf")
        async with written.watched(fake) as (watch, _):
            with written.file.open("a") as file:
                file.write("[models.m]\npreload = true\n")
            await until(lambda: [status.state for status in watch._pool.status()] == ["ready"])

    run(main())
