"""The user's own engine binaries: programs that answer like them, as far as we ask."""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from backends.base import Backend, InstanceOptions, InstanceState
from backends.llama_cpp import LlamaCppBackend
from backends.mistral_rs.backend import MistralRsBackend
from detect.scan import inspect_path
from tests.conftest import Variant
from tests.detect import raw_gguf
from tests.fake_engine import PROGRAM
from tests.slack import run

BINARY = """#!{python}
import json, os, sys
argv = sys.argv[1:]
if "--version" in argv:
    print("{version}"); sys.exit()
if "--help" in argv:
    print("--no-ui --max-seqs --kv-unified --jinja --offline"); sys.exit()
weights = argv[argv.index("--model" if "--model" in argv else "-m") + 1]
if "router-probe-" in weights:
    file = os.path.join(weights, argv[argv.index("-f") + 1]) if "-f" in argv else weights
    if os.path.isdir(file):
        file = os.path.join(file, "config.json")
    known = b"llama" in open(file, "rb").read().lower()
    sys.exit("key not found in model: x" if known else "{refusal}")
with open("{record}", "w") as record:
    json.dump([argv, os.getcwd(), sorted(os.walk("."))], record)
host = argv[argv.index("--host") + 1]
where = ["--unix", host] if host.endswith(".sock") else ["--port", argv[argv.index("--port") + 1]]
with open("{behaviour}", "w") as behaviour:
    behaviour.write("{{}}")
os.execv(
    sys.executable,
    [sys.executable, "-S", "{program}", *where, "--behaviour", "{behaviour}",
     "--record", "{record}.events"],
)
"""


def binary(folder: Path, name: str, version: str, refusal: str) -> Path:
    path = folder / name
    path.write_text(
        BINARY.format(
            python=sys.executable,
            version=version,
            refusal=refusal,
            record=folder / "record.json",
            behaviour=folder / "behaviour.json",
            program=PROGRAM,
        )
    )
    path.chmod(0o755)
    return path


def llama_server(folder: Path) -> LlamaCppBackend:
    program = binary(folder, "llama-server", "version: 11434 (abc)", "unknown model architecture")
    return LlamaCppBackend(binary=program, cache_dir=folder / "cache")


def mistralrs(folder: Path) -> MistralRsBackend:
    refusal = "Unsupported Hugging Face Transformers; Unknown normal-model GGUF architecture"
    program = binary(folder, "mistralrs", "mistralrs 0.9.5", refusal)
    return MistralRsBackend(binary=program, cache_dir=folder / "cache")


def started(backend: Backend, model_id: str, path: Path, folder: Path) -> Any:
    """What the binary was started with; it was ready in between and is gone again."""
    runtime = folder / "run"
    runtime.mkdir(mode=0o700)

    async def main() -> None:
        options = InstanceOptions(runtime_dir=runtime, parallel=3)
        instance = backend.create(model_id, inspect_path(path), options)
        await instance.ensure_ready()
        assert instance.status().state is InstanceState.READY
        await instance.stop(1)
        assert instance.status().state is InstanceState.STOPPED

    run(main())
    return json.loads((folder / "record.json").read_text())


def test_llama_server_is_found_asked_and_served_on_a_unix_socket(
    variant: Variant, tmp_path: Path
) -> None:
    backend = llama_server(tmp_path)
    found = backend.installation()
    assert (found.how, found.version) == ("binary", "11434")
    argv, _, _ = started(backend, "org/parrot", variant("gguf-q8_0"), tmp_path)
    flags = dict(itertools.pairwise(argv))
    assert flags["--host"].endswith(".sock")
    assert flags["--alias"] == "org/parrot"
    assert flags["--ctx-size"] == "2048"
    assert flags["--parallel"] == "3"
    assert {"--jinja", "--offline", "--no-ui", "--kv-unified"} <= set(argv)
    assert "--cache-ram" not in argv  # this build does not list it


def test_llama_server_tells_which_architectures_it_knows(tmp_path: Path) -> None:
    backend = llama_server(tmp_path)
    known = inspect_path(raw_gguf.model().write(tmp_path / "a.gguf"))
    unknown = inspect_path(raw_gguf.model(architecture="quux").write(tmp_path / "b.gguf"))
    assert backend.verdict(known).ok
    verdict = backend.verdict(unknown)
    assert verdict.code == "unsupported.arch"
    assert "11434" in verdict.reason


def test_mistralrs_serves_a_folder_under_its_served_name(variant: Variant, tmp_path: Path) -> None:
    backend = mistralrs(tmp_path)
    argv, cwd, _ = started(backend, "org/parrot", variant("safetensors"), tmp_path)
    assert argv[argv.index("-m") + 1] == "org/parrot"
    assert argv[argv.index("--host") + 1] == "127.0.0.1"
    assert os.path.realpath(Path(cwd, "org/parrot")) == str(variant("safetensors").resolve())


def test_mistralrs_sees_nothing_but_the_gguf_files(variant: Variant, tmp_path: Path) -> None:
    backend = mistralrs(tmp_path)
    argv, _, walked = started(backend, "parrot", variant("gguf-q8_0"), tmp_path)
    assert argv[argv.index("-f") + 1] == "parrot-Q8_0.gguf"
    assert [(folder, sorted(files)) for folder, _, files in walked] == [
        (".", []),
        ("./parrot", ["parrot-Q8_0.gguf"]),
    ]


@pytest.mark.parametrize(("variant_name", "kind"), [("safetensors", "hf"), ("gguf-f16", "gguf")])
def test_mistralrs_tells_which_architectures_it_knows(
    variant: Variant, tmp_path: Path, variant_name: str, kind: str
) -> None:
    backend = mistralrs(tmp_path)
    assert backend.verdict(inspect_path(variant(variant_name))).ok
    answers = json.loads((tmp_path / "cache" / "mistral.rs-architectures.json").read_text())
    assert set(answers["answers"].values()) == {"text"}
    assert next(iter(answers["answers"])).startswith(kind)


def test_binaries_on_path_come_before_the_wheels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama_server(tmp_path)
    mistralrs(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    backends: tuple[Backend, ...] = (
        LlamaCppBackend(binary=None, cache_dir=tmp_path),
        MistralRsBackend(binary=None, cache_dir=tmp_path),
    )
    assert [backend.installation().how for backend in backends] == ["binary", "binary"]
    assert [backend.installation().version for backend in backends] == ["11434", "0.9.5"]
