from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from backends.base import Footprint, InstanceOptions
from detect.types import ModelInfo
from router.entry import ModelEntry
from router.errors import ModelTooBigError
from router.experience import Experience
from router.preference import Choice
from router.ways import Ways
from tests.fake_engine import FakeBackend
from tests.router.entries import entry, limited, no, yes


class Named(FakeBackend):
    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder)
        self.name = name


class Roomy(Named):
    """Takes a byte for every token of context."""

    def footprint(self, info: ModelInfo, options: InstanceOptions) -> Footprint:
        return Footprint(weights_bytes=10, kv_bytes=options.context_length or 0, overhead_bytes=5)


def model(*verdicts: object) -> ModelEntry:
    found = entry("a", *(verdicts or (yes("one"), limited("two"), no("three"))))  # type: ignore[arg-type]
    return replace(found, choice=Choice("one", "first"), fingerprint=(("a.gguf", 1, 2, 3),))


def ways(tmp_path: Path, experience: Experience | None = None) -> Ways:
    backends = {name: Named(tmp_path, name) for name in ("one", "two", "three")}
    return Ways(backends, InstanceOptions(), experience)


def test_a_model_is_run_as_chosen_while_nobody_has_refused_it(tmp_path: Path) -> None:
    a = model()
    assert ways(tmp_path).way(a) is a


def test_the_next_engine_that_can_is_tried_and_then_there_is_none_left(tmp_path: Path) -> None:
    a, w = model(), ways(tmp_path)
    other = w.another(a, a, "no such tensor")
    assert other is not None
    assert other.choice == Choice("two", "one refused it: no such tensor")
    assert w.way(a) == other
    assert w.another(a, other, "neither") is None


def test_when_nothing_works_nothing_is_learned(tmp_path: Path) -> None:
    a, w = model(), ways(tmp_path)
    w.another(a, a, "no such tensor")
    w.failed(a)
    assert w.way(a) is a


def test_when_another_engine_works_the_refusal_is_remembered(tmp_path: Path) -> None:
    told: list[bool] = []
    file = tmp_path / "experience.json"
    a, w = model(), ways(tmp_path, Experience(file))
    w.learned = lambda: told.append(True)
    other = w.another(a, a, "no such tensor")
    assert other is not None
    w.worked(other)
    assert told == [True]
    later = ways(tmp_path, Experience(file))
    assert later.way(a).choice.engine == "two"
    changed = replace(a, fingerprint=(("a.gguf", 9, 9, 9),))
    assert later.way(changed) is changed


def test_all_the_memory_there_is_is_given_once(tmp_path: Path) -> None:
    a, w = model(), ways(tmp_path)
    assert [w.alone(a), w.alone(a)] == [True, False]
    w.worked(a)
    assert w.alone(a)


def test_what_was_measured_wins_over_the_estimate(tmp_path: Path) -> None:
    a, w = model(), ways(tmp_path)
    assert w.needed_bytes(a) == 10
    w.took(a, 77)
    assert w.needed_bytes(a) == 77
    w.options = replace(w.options, context_length=5)
    assert w.needed_bytes(a) == 10


def test_a_model_that_is_too_big_is_told_what_would_fit(tmp_path: Path) -> None:
    roomy = {"one": Roomy(tmp_path, "one")}
    w = Ways(roomy, InstanceOptions(context_length=4096))
    error = w.too_big(model(), 2000)
    assert isinstance(error, ModelTooBigError)
    assert "raise --memory to 4.0 KiB" in error.message
    assert "lower --context-length from 4096 to 1792" in error.message
    assert w.too_big(model(), 5000) is None
    nothing = w.too_big(model(), 100)
    assert nothing is not None
    assert "--context-length" not in nothing.message
