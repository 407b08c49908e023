from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detect.listing import list_folder
from detect.pooling import read_pooling
from detect.types import Pooling

TRANSFORMER = {"path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
NORMALIZE = {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
LAST = {"pooling_mode_cls_token": False, "pooling_mode_lasttoken": True}


def pooling(folder: Path, modules: Any, config: Any = None) -> Pooling | None:
    (folder / "1_Pooling").mkdir(exist_ok=True)
    for name, value in (("modules.json", modules), ("1_Pooling/config.json", config)):
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        (folder / name).write_bytes(raw)
    return read_pooling(list_folder(folder, (folder.resolve(),)))


def test_as_qwen3_embedding_says_it(tmp_path: Path) -> None:
    found = pooling(tmp_path, [TRANSFORMER, POOLING, NORMALIZE], LAST)
    assert found == Pooling(modes=("lasttoken",), normalized=True)


@pytest.mark.parametrize(
    ("config", "modes"),
    [
        ({"pooling_mode_mean_tokens": True}, ("mean",)),
        ({"pooling_mode_cls_token": True}, ("cls",)),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, ("mean", "max")),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, ("mean_sqrt_len",)),
        ({"pooling_mode": "lasttoken"}, ("lasttoken",)),
        ({"pooling_mode": ["cls", "mean"]}, ("cls", "mean")),
        ({"pooling_mode_mean_tokens": 1}, ()),
        ({}, ()),
        ([], ()),
        (b"{", ()),
    ],
)
def test_modes_have_short_names(tmp_path: Path, config: Any, modes: tuple[str, ...]) -> None:
    assert pooling(tmp_path, [TRANSFORMER, POOLING], config) == Pooling(modes=modes)


def test_other_modules_and_left_out_prompts_are_told(tmp_path: Path) -> None:
    dense = {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    found = pooling(tmp_path, [TRANSFORMER, POOLING, dense], {**LAST, "include_prompt": False})
    assert found == Pooling(modes=("lasttoken",), others=("Dense",), with_prompt=False)


@pytest.mark.parametrize("modules", [b"", b"\xff", {}, [], [1], [{"type": 1, "path": ""}], None])
def test_what_is_no_list_of_modules_says_nothing(tmp_path: Path, modules: Any) -> None:
    assert pooling(tmp_path, modules, LAST) is None


@pytest.mark.parametrize(
    "path", ["../secret", "/etc", "", "1_Pooling/..", "\0", "2_Gone", "a" * 300]
)
def test_no_path_leads_out_of_the_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "config.json").write_text(json.dumps(LAST))
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(json.dumps(LAST))
    found = pooling(tmp_path / "m", [TRANSFORMER, {**POOLING, "path": path}], LAST)
    assert found == Pooling(modes=())


def test_a_link_to_somewhere_else_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.json").write_text(json.dumps(LAST))
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "modules.json").write_text(json.dumps([POOLING]))
    (tmp_path / "m" / "1_Pooling").symlink_to(tmp_path / "elsewhere")
    folder = tmp_path / "m"
    assert read_pooling(list_folder(folder, (folder.resolve(),))) == Pooling(modes=())
