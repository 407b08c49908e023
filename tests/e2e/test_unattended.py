"""What a daemon that nobody watches says when it cannot have what it needs."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import MODELS
from tests.e2e.daemon import serving
from tests.tiny import dialogues as d

GGUF = "parrot-gguf"
CANARIES = ("canary-of-the-key", "canary-of-a-wrong-key", "canary-of-a-body", "canary-of-a-header")


def router(*arguments: str, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Exit status, what was printed, and the one line that was complained."""
    done = subprocess.run(
        [sys.executable, "-m", "router", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 1
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "router.toml"
    file.write_text(f'models-dir = "{tmp_path}"\ncache-dir = "{tmp_path}/cache"\n')
    return file


# Before the start


@pytest.mark.parametrize("command", [("serve",), ("config", "check")])
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("port =", "is not a TOML file: Invalid value (at line 3, column 7)."),
        ("prot = 1", "(line 3) has 'prot', which is not an option; did you mean 'port'?"),
        ("port = 'x'", "port in {file} (line 3) takes a port, not 'x'."),
        ("[models.a]\nengin = 'mlx'", "(line 4) has 'engin', which is not an option; did you mean"),
        ('host = "0.0.0.0"', "host in {file} (line 3) 0.0.0.0 would let everyone"),
        ('llama-server = "/no/such"', "/no/such does not exist"),
    ],
)
def test_a_file_that_cannot_be_honoured_is_one_sentence_with_its_place(
    file: Path, command: tuple[str, ...], line: str, words: str
) -> None:
    file.write_text(f"{file.read_text()}{line}\n")
    status, told, complained = router(*command, "--config", str(file))
    assert status == 2
    assert words.format(file=file) in complained
    assert not told


def test_what_is_fine_is_said_to_be(file: Path) -> None:
    status, told, complained = router("config", "check", environment={"ROUTER_CONFIG": str(file)})
    assert (status, told, complained) == (0, f"{file} is fine: 2 options set.\n", "")


def test_settings_of_a_model_that_is_not_there_are_fine_and_told(file: Path) -> None:
    file.write_text(f"{file.read_text()}[models.parot]\npin = true\n")
    status, told, complained = router("config", "check", "--config", str(file))
    assert (status, complained) == (0, "")
    assert told.splitlines() == [
        f"{file} is fine: 2 options set, and something said of 1 model.",
        f"[models.parot] of {file} (line 3) is about a model that was not found; "
        "`router list` shows all.",
    ]


def test_what_is_set_is_shown_with_where(file: Path) -> None:
    key = {"ROUTER_API_KEY": CANARIES[0]}
    status, told, _ = router("config", "show", "--config", str(file), environment=key)
    assert status == 0
    assert f"cache-dir in {file} (line 2)" in told
    assert "ROUTER_API_KEY" in told
    assert CANARIES[0] not in told


def test_a_port_that_is_taken_is_one_sentence_and_stands_in_the_log_file(
    file: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        kept = tmp_path / "router.log"
        arguments = ("serve", "--config", str(file), "--port", port, "--log-file", str(kept))
        status, _, complained = router(*arguments)
    sentence = (
        f"Cannot listen on 127.0.0.1 port {port}: Address already in use. "
        "--port or ROUTER_PORT takes another one.\n"
    )
    assert (status, complained) == (2, f"router: {sentence}")
    assert kept.read_text().endswith(f" E {sentence}")


# While it runs


def test_a_cache_and_a_log_that_cannot_be_written_are_told_and_models_are_served(
    demo_models: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    cache, kept = tmp_path / "file" / "cache", tmp_path / "file" / "folder" / "router.log"
    flags = ("--log-file", str(kept), "--cache-dir", str(cache))
    with serving(demo_models, flags=flags) as daemon:
        assert d.SENTENCE in daemon.chat(GGUF, d.QUESTION).text
        assert daemon.output.count(f"--log-file {kept} cannot be written: Not a directory.") == 1
        assert daemon.output.count(f"--cache-dir {cache} cannot be written: Not a directory.") == 1


WITHOUT_WHEELS = """\
import importlib.metadata as metadata
found = metadata.version
def version(name):
    if name in ("xllamacpp", "mistralrs"):
        raise metadata.PackageNotFoundError(name)
    return found(name)
metadata.version = version
"""
"""Read by every Python that is started with its folder in PYTHONPATH."""


def test_a_missing_engine_is_named_with_what_to_do_and_the_others_serve(
    demo_models: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_WHEELS)
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    with serving(demo_models, environment=environment) as daemon:
        assert d.SENTENCE in daemon.chat("parrot-mlx-4bit", d.QUESTION).text
        refused = daemon.chat(GGUF, d.QUESTION)
        assert refused.status_code == 503
        error = refused.json()["error"]
        assert error["code"] == "engine_not_installed"
        assert "llama.cpp is not installed" in error["message"]
        assert "pip install" in error["message"]
        assert "llama.cpp is not installed" in " ".join(daemon.output.split())


def test_no_key_header_or_body_gets_into_the_log(demo_models: Path, tmp_path: Path) -> None:
    kept = tmp_path / "state" / "router.log"
    key, wrong, body, header = CANARIES
    wish = ("--engine", "parrot-safetensors=mistral.rs")
    flags = ("--log-file", str(kept), "--log-level", "debug", "--api-key", key, *wish)
    with serving(demo_models, flags=flags) as daemon:
        for model in MODELS:
            for stream in (False, True):
                messages = [{"role": "user", "content": f"{body} {d.QUESTION}"}]
                asked = {"model": model, "messages": messages, "stream": stream, "max_tokens": 4}
                for bearer, status in ((key, 200), (wrong, 401)):
                    headers = {"authorization": f"Bearer {bearer}", "x-other": header}
                    with daemon.client(headers=headers) as client:
                        answer = client.post("/v1/chat/completions", json=asked)
                        assert answer.status_code == status
                        broken = f'{{"model": "{model}", "messages": "{body}'
                        json = {"content-type": "application/json"}
                        client.post("/v1/chat/completions", content=broken, headers=json)
        assert httpx.get(f"{daemon.url}/livez", trust_env=False).status_code == 200
    text = kept.read_text()
    assert " D parrot-gguf | " in text
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert not [canary for canary in CANARIES if canary in text + daemon.output]
