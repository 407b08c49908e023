"""The case the project exists for: no model is ever handed to an engine that cannot run it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Variant
from tests.e2e.daemon import Daemon, serving
from tests.tiny import dialogues as d


@pytest.fixture(scope="module")
def mixed(variant: Variant, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as people have them: good models, broken ones, and ones that nothing runs."""
    root = tmp_path_factory.mktemp("mixed")
    for name in ("mlx-mxfp4", "gguf-q8_0"):
        shutil.copytree(variant(name), root / name)
    pointer = root / "lfs-pointer"
    shutil.copytree(variant("safetensors"), pointer)
    (pointer / "model.safetensors").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 3100000000\n"
    )
    strange = root / "strange"
    shutil.copytree(variant("safetensors"), strange)
    config = json.loads((strange / "config.json").read_text())
    config |= {"model_type": "quux", "architectures": ["QuuxForCausalLM"]}
    (strange / "config.json").write_text(json.dumps(config))
    return root


@pytest.fixture(scope="module")
def daemon(mixed: Path) -> Iterator[Daemon]:
    with serving(mixed) as running:
        yield running


def router(*arguments: str, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "router", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "ROUTER_CACHE_DIR": str(cache)},
        check=False,
    )


def test_mxfp4_is_served_by_mlx_and_no_tensor_is_ever_missed(daemon: Daemon) -> None:
    answer = daemon.chat("mlx-mxfp4", d.QUESTION)
    assert answer.json()["choices"][0]["message"]["content"] == d.SENTENCE
    assert "cannot find tensor" not in daemon.output + answer.text


def test_inspect_says_that_mistral_rs_cannot_and_why(mixed: Path, tmp_path: Path) -> None:
    shown = router("inspect", str(mixed / "mlx-mxfp4"), cache=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "cannot find tensor" not in shown.stdout
    told = router("inspect", str(mixed / "mlx-mxfp4"), "--json", cache=tmp_path)
    value = json.loads(told.stdout)
    verdicts = {verdict["engine"]: verdict for verdict in value["verdicts"]}
    assert value["engine"] == "mlx"
    assert verdicts["mlx"]["ok"]
    assert verdicts["mistral.rs"]["ok"] is False
    assert verdicts["mistral.rs"]["code"] == "unsupported.quant"
    assert "mxfp4" in verdicts["mistral.rs"]["reason"]
    assert verdicts["llama.cpp"]["code"] == "unsupported.format"


def test_a_wish_that_the_verdict_forbids_is_not_followed(mixed: Path) -> None:
    with serving(mixed, flags=("--engine", "mlx-mxfp4=mistral.rs")) as daemon:
        answer = daemon.chat("mlx-mxfp4", d.QUESTION)
        assert answer.json()["choices"][0]["message"]["content"] == d.SENTENCE


def test_a_model_without_an_engine_is_refused_with_a_reason_for_each(daemon: Daemon) -> None:
    answer = daemon.chat("strange", d.QUESTION)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["code"] == "model_not_servable"
    verdicts = {verdict["engine"]: verdict["code"] for verdict in error["verdicts"]}
    assert verdicts == {
        "mlx": "unsupported.arch",
        "llama.cpp": "unsupported.format",
        "mistral.rs": "unsupported.arch",
    }
    assert "quux" in error["message"]


def test_a_broken_model_is_listed_with_its_problem_and_the_rest_works(daemon: Daemon) -> None:
    (row,) = [line for line in daemon.lines if line.startswith("  lfs-pointer: ")]
    assert "Git-LFS pointer" in row
    answer = daemon.chat("lfs-pointer", d.QUESTION)
    assert answer.status_code == 422
    assert "git lfs pull" in answer.json()["error"]["message"]
    assert daemon.chat("gguf-q8_0", d.QUESTION).status_code == 200


def test_http_shows_all_models_and_lists_only_the_servable(daemon: Daemon, mixed: Path) -> None:
    with daemon.client() as api:
        listed = {model["id"] for model in api.get("/v1/models").json()["data"]}
        everything: dict[str, Any] = api.get("/router/models").json()
        one = api.get("/router/models/strange").json()
    assert listed == {"mlx-mxfp4", "gguf-q8_0"}
    assert {model["id"] for model in everything["models"]} == {
        "mlx-mxfp4", "gguf-q8_0", "lfs-pointer", "strange"
    }  # fmt: skip
    assert one["engine"] is None
    assert str(mixed) not in json.dumps(one["verdicts"])


def test_the_command_line_ends_with_3_when_nothing_can_run_it(mixed: Path, tmp_path: Path) -> None:
    shown = router("inspect", str(mixed / "strange"), cache=tmp_path)
    assert shown.returncode == 3
    assert "No engine here can run it" in " ".join(shown.stdout.split())


def test_list_shows_the_same_without_a_daemon(mixed: Path, tmp_path: Path) -> None:
    shown = router("list", "--models-dir", str(mixed), "--json", cache=tmp_path)
    models = {model["id"]: model["engine"] for model in json.loads(shown.stdout)["models"]}
    assert models == {
        "mlx-mxfp4": "mlx",
        "gguf-q8_0": "llama.cpp",
        "lfs-pointer": None,
        "strange": None,
    }


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("list", "--models-dir", "/nowhere/at/all"), 2, "--models-dir /nowhere/at/all"),
        (("inspect", "/nowhere/at/all"), 2, "no file or folder"),
        (("serve", "--port", "99999"), 2, "--port"),
        (("serve", "--host", "0.0.0.0"), 2, "--api-key"),
        (("serve", "--engine", "x=vllm"), 2, "MODEL=ENGINE"),
        (("serve", "--memory", "much"), 2, "--memory"),
        (("list", "--models-dir", __file__), 2, "is a file"),
        (("list", "/nowhere/at/all"), 2, "does not exist"),
        (("list", ".", "--llama-server", "/nowhere/llama-server"), 2, "does not exist"),
        (("inspect", ".", "--context-length", "x"), 2, "8k"),
    ],
)
def test_errors_are_one_sentence_and_a_status(
    arguments: tuple[str, ...], status: int, words: str, tmp_path: Path
) -> None:
    shown = router(*arguments, cache=tmp_path)
    assert shown.returncode == status, shown.stderr
    assert words in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
    assert "Traceback" not in shown.stderr + shown.stdout


def test_doctor_names_engines_and_versions(tmp_path: Path) -> None:
    shown = router("doctor", "--json", cache=tmp_path)
    engines = {engine["engine"]: engine for engine in json.loads(shown.stdout)["engines"]}
    assert set(engines) == {"mlx", "llama.cpp", "mistral.rs"}
    assert all(engine["usable"] and engine["version"] for engine in engines.values())
    missing = router("doctor", "--llama-server", "/nowhere/llama-server", cache=tmp_path)
    assert "/nowhere/llama-server does not exist" in " ".join(missing.stdout.split())
    assert missing.returncode == 1


def test_version_is_printed(tmp_path: Path) -> None:
    shown = router("--version", cache=tmp_path)
    assert shown.returncode == 0
    assert shown.stdout.startswith("router 0.")
