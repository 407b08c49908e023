from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from backends.base import Verdict
from detect.fingerprint import fingerprint
from detect.types import ModelInfo, ScanReport, Skipped
from router.errors import EngineUnavailableError, UnknownModelError, UnservableModelError
from router.experience import Experience
from router.model_settings import ModelSettings
from router.preference import Wishes
from router.registry import Registry, build
from tests.fake_engine import FakeBackend, model
from tests.router.entries import absent, entry, no, yes


def registry(*names: str) -> Registry:
    return Registry([entry(name) for name in names])


def refusal(models: Registry, name: str) -> str:
    with pytest.raises(UnknownModelError) as caught:
        models.find(name)
    assert caught.value.param == "model"
    return caught.value.message


def test_a_name_is_found_as_it_is_written() -> None:
    models = registry("org/Qwen3-8B", "org/qwen3-8b")
    assert models.find("org/qwen3-8b").id == "org/qwen3-8b"
    assert models.find("org/Qwen3-8B").id == "org/Qwen3-8B"


def test_a_name_is_found_without_regard_to_case() -> None:
    assert registry("org/Qwen3-8B", "other").find("ORG/qwen3-8b").id == "org/Qwen3-8B"
    assert registry("Straße").find("STRASSE").id == "Straße"


def test_a_name_is_found_by_what_stands_after_a_slash() -> None:
    models = registry("lmstudio/org/Qwen3-8B", "org/other")
    assert models.find("qwen3-8b").id == "lmstudio/org/Qwen3-8B"
    assert models.find("org/qwen3-8b").id == "lmstudio/org/Qwen3-8B"


def test_a_part_that_does_not_begin_after_a_slash_is_no_name() -> None:
    assert "There is no model '8b'" in refusal(registry("org/Qwen3-8B"), "8b")


def test_an_alias_is_a_name_and_an_id_goes_before_an_alias() -> None:
    models = Registry([entry("long/name", aliases=("short", "b")), entry("b")])
    assert models.find("short").id == "long/name"
    assert models.find("b").id == "b"


def test_several_names_of_one_model_are_not_ambiguous() -> None:
    models = Registry([entry("a/m", aliases=("b/m", "c/M"))])
    assert models.find("m").id == "a/m"


def test_an_ambiguous_name_is_refused_with_the_candidates() -> None:
    models = registry("one/m", "two/m", "three/n")
    assert refusal(models, "m") == "'m' may mean 'one/m' or 'two/m'; say which."
    assert refusal(registry("Ab", "aB"), "ab") == "'ab' may mean 'Ab' or 'aB'; say which."


def test_the_tag_that_ollamas_clients_add_may_stand_behind_any_name() -> None:
    models = registry("org/parrot", "org/kea:latest", "kea")
    assert models.find("parrot:latest").id == "org/parrot"
    assert models.find("org/kea:latest").id == "org/kea:latest"
    assert "'parrot:7b'" in refusal(models, "parrot:7b")


def test_the_default_model_stands_in_for_one_that_is_not_there_and_no_other() -> None:
    models = registry("one/m", "two/m", "org/parrot")
    assert models.find_or("parrot", "gpt-4o").id == "org/parrot"
    assert models.find_or("parrot", "one/m").id == "one/m"
    with pytest.raises(UnknownModelError, match="may mean"):
        models.find_or("parrot", "m")
    with pytest.raises(UnknownModelError, match="There is no model 'gpt-4o'"):
        models.find_or(None, "gpt-4o")
    with pytest.raises(UnknownModelError, match="There is no model 'gpt-4o'"):
        models.find_or("absent", "gpt-4o")


def test_an_ambiguous_name_lists_at_most_five_candidates() -> None:
    assert refusal(registry(*(f"{i}/m" for i in range(9))), "m").count("/m") == 5


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    models = registry("org/Qwen3-8B", "org/gemma-3", "whisper")
    message = refusal(models, "qwen3-8")
    assert message == "There is no model 'qwen3-8'. Did you mean 'org/Qwen3-8B'?"


def test_an_unknown_name_like_no_other_is_answered_with_some_that_exist() -> None:
    assert refusal(registry("aaa", "bbb"), "zzz").endswith("Known models are 'aaa' or 'bbb'.")
    many = registry(*(f"model-{i}" for i in range(6)))
    assert refusal(many, "zzz").endswith("'model-4'; `router list` shows all.")


def test_without_models_the_answer_says_how_to_get_some() -> None:
    assert refusal(registry(), "a").endswith("start the router with --models-dir.")
    nothing = Registry([entry("aaa", no("fake"))])
    assert refusal(nothing, "zzz").endswith("No model is servable.")


def test_an_endless_name_is_not_sent_back_whole() -> None:
    assert len(refusal(registry("a"), "x" * 100_000)) < 400


def test_the_servable_ones_are_those_with_an_engine() -> None:
    models = Registry([entry("good"), entry("bad", no("fake"))])
    assert [e.id for e in models.servable] == ["good"]
    assert [e.id for e in models] == ["good", "bad"]
    assert len(models) == 2
    assert models.find("bad").servable is False


def test_an_unservable_model_is_refused_with_a_reason_for_each_engine() -> None:
    verdicts = (no("mlx", "knows no quux"), no("llama.cpp", "reads GGUF only", "Convert it."))
    models = Registry([entry("strange", *verdicts)])
    with pytest.raises(UnservableModelError) as caught:
        models.resolve("strange")
    error = caught.value
    assert (error.status, error.code) == (422, "model_not_servable")
    assert "mlx: knows no quux. llama.cpp: reads GGUF only. Convert it." in error.message
    assert error.body()["error"]["verdicts"] == [
        {"engine": "mlx", "code": "unsupported.arch", "reason": "knows no quux", "remedy": ""},
        {
            "engine": "llama.cpp",
            "code": "unsupported.arch",
            "reason": "reads GGUF only",
            "remedy": "Convert it.",
        },
    ]


def test_a_model_whose_engine_is_not_installed_is_unavailable_and_the_remedy_is_said() -> None:
    models = Registry([entry("m", no("mlx"), absent("llama.cpp"))])
    with pytest.raises(EngineUnavailableError) as caught:
        models.resolve("m")
    assert (caught.value.status, caught.value.code) == (503, "engine_not_installed")
    assert "Install llama.cpp." in caught.value.message


def test_an_absent_engine_does_not_matter_when_another_can() -> None:
    models = Registry([entry("m", absent("mlx"), yes("llama.cpp"))])
    assert models.resolve("m").choice.engine == "llama.cpp"


class Engine(FakeBackend):
    """A fake engine under another name, that cannot run the models named."""

    def __init__(self, name: str, *refused: str) -> None:
        super().__init__(Path())
        self.name = name
        self.refused = refused

    def engine(self, model: str) -> object:  # type: ignore[override]
        raise AssertionError("a question must not start anything")

    def verdict(self, info: ModelInfo) -> Verdict:
        return no(self.name) if info.id in self.refused else yes(self.name)


def built(wanted: Mapping[str, str]) -> dict[str, str | None]:
    report = ScanReport(models=(model("a", aliases=("alias",)), model("b")))
    models = build(report, [Engine("llama.cpp"), Engine("mistral.rs", "b")], Wishes(wanted))
    return {e.id: e.choice.engine for e in models}


def test_every_engine_is_asked_about_every_model() -> None:
    report = ScanReport(models=(model("a"), model("b")))
    models = build(report, [Engine("llama.cpp"), Engine("mistral.rs", "b")])
    verdicts = {e.id: [(v.engine, v.ok) for v in e.verdicts] for e in models}
    assert verdicts == {
        "a": [("llama.cpp", True), ("mistral.rs", True)],
        "b": [("llama.cpp", True), ("mistral.rs", False)],
    }


class Preparing(Engine):
    """Writes down what is asked of it, in order."""

    def __init__(self) -> None:
        super().__init__("mlx")
        self.asked: list[tuple[str, ...]] = []

    def prepare(self, infos: Sequence[ModelInfo]) -> None:
        self.asked.append(tuple(info.id for info in infos))

    def verdict(self, info: ModelInfo) -> Verdict:
        self.asked.append((info.id,))
        return super().verdict(info)


def test_an_engine_hears_of_all_models_before_it_judges_the_first() -> None:
    engine = Preparing()
    build(ScanReport(models=(model("a"), model("b"))), [engine])
    assert engine.asked == [("a", "b"), ("a",), ("b",)]


def test_the_users_wish_counts_by_id_and_by_alias_and_for_that_model_only() -> None:
    assert built({}) == {"a": "llama.cpp", "b": "llama.cpp"}
    assert built({"a": "mistral.rs"}) == {"a": "mistral.rs", "b": "llama.cpp"}
    assert built({"alias": "mistral.rs"}) == {"a": "mistral.rs", "b": "llama.cpp"}


def test_the_users_wish_is_not_followed_where_the_engine_cannot() -> None:
    assert built({"b": "mistral.rs"}) == {"a": "llama.cpp", "b": "llama.cpp"}


def test_what_the_scan_skipped_is_kept_with_its_reason() -> None:
    skipped = Skipped(Path("/models/x"), "corrupt.header", "it is not a model")
    assert build(ScanReport(skipped=(skipped,)), []).skipped == (skipped,)


def test_what_the_user_says_of_a_model_comes_with_it() -> None:
    report = ScanReport(models=(model("org/a", aliases=("a",)), model("b")))
    said = [ModelSettings(id="a", aliases=("gpt-4o",), pin=True), ModelSettings(id="gone")]
    models = build(report, [Engine("llama.cpp")], models=said)
    assert models.resolve("gpt-4o").id == "org/a"
    assert models.resolve("org/a").settings.pin
    assert not models.resolve("b").settings.pin


def test_an_engine_that_has_failed_to_load_a_model_is_not_asked_again() -> None:
    info, taught = model("a"), Experience()
    taught.refused(fingerprint(info), "llama.cpp", "1", "no such tensor")
    engines = [Engine("llama.cpp"), Engine("mistral.rs")]
    (entry,) = build(ScanReport(models=(info,)), engines, experience=taught)
    refusal = entry.verdicts[0]
    assert (refusal.code, entry.choice.engine) == ("refused.at_load", "mistral.rs")
    assert "no such tensor" in refusal.reason
