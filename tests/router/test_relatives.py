from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backends.base import Support, Verdict
from detect.types import ModelInfo, Skipped, WeightFormat
from router.entry import ModelEntry
from router.model_settings import ModelSettings
from router.preference import Choice
from router.relatives import with_relatives


def entry(name: str, folder: Path, **settings: Any) -> ModelEntry:
    info = ModelInfo(id=name, path=folder, files=(), format=WeightFormat.MLX)
    verdicts = (
        Verdict(engine="mlx", support=Support.YES),
        Verdict(engine="mistral.rs", support=Support.YES),
    )
    return ModelEntry(
        id=name,
        info=info,
        verdicts=verdicts,
        choice=Choice("mlx", "first"),
        aliases=(f"{name}-alias",),
        settings=ModelSettings(id=name, **settings),
        fingerprint=((name, 1, 1, 1),),
    )


def adapter(folder: Path, **config: Any) -> Skipped:
    folder.mkdir()
    (folder / "adapters.safetensors").write_bytes(b"weights")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return Skipped(folder, "missing.base_model", "an adapter")


def test_an_adapter_that_names_its_base_is_a_model_of_its_own(tmp_path: Path) -> None:
    base = entry("org/base", tmp_path / "base")
    for claim in (str(tmp_path / "base"), "Org/Base"):
        folder = tmp_path / f"mine-{len(claim)}"
        found = with_relatives([base], [adapter(folder, model=claim)], ())
        assert [one.id for one in found] == ["org/base", folder.name]
        mine = found[1]
        assert (mine.adapter, mine.info.folder) == (folder, base.info.folder)
        assert mine.choice.engine == "mlx"
        assert mine.aliases == mine.info.aliases == ()
        assert [verdict.ok for verdict in mine.verdicts] == [True, False]
        assert not mine.runs_like(base)


@pytest.mark.parametrize(
    "config", [{}, {"model": "nobody"}, {"model": ["org/base"]}, {"model": ""}]
)
def test_an_adapter_of_nobody_known_is_left_out(tmp_path: Path, config: dict[str, Any]) -> None:
    base = entry("org/base", tmp_path / "base")
    assert len(with_relatives([base], [adapter(tmp_path / "mine", **config)], ())) == 1


def test_what_an_adapters_file_says_is_not_trusted_to_be_json(tmp_path: Path) -> None:
    base = entry("org/base", tmp_path / "base")
    skipped = adapter(tmp_path / "mine")
    for text in ("", "[", "[" * 100_000, "7"):
        (tmp_path / "mine" / "adapter_config.json").write_text(text)
        assert len(with_relatives([base], [skipped], ())) == 1


def test_the_settings_name_an_adapter_anywhere(tmp_path: Path) -> None:
    base = entry("org/base", tmp_path / "base")
    skipped = adapter(tmp_path / "mine", model="org/base")
    said = ModelSettings(
        id="poet", base="org/base-alias", adapter=tmp_path / "mine", aliases=("gpt-4o",)
    )
    found = with_relatives([base], [skipped], [said])
    assert [one.id for one in found] == ["org/base", "poet"]
    assert found[1].aliases == ("gpt-4o",)
    assert found[1].settings is said


def test_an_adapter_that_changes_is_another_one(tmp_path: Path) -> None:
    base = entry("org/base", tmp_path / "base")
    skipped = adapter(tmp_path / "mine", model="org/base")
    before = with_relatives([base], [skipped], ())[1]
    (tmp_path / "mine" / "adapters.safetensors").write_bytes(b"other weights")
    assert not with_relatives([base], [skipped], ())[1].runs_like(before)


def test_an_adapter_of_what_mlx_cannot_run_is_not_servable(tmp_path: Path) -> None:
    base = entry("org/base", tmp_path / "base")
    no = Verdict(engine="mlx", support=Support.NO, code="x", reason="cannot")
    verdicts = (no, base.verdicts[1])
    from dataclasses import replace

    found = with_relatives(
        [replace(base, verdicts=verdicts)], [adapter(tmp_path / "mine", model="org/base")], ()
    )
    assert not found[1].servable


def test_a_draft_is_found_by_name_and_changes_how_a_model_runs(tmp_path: Path) -> None:
    small = entry("small", tmp_path / "small")
    large = entry("large", tmp_path / "large", draft="small-alias")
    lost = entry("lost", tmp_path / "lost", draft="nobody")
    found = with_relatives([small, large, lost], (), ())
    assert [one.draft for one in found] == [None, tmp_path / "small", None]
    assert not found[1].runs_like(large)
