from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from router.errors import SettingsError
from router.model_settings import ModelSettings
from router.option import MemoryBudget
from router.registry import Registry
from router.reload import AT_START, absent_models, honoured, news, to_preload, unknown_models
from router.settings import Settings
from tests.router.entries import entry, no

ROOT = Path(__file__).parents[2]
NOW = Settings(port=1, host="::1", origins={"port": "--port", "host": "ROUTER_HOST"})


def test_what_is_read_at_the_start_stays_and_all_else_is_as_wanted() -> None:
    wanted = Settings(port=2, parallel=9, cache_dir=Path("/elsewhere"))
    held = honoured(NOW, wanted)
    assert held == replace(NOW, parallel=9)
    assert held.origins == NOW.origins


def test_an_address_that_all_may_reach_does_not_lose_its_key_with_the_file() -> None:
    now = Settings(host="0.0.0.0", api_key="k", origins={"host": "host in f (line 1)"})
    with pytest.raises(SettingsError, match=r"^host in f \(line 1\) 0\.0\.0\.0 would let"):
        honoured(now, Settings())
    assert honoured(now, Settings(api_key="other")).api_key == "other"


def test_the_news_are_one_sentence_about_now_and_one_about_later() -> None:
    wanted = replace(
        NOW,
        memory=MemoryBudget(percent=5),
        api_key="hunter2",
        models=(ModelSettings(id="a", pin=True),),
        port=2,
    )
    assert news(NOW, wanted) == [
        "Settings read again; changed: api-key, memory, single models.",
        "port takes effect at the next start.",
    ]
    later = replace(NOW, host="127.0.0.1", port=3, log_file=Path("/l"))
    assert news(NOW, later) == ["host, port and log-file take effect at the next start."]
    assert news(NOW, replace(NOW, origins={})) == []


def test_wishes_about_models_that_are_not_there_are_told_with_their_place() -> None:
    wishes = Settings(
        engine=(("a", "mlx"), ("short", "mlx"), ("b", "mlx")),
        origins={"engine": "engine in f (line 3)"},
    )
    registry = Registry([entry("a"), entry("c", aliases=("short",))])
    assert unknown_models(wishes, registry) == [
        "engine in f (line 3) b=mlx names a model that was not found; `router list` shows all."
    ]


def test_settings_of_models_that_are_not_there_are_told_with_the_id_that_may_be_meant() -> None:
    tables = ("org/parot", "org/parrot", "kea", "zzzzzz")
    said = tuple(ModelSettings(id=name, place=f"[models.{name}]") for name in tables)
    registry = Registry([entry("org/parrot"), entry("lory", no("fake"))])
    assert absent_models(Settings(models=said), registry) == [
        "[models.org/parot] is about a model that was not found; did you mean 'org/parrot'?",
        "[models.kea] is about a model that was not found; `router list` shows all.",
        "[models.zzzzzz] is about a model that was not found; `router list` shows all.",
    ]
    unservable = (ModelSettings(id="lorry", place="here"),)
    assert absent_models(Settings(models=unservable), registry) == [
        "here is about a model that was not found; did you mean 'lory'?"
    ]


def test_a_default_model_that_is_not_there_is_told() -> None:
    registry = Registry([entry("org/parrot")])
    assert absent_models(Settings(default_model="PARROT"), registry) == []
    assert absent_models(Settings(default_model="parot"), registry) == [
        "--default-model names a model that was not found; did you mean 'org/parrot'?"
    ]


def test_models_are_preloaded_that_were_not_told_to_be_or_that_are_loaded_anew() -> None:
    said = ModelSettings(id="", preload=True)
    a, b, c = (replace(entry(name), settings=said) for name in "abc")
    new = Registry([a, b, c, entry("d"), replace(entry("e", no("fake")), settings=said)])
    old = Registry([entry("a"), b, c])
    assert [one.id for one in to_preload(old, new, [])] == ["a"]
    assert [one.id for one in to_preload(old, new, ["b", "d"])] == ["a", "b"]


def test_the_example_says_what_takes_effect_at_the_next_start() -> None:
    text = " ".join((ROOT / "configs" / "router.toml").read_text().replace("#", " ").split())
    names = [option.name.replace("_", "-") for option in AT_START]
    assert f"Only {', '.join(names[:-1])} and {names[-1]} take effect at the next start." in text
