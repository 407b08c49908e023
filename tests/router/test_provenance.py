from __future__ import annotations

from pathlib import Path

from router.provenance import fine, provenance
from router.settings import OPTIONS, Settings, flag, load

TEXT = """\
models-dir = ["{folder}"]
engine = ["org/a=mlx", "b=llama.cpp"]
[models."org/a"]
idle-seconds = 0.5
pin = true
"""


def loaded(folder: Path) -> Settings:
    file = folder / "router.toml"
    file.write_text(TEXT.format(folder=folder))
    flags = {"config": str(file), "max_body": "512K", "memory": "16G"}
    return load(flags, {"ROUTER_API_KEY": "hunter2"})


def row(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return [cell for cell in line.split("  ") if cell][1:]


def test_every_option_is_shown_with_its_value_and_where_it_was_written(tmp_path: Path) -> None:
    text, file = provenance(loaded(tmp_path)), tmp_path / "router.toml"
    shown = {option.name: row(text, flag(option)[2:]) for option in OPTIONS}
    assert [cell.strip() for cell in shown["port"]] == ["8642", "default"]
    assert [cell.strip() for cell in shown["max_body"]] == ["512K", "--max-body"]
    assert [cell.strip() for cell in shown["memory"]] == ["16G", "--memory"]
    assert shown["engine"][0].strip() == "org/a=mlx, b=llama.cpp"
    assert shown["models_dir"][1].strip() == f"models-dir in {file} (line 1)"
    pin = row(text, "models.org/a.pin")
    assert [cell.strip() for cell in pin] == ["yes", f"pin in [models.org/a] of {file} (line 5)"]
    assert row(text, "models.org/a.idle-seconds")[0].strip() == "0.5"


def test_what_is_secret_is_not_shown(tmp_path: Path) -> None:
    text = provenance(loaded(tmp_path))
    assert "hunter2" not in text
    assert row(text, "api-key")[-1].strip() == "ROUTER_API_KEY"


def test_fine_settings_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "router.toml"
    assert fine(loaded(tmp_path)) == (
        f"{file} is fine: 5 options set, and something said of 1 model."
    )
    assert fine(Settings()) == "The settings are fine: 0 options set."
