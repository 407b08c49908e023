"""Models come, change and go under the running daemon."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.daemon import Daemon, serving
from tests.slack import soon
from tests.tiny import dialogues as d

NAME = "parrot-gguf"
SEEN_SECONDS = 2.0


@pytest.fixture
def file(demo_models: Path) -> Path:
    (file,) = (demo_models / NAME).glob("*.gguf")
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def daemon(folder: Path) -> Iterator[Daemon]:
    with serving(folder) as running:
        yield running


def put(file: Path, folder: Path) -> Path:
    """A model that appears whole, as downloads do that are renamed when they are complete."""
    (folder / NAME).mkdir(exist_ok=True)
    unfinished = folder / NAME / "unfinished.part"
    shutil.copyfile(file, unfinished)
    return unfinished.replace(folder / NAME / "m.gguf")


def models(daemon: Daemon) -> dict[str, Any]:
    with daemon.client() as client:
        return {m["id"]: m for m in client.get("/router/models").json()["models"]}


def servable(daemon: Daemon) -> list[str]:
    with daemon.client() as client:
        return [model["id"] for model in client.get("/v1/models").json()["data"]]


def problems(daemon: Daemon) -> list[str]:
    return [p["code"] for p in models(daemon).get(NAME, {"problems": []})["problems"]]


def seen(true: Callable[[], object]) -> None:
    soon(true, SEEN_SECONDS)


def pid(daemon: Daemon) -> int | None:
    (instance,) = daemon.status()["instances"]
    number: int = instance["pid"]
    return number


def answer(daemon: Daemon) -> str:
    response = daemon.chat(NAME, d.QUESTION)
    assert response.status_code == 200, response.text
    content: str = response.json()["choices"][0]["message"]["content"]
    return content


def test_a_model_that_is_added_is_served_and_one_that_is_removed_is_not(
    daemon: Daemon, folder: Path, file: Path
) -> None:
    assert servable(daemon) == []
    put(file, folder)
    seen(lambda: servable(daemon) == [NAME])
    assert answer(daemon) == d.SENTENCE
    shutil.rmtree(folder / NAME)
    seen(lambda: models(daemon) == {})
    soon(lambda: daemon.status()["instances"] == [], 5)
    refused = daemon.chat(NAME, d.QUESTION)
    assert refused.status_code == 404
    assert f"{NAME}: removed" in daemon.output


def test_a_running_answer_is_finished_before_its_removed_model_is_unloaded(
    daemon: Daemon, folder: Path, file: Path
) -> None:
    put(file, folder)
    seen(lambda: servable(daemon) == [NAME])
    body = {"model": NAME, "prompt": "a", "max_tokens": 400, "stream": True, "ignore_eos": True}
    with daemon.client() as client, client.stream("POST", "/v1/completions", json=body) as stream:
        lines = stream.iter_lines()
        next(lines)
        shutil.rmtree(folder / NAME)
        seen(lambda: models(daemon) == {})
        rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
    soon(lambda: daemon.status()["instances"] == [], 5)


def test_a_model_whose_file_is_replaced_is_loaded_anew_at_the_next_request(
    daemon: Daemon, folder: Path, file: Path
) -> None:
    put(file, folder)
    seen(lambda: servable(daemon) == [NAME])
    assert answer(daemon) == d.SENTENCE
    before = pid(daemon)
    put(file, folder)
    soon(lambda: daemon.status()["instances"] == [], SEEN_SECONDS + 5)
    assert answer(daemon) == d.SENTENCE
    assert pid(daemon) != before


def test_a_model_that_is_half_written_settles_and_becomes_ready_by_itself(
    daemon: Daemon, folder: Path, file: Path
) -> None:
    content = file.read_bytes()
    (folder / NAME).mkdir()
    with (folder / NAME / "m.gguf").open("wb", buffering=0) as growing:
        growing.write(content[:-1000])
        seen(lambda: problems(daemon) == ["settling"])
        refused = daemon.chat(NAME, d.QUESTION)
        assert refused.status_code == 422
        assert "still being written" in refused.text
        growing.write(content[-1000:])
    seen(lambda: servable(daemon) == [NAME])
    assert answer(daemon) == d.SENTENCE


def test_a_model_that_stays_half_written_is_called_cut_short(
    daemon: Daemon, folder: Path, file: Path
) -> None:
    (folder / NAME).mkdir()
    (folder / NAME / "m.gguf").write_bytes(file.read_bytes()[:-1000])
    seen(lambda: problems(daemon) == ["settling"])
    soon(lambda: problems(daemon) == ["incomplete.truncated"], 5 + SEEN_SECONDS)


def test_other_models_run_on_untouched(daemon: Daemon, folder: Path, file: Path) -> None:
    put(file, folder)
    seen(lambda: servable(daemon) == [NAME])
    answer(daemon)
    before = pid(daemon)
    shutil.copytree(folder / NAME, folder / "another")
    seen(lambda: servable(daemon) == ["another", NAME])
    assert pid(daemon) == before


def test_nothing_is_watched_where_that_is_not_wanted(folder: Path, file: Path) -> None:
    with serving(folder, flags=("--no-watch",)) as daemon:
        put(file, folder)
        with pytest.raises(AssertionError):
            soon(lambda: servable(daemon), 0.4)
        assert httpx.get(f"{daemon.url}/livez", trust_env=False).status_code == 200
