from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from detect.naming import Found, across_places, in_place
from detect.types import ModelInfo, Problem, Quantization, WeightFormat


def gguf(stem: str, mode: str | None = None, inode: int = 0) -> Found:
    info = ModelInfo(
        id="",
        path=Path(f"{stem}.gguf"),
        files=(Path(f"{stem}.gguf"),),
        format=WeightFormat.GGUF,
        quantization=Quantization(method="gguf", mode=mode) if mode else None,
    )
    return Found(info=info, stem=stem, identity=frozenset({(1, inode)} if inode else ()))


def folder(name: str, inode: int = 0) -> Found:
    info = ModelInfo(id="", path=Path(name), files=(), format=WeightFormat.MLX)
    return Found(info=info, identity=frozenset({(1, inode)} if inode else ()))


def ids(found: list[Found]) -> list[str]:
    return [one.info.id for one in found]


def test_an_only_model_has_the_name_of_its_folder() -> None:
    assert ids(in_place("org/name", [gguf("anything-Q4_K_M")])) == ["org/name"]
    assert ids(in_place("org/name", [folder("name")])) == ["org/name"]


def test_flat_files_are_named_by_their_stems() -> None:
    assert ids(in_place("", [gguf("a-Q4_K_M"), gguf("b")])) == ["a-Q4_K_M", "b"]


def test_several_quantisations_carry_their_labels_and_the_usual_one_the_plain_name() -> None:
    found = in_place("org/x", [gguf("x-Q8_0"), gguf("x-Q4_K_M"), gguf("x-UD-IQ2_XXS")])
    assert ids(found) == ["org/x:Q8_0", "org/x:Q4_K_M", "org/x:UD-IQ2_XXS"]
    assert [one.info.aliases for one in found] == [(), ("org/x",), ()]


def test_different_models_in_one_folder_keep_their_stems() -> None:
    assert ids(in_place("gguf", [gguf("a-Q4_0"), gguf("b-Q4_0")])) == ["gguf/a-Q4_0", "gguf/b-Q4_0"]


def test_a_gguf_beside_safetensors_is_a_second_model() -> None:
    found = in_place("org/x", [folder("x"), gguf("x-f16", "F16")])
    assert ids(found) == ["org/x", "org/x:F16"]


def test_the_label_may_come_from_the_header() -> None:
    found = in_place("x", [gguf("x", "Q4_K_M"), gguf("x-Q8_0")])
    assert ids(found) == ["x:Q4_K_M", "x:Q8_0"]


def test_equal_names_of_different_roots_are_told_apart() -> None:
    first, second = in_place("x", [folder("x", 1)]), in_place("x", [folder("x", 2)])
    models = across_places([*first, Found(info=second[0].info, root="more")])
    assert [model.id for model in models] == ["x", "x@more"]


def test_one_model_reached_twice_is_one_with_an_alias() -> None:
    first, second = in_place("a", [gguf("x", inode=5)]), in_place("b", [gguf("y", inode=5)])
    (model,) = across_places([*first, *second])
    assert model.id == "a"
    assert model.aliases == ("b", "x")


def test_the_bare_name_is_an_alias_unless_two_share_it() -> None:
    alone = across_places(in_place("org/x", [folder("x")]))
    assert alone[0].aliases == ("x",)
    shared = across_places([*in_place("a/x", [folder("x")]), *in_place("b/x", [folder("x")])])
    assert [model.aliases for model in shared] == [(), ()]


def test_the_stem_of_a_gguf_file_is_an_alias_unless_two_share_it() -> None:
    two = in_place("two", [gguf("parrot-Q8_0"), gguf("parrot-F16")])
    assert [model.aliases for model in across_places(two)] == [
        ("two", "parrot-Q8_0"),
        ("parrot-F16",),
    ]
    other = in_place("other", [gguf("parrot-Q8_0")])
    aliases = {model.id: model.aliases for model in across_places([*two, *other])}
    assert aliases == {"two:Q8_0": ("two",), "two:F16": ("parrot-F16",), "other": ()}


def test_what_no_engine_can_use_leaves_the_short_id_to_what_one_can() -> None:
    broken = folder("loose", 1)
    problem = Problem("missing.config", "loose.safetensors has no config.json beside it.")
    broken = structs.replace(broken.with_info(problems=(problem,)), stem="loose", root="r")
    models = across_places(
        in_place("", [broken, structs.replace(gguf("loose", inode=2), root="r")])
    )
    assert [model.id for model in models] == ["loose@r", "loose"]


@pytest.mark.parametrize("stem", ["x-Q4_K_M", "x.Q4_K_M", "x_Q4_K_M", "Q4_K_M"])
def test_labels_are_found_behind_any_separator(stem: str) -> None:
    found = in_place("m", [gguf(stem), folder("m")])
    assert found[0].info.id == "m:Q4_K_M"


places = st.lists(
    st.tuples(
        st.sampled_from(["", "a", "b", "org/a"]),
        st.lists(st.sampled_from(["x", "x-Q4_0", "x-Q8_0", "y"]), min_size=1, max_size=4),
    ),
    max_size=5,
)


@given(places)
def test_ids_are_unique_whatever_lies_where(layout: list[tuple[str, list[str]]]) -> None:
    found = [
        Found(info=one.info, root="r")
        for name, stems in layout
        for one in in_place(name, [gguf(stem) for stem in stems])
    ]
    models = across_places(found)
    assert len(models) == len(found)
    assert len({model.id for model in models}) == len(models)
    assert all(model.id for model in models)
