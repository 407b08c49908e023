from __future__ import annotations

from pathlib import Path

from detect.gguf_header import read_header
from detect.gguf_set import GGUFFile, GGUFKind, group, problems, projector_for, stem_of
from tests.detect import raw_gguf as raw
from tests.detect.raw_gguf import RawGGUF


def read(path: Path) -> GGUFFile:
    return GGUFFile(path, read_header(path))


def test_shards_of_one_stem_are_one_model(tmp_path: Path) -> None:
    paths = raw.write_split(tmp_path, "big", 3)
    other = raw.model().write(tmp_path / "small.gguf")
    sets = group([read(path) for path in [*reversed(paths), other]])
    assert [(one.stem, one.shard_count) for one in sets] == [("big", 3), ("small", 1)]
    assert [file.path for file in sets[0].files] == paths
    assert list(problems(sets[0])) == []
    assert len(list(sets[0].tensors)) == len(raw.weights())


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    paths = raw.write_split(tmp_path, "big", 3)
    (one,) = group([read(path) for path in (paths[0], paths[2])])
    (problem,) = problems(one)
    assert problem.code == "incomplete.missing_shard"
    assert "big-00002-of-00003.gguf" in problem.message


def test_shards_that_do_not_belong_together_are_told(tmp_path: Path) -> None:
    first = raw.write_split(tmp_path, "big", 2)[0]
    second = RawGGUF(metadata={"split.no": 1, "split.count": 2}, tensors={"x": (raw.F32, (1,))})
    second.write(tmp_path / "big-00002-of-00002.gguf")
    (one,) = group([read(first), read(tmp_path / "big-00002-of-00002.gguf")])
    assert [problem.code for problem in problems(one)] == ["corrupt.index_mismatch"]


def test_a_renamed_shard_cannot_find_the_others(tmp_path: Path) -> None:
    path = raw.write_split(tmp_path, "big", 2)[0].rename(tmp_path / "part1.gguf")
    (one,) = group([read(path)])
    (problem,) = problems(one)
    assert problem.code == "incomplete.missing_shard"
    assert "-00001-of-00002.gguf" in problem.message


def test_stems_leave_out_the_ending_and_the_shard() -> None:
    assert stem_of("a-00001-of-00002.gguf") == "a"
    assert stem_of("a.GGUF") == "a"


def test_every_kind_of_companion_is_known_by_its_metadata(tmp_path: Path) -> None:
    kinds = {
        GGUFKind.PROJECTOR: raw.projector(),
        GGUFKind.ADAPTER: RawGGUF(metadata={"general.type": "adapter", "adapter.type": "lora"},
                                  tensors={"a.lora_a": (raw.F32, (1,))}),
        GGUFKind.IMATRIX: RawGGUF(metadata={"general.type": "imatrix"}),
        GGUFKind.VOCABULARY: RawGGUF(metadata=raw.llama()),
        GGUFKind.DRAFT: raw.model(architecture="eagle3"),
        GGUFKind.MODEL: raw.model(),
    }  # fmt: skip
    for kind, content in kinds.items():
        assert read(content.write(tmp_path / "x.gguf")).kind is kind


def projectors(folder: Path, *contents: tuple[str, RawGGUF]) -> list[GGUFFile]:
    return [read(content.write(folder / f"{name}.gguf")) for name, content in contents]


def test_half_precision_is_preferred_among_projectors(tmp_path: Path) -> None:
    (model,) = group([read(raw.model().write(tmp_path / "m.gguf"))])
    found = projectors(tmp_path, ("a", raw.projector(raw.F32)), ("b", raw.projector(raw.F16)))
    chosen = projector_for(model, found, alone=True)
    assert chosen is not None
    assert chosen.path.name == "b.gguf"


def test_a_projector_of_another_width_does_not_fit(tmp_path: Path) -> None:
    (model,) = group([read(raw.model().write(tmp_path / "m.gguf"))])
    found = projectors(tmp_path, ("mmproj", raw.projector(width=512)))
    assert projector_for(model, found, alone=True) is None


def test_among_several_models_the_names_must_agree(tmp_path: Path) -> None:
    content = raw.model()
    (model,) = group([read(content.write(tmp_path / "m.gguf"))])
    found = projectors(tmp_path, ("mmproj", raw.projector()))
    assert projector_for(model, found, alone=False) is None
    content.metadata = {**content.metadata, "general.basename": "Qwen-VL"}
    named = raw.projector()
    named.metadata = {**named.metadata, "general.basename": "Qwen-VL"}
    (model,) = group([read(content.write(tmp_path / "m.gguf"))])
    found = projectors(tmp_path, ("mmproj", named))
    assert projector_for(model, found, alone=False) == found[0]
