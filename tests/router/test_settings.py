from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from router import option, settings
from router.errors import SettingsError
from router.option import MemoryBudget
from router.settings import OPTIONS, Settings, flag, is_loopback, load, variable

GIB = 2**30


def flags(*arguments: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    settings.add_flags(parser)
    return vars(parser.parse_args(arguments))


def refusal(given: dict[str, Any], environment: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(given, environment or {})
    return str(caught.value)


def toml(folder: Path, text: str) -> str:
    file = folder / "router.toml"
    file.write_text(text)
    return str(file)


def test_without_anything_the_defaults_hold() -> None:
    assert load({}, {}) == load(flags(), {}) == Settings()


def test_flags_go_before_the_environment_that_before_the_file_that_before_the_default(
    tmp_path: Path,
) -> None:
    file = toml(tmp_path, 'parallel = 2\nmax-queue = 3\nport = 4\nlog-level = "debug"\n')
    environment = {"ROUTER_MAX_QUEUE": "33", "ROUTER_PORT": "44"}
    loaded = load(flags("--config", file, "--port", "444"), environment)
    assert loaded.port == 444
    assert loaded.max_queue == 33
    assert loaded.parallel == 2
    assert loaded.log_level == "debug"
    assert loaded.queue_seconds == Settings().queue_seconds


def test_the_environment_may_name_the_file_and_a_flag_another_one(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    environment = {"ROUTER_CONFIG": toml(tmp_path, "port = 1")}
    assert load({}, environment).port == 1
    assert load({"config": toml(tmp_path / "other", "port = 2")}, environment).port == 2


def test_a_file_may_hold_every_option_as_text_number_or_list(tmp_path: Path) -> None:
    file = toml(
        tmp_path,
        f'models-dir = ["{tmp_path}"]\nmemory = "50%"\nqueue_seconds = 1.5\nport = 0\n'
        'engine = ["a=mlx", "b=llama.cpp"]\nallow-host = "box"\n',
    )
    loaded = load({"config": file}, {})
    assert loaded.models_dir == (tmp_path,)
    assert loaded.memory == MemoryBudget(percent=50)
    assert (loaded.queue_seconds, loaded.port) == (1.5, 0)
    assert loaded.engine == (("a", "mlx"), ("b", "llama.cpp"))
    assert loaded.allow_host == ("box",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port = 99999", "port in {file} (line 1) takes a port between 0 and 65535, not '99999'."),
        (
            "\nports = 1",
            "{file} (line 2) has 'ports', which is not an option; did you mean 'port'?",
        ),
        ('config = "x"', "{file} (line 1) has 'config', which is not an option."),
        ("port = [1, 2]", "port in {file} (line 1) takes one value, not ['1', '2']."),
        ("port = true", "port in {file} (line 1) takes a port, not 'True'."),
        ("\nport =", "--config {file} is not a TOML file: Invalid value (at line 2, the end)."),
        ('#\nhost = "0.0.0.0"', "host in {file} (line 2) 0.0.0.0 would let everyone"),
        ('models-dir = "/no/such"', "models-dir in {file} (line 1) /no/such does not exist."),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence_that_names_it(
    tmp_path: Path, text: str, words: str
) -> None:
    file = toml(tmp_path, text)
    sentence = refusal({"config": file})
    assert sentence.startswith(words.format(file=file))
    assert "\n" not in sentence


def test_every_value_tells_where_it_was_written(tmp_path: Path) -> None:
    file = toml(tmp_path, "\nparallel = 2\nport = 3\n[models.a]\npin = true\n")
    loaded = load(flags("--config", file, "--port", "4"), {"ROUTER_MAX_QUEUE": "5"})
    assert loaded.origins == {
        "config": "--config",
        "port": "--port",
        "max_queue": "ROUTER_MAX_QUEUE",
        "parallel": f"parallel in {file} (line 2)",
    }
    assert loaded.models[0].origins == {"pin": f"pin in [models.a] of {file} (line 5)"}


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    assert refusal({"config": str(missing)}) == (
        f"--config {missing} cannot be read: No such file or directory."
    )
    missing.write_bytes(b"\xff")
    assert refusal({"config": str(missing)}).startswith(f"--config {missing} is not a TOML file: ")


def test_lists_in_the_environment_are_separated_and_blanks_left_out(tmp_path: Path) -> None:
    environment = {
        "ROUTER_MODELS_DIR": f"{tmp_path}::{tmp_path.parent}:",
        "ROUTER_ALLOW_HOST": "box, other,",
        "ROUTER_ENGINE": "a=mlx,org/b=mistral.rs",
        "ROUTER_PORT": "",
    }
    loaded = load({}, environment)
    assert loaded.models_dir == (tmp_path, tmp_path.parent)
    assert loaded.allow_host == ("box", "other")
    assert loaded.engine == (("a", "mlx"), ("org/b", "mistral.rs"))
    assert loaded.port == settings.DEFAULT_PORT


def test_a_flag_may_be_given_several_times(tmp_path: Path) -> None:
    given = flags("--models-dir", str(tmp_path), "--models-dir", str(tmp_path.parent))
    assert load(given, {}).models_dir == (tmp_path, tmp_path.parent)


@pytest.mark.parametrize(("text", "value"), [("no", False), ("OFF", False), ("1", True)])
def test_a_switch_is_a_flag_with_its_opposite_and_a_word_elsewhere(
    tmp_path: Path, text: str, value: bool
) -> None:
    assert load(flags("--watch"), {"ROUTER_WATCH": "no"}).watch
    assert not load(flags("--no-watch"), {"ROUTER_WATCH": "yes"}).watch
    assert load(flags(), {"ROUTER_WATCH": text}).watch is value
    assert not load({"config": toml(tmp_path, "watch = false")}, {}).watch


BAD: dict[str, tuple[str, ...]] = {
    "config": ("", "/nowhere/router.toml"),
    "models_dir": ("", "/nowhere/at/all", "~nobody-of-that-name/models"),
    "watch": ("", "maybe", "2"),
    "host": ("0.0.0.0", "", "::", "192.168.0.1", "127.0.0.1.example.com"),
    "port": ("", "http", "-1", "65536", "1.5"),
    "api_key": (),
    "allow_host": (),
    "allow_origin": (),
    "engine": ("", "mlx", "a=vllm", "=mlx", "a="),
    "prefer": ("", "gguf", "gguf=vllm", "quux=mlx", "=mlx"),
    "default_model": ("", " "),
    "llama_server": ("", "~nobody-of-that-name/llama-server"),
    "mistralrs": ("", "~nobody-of-that-name/mistralrs"),
    "memory": ("", "much", "0%", "0", "0G", "101%", "nan%", "x%", "-1G", "1 light year"),
    "context_length": ("", "0", "-5", "32q", "many"),
    "idle_seconds": ("", "-1", "nan", "soon"),
    "isolation": ("", "elsewhere"),
    "prefix_cache": ("", "much", "101%", "nan%", "-1G", "1"),
    "prefix_cache_disk": ("", "-1", "big", "1X"),
    "kv_bits": ("", "3", "16", "many"),
    "parallel": ("", "0", "many"),
    "max_queue": ("", "0", "many"),
    "queue_seconds": ("", "-1", "nan", "soon"),
    "start_seconds": ("", "-1", "nan", "soon"),
    "load_progress": ("", "loud"),
    "first_token_seconds": ("", "-1", "nan", "soon"),
    "next_token_seconds": ("", "-1", "nan", "soon"),
    "stall_seconds": ("", "-1", "nan", "soon"),
    "drain_seconds": ("", "-1", "nan", "soon"),
    "max_body": ("", "-1", "big", "1X"),
    "cache_dir": ("", "~nobody-of-that-name/cache"),
    "log_level": ("", "loud"),
    "log_file": ("", "~nobody-of-that-name/router.log"),
}
"""Values that cannot be honoured; none where every text is one."""


def test_every_option_is_tried_with_bad_values() -> None:
    assert list(BAD) == [option.name for option in OPTIONS]


@pytest.mark.parametrize(
    ("option", "value"),
    [(option, value) for option in OPTIONS for value in BAD[option.name]],
    ids=lambda v: v.name if isinstance(v, dataclasses.Field) else repr(v),
)
def test_a_bad_value_is_one_sentence_that_names_the_option(
    option: dataclasses.Field[Any], value: str
) -> None:
    given = [value] if option.metadata["repeated"] else value
    sentence = refusal({option.name: given})
    assert sentence.startswith(flag(option) + " ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    if value:
        assert value in sentence
        assert refusal({}, {variable(option): value}).startswith(variable(option))


def test_of_several_values_the_bad_one_is_named() -> None:
    sentence = refusal({"engine": ["a=mlx", "b=vllm"]})
    assert sentence.endswith("not 'b=vllm'.")


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_is_documented_once(option: dataclasses.Field[Any]) -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.RawTextHelpFormatter)
    settings.add_flags(parser)
    text = parser.format_help()
    switch = isinstance(option.default, bool)
    value = f", --no-{flag(option)[2:]}" if switch else f" {option.metadata['metavar']}"
    assert len(re.findall(rf"^  {flag(option)}{value}\b", text, re.M)) == 1
    assert text.count(f"[{variable(option)}]") == 1
    assert str(option.metadata["help"]).endswith((".", "command line."))


def test_help_tells_the_defaults() -> None:
    parser = argparse.ArgumentParser()
    settings.add_flags(parser, "port", "memory")
    text = " ".join(parser.format_help().split())
    assert "Default: 8642. [ROUTER_PORT]" in text
    assert "Default: 80%. [ROUTER_MEMORY]" in text
    assert "--host" not in text


def test_the_api_key_is_printed_nowhere() -> None:
    loaded = load({"api_key": "hunter2", "host": "0.0.0.0"}, {})
    assert loaded.api_key == "hunter2"
    assert "hunter2" not in repr(loaded)
    assert "hunter2" not in str(loaded)


def test_an_api_key_of_a_wrong_kind_is_not_sent_back(tmp_path: Path) -> None:
    file = toml(tmp_path, 'api-key = ["hunter2"]')
    assert "hunter2" not in refusal({"config": file})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost", "LocalHost"])
def test_this_machines_own_addresses_need_no_key(host: str) -> None:
    assert is_loopback(host)
    assert load({"host": host}, {}).host == host


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "10.0.0.1", "127.0.0.1.example.com", "127.example.com"]
)
def test_any_other_address_needs_a_key(host: str) -> None:
    assert not is_loopback(host)
    assert "--api-key" in refusal({"host": host})
    assert "--api-key" in refusal({"host": host, "api_key": ""})
    assert load({"host": host, "api_key": "k"}, {}).host == host


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("512", 512),
        ("1k", 1024),
        ("512M", 512 * 2**20),
        ("16G", 16 * GIB),
        ("16 GiB", 16 * GIB),
        ("16gb", 16 * GIB),
        ("1.5G", GIB * 3 // 2),
        ("2T", 2**41),
    ],
)
def test_sizes_are_read_in_binary_units(text: str, count: int) -> None:
    assert option.parse_size(text) == count


@pytest.mark.parametrize("text", ["0", "1000", "1K", "64M", "1536M", "16G", "2T"])
def test_a_size_is_written_as_it_is_read(text: str) -> None:
    assert option.size_text(option.parse_size(text)) == text


def test_a_budget_is_a_size_or_a_share() -> None:
    assert load({"memory": "16G"}, {}).memory.resolve(64 * GIB) == 16 * GIB
    assert load({"memory": "25%"}, {}).memory.resolve(64 * GIB) == 16 * GIB
    assert str(MemoryBudget(percent=80)) == "80%"


def test_a_path_is_made_absolute_and_a_tilde_is_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert option.parse_path("~/m") == Path("/home/someone/m")
    assert option.parse_path("m") == Path.cwd() / "m"
