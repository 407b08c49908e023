from __future__ import annotations

from detect.weight_set import WeightSet, choose, group


def shards(stem: str, count: int, *, first: int = 1) -> list[str]:
    return [f"{stem}-{n:05}-of-{count:05}.safetensors" for n in range(first, first + count)]


def test_shards_of_one_stem_are_a_set() -> None:
    names = shards("model", 3)
    assert group(reversed(names)) == [WeightSet(tuple(names))]


def test_shards_may_be_numbered_from_zero() -> None:
    names = shards("model", 2, first=0)
    assert group(names) == [WeightSet(tuple(names))]


def test_missing_shards_are_named() -> None:
    names = shards("model", 3)
    assert group(names[:2])[0].missing == (names[2],)


def test_a_declared_count_without_reason_makes_no_set() -> None:
    (one,) = group(["model-00001-of-999999.safetensors"])
    assert one.missing == ()


def test_the_hugging_face_copy_goes_before_mistrals_own() -> None:
    names = ["consolidated.safetensors", *shards("model", 2)]
    chosen = choose(names, None)
    assert chosen is not None
    assert chosen.files == tuple(shards("model", 2))
    assert chosen.rivals == ()


def test_two_sets_that_mlx_would_both_load_are_rivals() -> None:
    chosen = choose(["model.safetensors", *shards("model", 2)], None)
    assert chosen is not None
    assert chosen.rivals


def test_the_index_decides_which_files_are_needed() -> None:
    names = shards("model", 2)
    chosen = choose([names[0]], {"a": names[0], "b": names[1]})
    assert chosen == WeightSet((names[0],), (names[1],), from_index=True)


def test_an_index_of_files_that_are_all_gone_yields_to_the_one_file_there() -> None:
    chosen = choose(["model.safetensors"], {"a": "model-00001-of-00002.safetensors"})
    assert chosen is not None
    assert chosen.files == ("model.safetensors",)
    assert not chosen.from_index


def test_nothing_is_chosen_from_nothing() -> None:
    assert choose([], None) is None
    assert choose(["adapter_model.safetensors", "optimizer.safetensors"], None) is None
