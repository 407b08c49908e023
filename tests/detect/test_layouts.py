"""The trees that other programs make, as scanned: which ids they give."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from detect.errors import NotAModelError
from detect.layouts import MAX_DEPTH, ollama_name, repo_name
from detect.scan import inspect_path, scan
from detect.types import ModelInfo, WeightFormat
from tests.detect import raw_gguf, raw_safetensors


def ids(*folders: Path) -> list[str]:
    return [model.id for model in scan(folders).models]


def only(*folders: Path) -> ModelInfo:
    report = scan(folders)
    assert len(report.models) == 1, report
    return report.models[0]


def mlx(folder: Path) -> Path:
    return raw_safetensors.write_model(
        folder, raw_safetensors.dense(quantize=raw_safetensors.mlx())
    )


def test_an_lm_studio_tree_gives_publisher_and_name(tmp_path: Path) -> None:
    mlx(tmp_path / "lmstudio-community" / "Qwen3-MLX-4bit")
    raw_gguf.model().write(tmp_path / "bartowski" / "Qwen3-GGUF" / "Qwen3-Q4_K_M.gguf")
    assert ids(tmp_path) == ["bartowski/Qwen3-GGUF", "lmstudio-community/Qwen3-MLX-4bit"]


def test_flat_files_and_folders_live_side_by_side(tmp_path: Path) -> None:
    raw_gguf.model().write(tmp_path / "loose-Q4_K_M.gguf")
    raw_gguf.write_split(tmp_path, "split", 2)
    mlx(tmp_path / "folder")
    assert ids(tmp_path) == ["loose-Q4_K_M", "split", "folder"]


def test_several_quantisations_in_a_folder_and_below_it_are_variants(tmp_path: Path) -> None:
    repo = tmp_path / "unsloth" / "Big-GGUF"
    raw_gguf.model().write(repo / "Big-Q8_0.gguf")
    raw_gguf.model().write(repo / "Big-Q4_K_M.gguf")
    raw_gguf.write_split(repo / "UD-Q4_K_XL", "Big-UD-Q4_K_XL", 3)
    raw_gguf.write_split(repo / "BF16", "Big-BF16", 2)
    assert sorted(ids(tmp_path)) == [
        "unsloth/Big-GGUF:BF16",
        "unsloth/Big-GGUF:Q4_K_M",
        "unsloth/Big-GGUF:Q8_0",
        "unsloth/Big-GGUF:UD-Q4_K_XL",
    ]
    default = next(m for m in scan([tmp_path]).models if "unsloth/Big-GGUF" in m.aliases)
    assert default.id == "unsloth/Big-GGUF:Q4_K_M"


def test_a_folder_of_a_quantisation_that_holds_mlx_is_a_model_of_its_own(tmp_path: Path) -> None:
    mlx(tmp_path / "org" / "Q8")
    assert ids(tmp_path) == ["org/Q8"]


def test_a_projector_is_paired_across_the_sub_folders(tmp_path: Path) -> None:
    repo = tmp_path / "vl"
    raw_gguf.projector().write(repo / "proj.gguf")
    raw_gguf.model().write(repo / "Q4_K_M" / "vl-Q4_K_M.gguf")
    info = only(tmp_path)
    assert info.id == "vl"
    assert info.mmproj == repo / "proj.gguf"
    assert info.role.value == "vision"


def test_gguf_beside_safetensors_are_two_models(tmp_path: Path) -> None:
    folder = mlx(tmp_path / "both")
    raw_gguf.model().write(folder / "both-Q4_K_M.gguf")
    models = scan([tmp_path]).models
    assert [(m.id, m.format) for m in models] == [
        ("both", WeightFormat.MLX),
        ("both:Q4_K_M", WeightFormat.GGUF),
    ]


def test_folders_deeper_than_the_bound_are_not_looked_into(tmp_path: Path) -> None:
    mlx(tmp_path.joinpath(*"abcd"))
    mlx(tmp_path.joinpath(*"vwxyz"))
    assert MAX_DEPTH == 4
    assert ids(tmp_path) == ["a/b/c/d"]


@pytest.mark.parametrize(
    "name", [".git", ".cache", "blobs", "original", "onnx", "__pycache__", "checkpoint-500",
             "datasets--a--b"],
)  # fmt: skip
def test_folders_that_hold_no_models_are_passed_over(tmp_path: Path, name: str) -> None:
    mlx(tmp_path / name / "inner")
    assert ids(tmp_path) == []


def test_what_lies_below_a_model_belongs_to_it(tmp_path: Path) -> None:
    mlx(mlx(tmp_path / "m") / "extra")
    assert ids(tmp_path) == ["m"]


def test_a_model_saved_right_into_the_models_folder_does_not_hide_the_others(
    tmp_path: Path,
) -> None:
    mlx(tmp_path / "Models")
    mlx(tmp_path / "Models" / "inner")
    assert ids(tmp_path / "Models") == ["Models", "inner"]


def test_linked_folders_do_not_lead_in_circles(tmp_path: Path) -> None:
    mlx(tmp_path / "a" / "m")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b").symlink_to(tmp_path / "a", target_is_directory=True)
    assert ids(tmp_path) == ["a/m"]


def test_one_folder_given_twice_and_a_folder_inside_another_are_found_once(tmp_path: Path) -> None:
    mlx(tmp_path / "org" / "m")
    assert ids(tmp_path, tmp_path) == ["org/m"]
    models = scan([tmp_path, tmp_path / "org"]).models
    assert [(m.id, m.aliases) for m in models] == [("org/m", ("m",))]


def test_the_same_file_under_two_names_is_one_model(tmp_path: Path) -> None:
    path = raw_gguf.model().write(tmp_path / "a" / "x.gguf")
    (tmp_path / "b").mkdir()
    os.link(path, tmp_path / "b" / "y.gguf")
    info = only(tmp_path)
    assert (info.id, info.aliases) == ("a", ("b", "x"))


def test_a_link_to_the_folder_it_lies_in_adds_no_model(tmp_path: Path) -> None:
    raw_gguf.model().write(tmp_path / "loose.gguf")
    mlx(tmp_path / "org" / "m")
    (tmp_path / "self").symlink_to(".", target_is_directory=True)
    (tmp_path / "org" / "up").symlink_to("..", target_is_directory=True)
    models = scan([tmp_path]).models
    assert {m.id: m.aliases for m in models} == {"loose": (), "org/m": ("m",)}
    with pytest.raises(NotAModelError, match="holds 2 models"):
        inspect_path(tmp_path)


# The Hugging Face cache


def hf_repo(hub: Path, name: str, revisions: dict[str, Any], main: str | None = None) -> Path:
    """A repo in the cache whose snapshots link to blobs, as the hub's client makes it."""
    repo = hub / f"models--{name.replace('/', '--')}"
    (repo / "blobs").mkdir(parents=True)
    (repo / "refs").mkdir()
    if main:
        (repo / "refs" / "main").write_text(main)
    for revision, source in revisions.items():
        snapshot = repo / "snapshots" / revision
        snapshot.mkdir(parents=True)
        for file in sorted(source.iterdir()):
            blob = repo / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
            blob.write_bytes(file.read_bytes())
            (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / blob.name)
    return repo


def test_a_cached_repo_is_read_at_its_main_revision(tmp_path: Path) -> None:
    old = raw_safetensors.write_model(tmp_path / "old", raw_safetensors.dense())
    new = mlx(tmp_path / "new")
    hub = tmp_path / "hub"
    hf_repo(hub, "org/name", {"aaaa": old, "bbbb": new}, main="aaaa")
    info = only(hub)
    assert info.id == "org/name"
    assert info.aliases == ("name",)
    assert info.format is WeightFormat.SAFETENSORS
    assert info.path == hub / "models--org--name" / "snapshots" / "aaaa"


def test_without_a_main_revision_the_newest_complete_one_is_read(tmp_path: Path) -> None:
    old = raw_safetensors.write_model(tmp_path / "old", raw_safetensors.dense())
    new = mlx(tmp_path / "new")
    repo = hf_repo(tmp_path / "hub", "org/name", {"aaaa": old, "bbbb": new})
    (repo / "snapshots" / "bbbb" / "model.safetensors").unlink()
    (repo / "snapshots" / "bbbb" / "model.safetensors").symlink_to("../../blobs/gone")
    os.utime(repo / "snapshots" / "aaaa", (1, 1))
    assert only(tmp_path / "hub").format is WeightFormat.SAFETENSORS


def test_a_file_that_was_not_downloaded_is_named(tmp_path: Path) -> None:
    repo = hf_repo(tmp_path / "hub", "org/name", {"aaaa": mlx(tmp_path / "new")}, main="aaaa")
    for blob in (repo / "blobs").iterdir():
        if blob.stat().st_size > 1000:
            blob.rename(blob.with_name(blob.name + ".1234abcd.incomplete"))
    info = only(tmp_path / "hub")
    assert info.id == "org/name"
    assert info.fatal_problem is not None
    assert info.fatal_problem.code == "incomplete.missing_shard"
    assert "model.safetensors" in info.fatal_problem.message


def test_an_orphan_of_a_broken_download_does_no_harm(tmp_path: Path) -> None:
    repo = hf_repo(tmp_path / "hub", "org/name", {"aaaa": mlx(tmp_path / "new")}, main="aaaa")
    (repo / "blobs" / "feed.incomplete").write_bytes(b"x")
    assert not only(tmp_path / "hub").broken


def test_a_repo_without_a_snapshot_is_skipped_with_the_reason(tmp_path: Path) -> None:
    hf_repo(tmp_path, "org/name", {})
    report = scan([tmp_path])
    assert not report.models
    assert report.skipped[0].code == "incomplete.partial"


def test_a_main_revision_may_not_lead_out_of_the_repo(tmp_path: Path) -> None:
    repo = hf_repo(tmp_path / "hub", "org/name", {"aaaa": mlx(tmp_path / "new")})
    for revision in ("../../../new", "/etc", "..", ""):
        (repo / "refs" / "main").write_text(revision)
        assert only(tmp_path / "hub").path == repo / "snapshots" / "aaaa"


def test_one_repo_or_snapshot_can_be_named_itself(tmp_path: Path) -> None:
    repo = hf_repo(tmp_path / "hub", "org/name", {"aaaa": mlx(tmp_path / "new")}, main="aaaa")
    for path in (repo, repo / "snapshots" / "aaaa"):
        info = inspect_path(path)
        assert (info.id, info.broken) == ("org/name", False)
    assert only(repo / "snapshots" / "aaaa").files
    file = inspect_path(repo / "snapshots" / "aaaa" / "model.safetensors")
    assert file.format is WeightFormat.MLX


def test_names_of_repos_are_read_from_folders() -> None:
    assert repo_name("models--org--name") == "org/name"
    assert repo_name("models--gpt2") == "gpt2"


# Ollama


def ollama(store: Path, name: str, layers: dict[str, bytes], drop: str = "") -> None:
    host, space, model, tag = name.split("/")
    entries = []
    (store / "blobs").mkdir(parents=True, exist_ok=True)
    for kind, content in layers.items():
        digest = hashlib.sha256(content).hexdigest()
        if kind != drop:
            (store / "blobs" / f"sha256-{digest}").write_bytes(content)
        entries.append(
            {
                "mediaType": f"application/vnd.ollama.image.{kind}",
                "digest": f"sha256:{digest}",
                "size": len(content),
            }
        )
    manifest = store / "manifests" / host / space / model / tag
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": entries}))


LLAMA = "registry.ollama.ai/library/llama3.2/latest"


def test_an_ollama_store_is_read_through_its_manifests(tmp_path: Path) -> None:
    content = raw_gguf.model().encode()
    ollama(tmp_path, LLAMA, {"model": content, "template": b"{{ .Prompt }}", "params": b"{}"})
    ollama(tmp_path, "registry.ollama.ai/me/mine/v1", {"model": raw_gguf.model(8).encode()})
    models = scan([tmp_path]).models
    assert [(m.id, m.aliases) for m in models] == [
        ("llama3.2:latest", ("llama3.2",)),
        ("me/mine:v1", ("mine:v1",)),
    ]
    assert models[0].files[0].name == f"sha256-{hashlib.sha256(content).hexdigest()}"
    assert not models[0].broken


def test_two_tags_of_one_blob_are_one_model(tmp_path: Path) -> None:
    content = {"model": raw_gguf.model().encode()}
    ollama(tmp_path, "registry.ollama.ai/library/llama3.2/3b", content)
    ollama(tmp_path, LLAMA, content)
    info = only(tmp_path)
    assert info.id == "llama3.2:3b"
    assert set(info.aliases) == {"llama3.2:latest", "llama3.2"}


def test_the_projector_of_an_ollama_model_is_paired(tmp_path: Path) -> None:
    layers = {"model": raw_gguf.model().encode(), "projector": raw_gguf.projector().encode()}
    ollama(tmp_path, LLAMA, layers)
    assert only(tmp_path).mmproj is not None


def test_a_blob_that_is_missing_or_no_gguf_breaks_the_model(tmp_path: Path) -> None:
    ollama(tmp_path / "a", LLAMA, {"model": raw_gguf.model().encode()}, drop="model")
    ollama(tmp_path / "b", LLAMA, {"model": b"not a model at all"})
    assert only(tmp_path / "a").problems[0].code == "incomplete.partial"
    assert only(tmp_path / "b").problems[0].code == "corrupt.header"


def test_models_of_ollamas_own_engine_are_named(tmp_path: Path) -> None:
    ollama(tmp_path, LLAMA, {"tensor": b"x" * 10, "json": b"{}"})
    info = only(tmp_path)
    assert (info.id, info.format) == ("llama3.2:latest", WeightFormat.OLLAMA_TENSORS)
    assert info.weights_bytes == 10
    assert "Ollama" in info.problems[0].message


@pytest.mark.parametrize(
    "manifest", [b"", b"[]", b"{}", b'{"layers": 1}', b'{"layers": [1, {"digest": 2}]}']
)
def test_a_broken_manifest_is_skipped(tmp_path: Path, manifest: bytes) -> None:
    ollama(tmp_path, LLAMA, {"model": b"x"})
    (tmp_path / "manifests" / LLAMA).write_bytes(manifest)
    report = scan([tmp_path])
    assert not report.models
    assert len(report.skipped) == 1


def test_a_digest_may_not_lead_out_of_the_store(tmp_path: Path) -> None:
    ollama(tmp_path, LLAMA, {"model": b"x"})
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../x"}
    (tmp_path / "manifests" / LLAMA).write_text(json.dumps({"layers": [layer]}))
    assert not scan([tmp_path]).models


def test_names_are_shortened_as_ollama_does() -> None:
    assert ollama_name("registry.ollama.ai", "library", "m", "t") == "m:t"
    assert ollama_name("registry.ollama.ai", "me", "m", "t") == "me/m:t"
    assert ollama_name("hf.co", "me", "m", "t") == "hf.co/me/m:t"
