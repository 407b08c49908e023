from __future__ import annotations

from pathlib import Path

import pytest

from backends.base import InstanceOptions
from backends.mistral_rs.commands import BinaryCommand, Weights, worker_command
from backends.mistral_rs.view import link_files, link_folder
from detect.types import ModelInfo, WeightFormat

HELP = "--max-seqs <N> --no-ui --mmproj <FILE>"
NEW = BinaryCommand(Path("/opt/mistralrs"), HELP)
OLD = BinaryCommand(Path("/opt/mistralrs-server"), HELP)


def test_the_binary_serves_a_folder_on_loopback() -> None:
    assert NEW.serve(Weights(folder="parrot"), 4, 5000) == [
        "/opt/mistralrs", "serve", "--host", "127.0.0.1", "--port", "5000", "--no-ui",
        "--max-seqs", "4", "--format", "plain", "-m", "parrot",
    ]  # fmt: skip


def test_the_binary_serves_gguf_shards_and_their_projector() -> None:
    weights = Weights(folder="parrot", gguf=["a.gguf", "b.gguf"], mmproj="p.gguf")
    argv = NEW.serve(weights, 1, 5000)
    assert argv[argv.index("--format") :] == [
        "--format", "gguf", "-m", "parrot", "-f", "a.gguf;b.gguf", "--mmproj", "p.gguf",
    ]  # fmt: skip


def test_the_old_binary_takes_the_kind_as_a_word() -> None:
    assert OLD.serve(Weights(folder="parrot", gguf=["a.gguf"]), 2, 5000) == [
        "/opt/mistralrs-server", "--serve-ip", "127.0.0.1", "--port", "5000",
        "--max-seqs", "2", "gguf", "-m", "parrot", "-f", "a.gguf",
    ]  # fmt: skip


def test_uqff_files_are_named() -> None:
    argv = NEW.serve(Weights(folder="parrot", uqff=["q4k-0.uqff"]), 1, 5000)
    assert argv[-4:] == ["-m", "parrot", "--from-uqff", "q4k-0.uqff"]


def test_flags_that_a_release_does_not_list_are_left_out() -> None:
    argv = BinaryCommand(Path("/opt/mistralrs"), "").serve(Weights(folder="parrot"), 4, 5000)
    assert argv == [
        "/opt/mistralrs", "serve", "--host", "127.0.0.1", "--port", "5000",
        "--format", "plain", "-m", "parrot",
    ]  # fmt: skip


@pytest.mark.parametrize("program", [NEW, OLD])
@pytest.mark.parametrize("gguf", [(), ("a.gguf",)])
def test_no_command_names_an_architecture(program: BinaryCommand, gguf: tuple[str, ...]) -> None:
    argv = program.serve(Weights(folder="parrot", gguf=gguf), 1, 1)
    assert not {"-a", "--arch"} & set(argv)


def test_the_worker_is_told_files_and_bounds(tmp_path: Path) -> None:
    shards = (tmp_path / "a-00001-of-00002.gguf", tmp_path / "a-00002-of-00002.gguf")
    info = ModelInfo(id="a", path=shards[0], files=shards, format=WeightFormat.GGUF)
    argv = worker_command(
        "a", info, InstanceOptions(parallel=2), tmp_path / "s", context_length=99, multimodal=False
    )
    assert argv[argv.index("--gguf") + 1 :] == [str(shard) for shard in shards]
    assert argv[argv.index("--context") + 1] == "99"
    assert argv[argv.index("--parallel") + 1] == "2"


def test_a_view_of_gguf_hides_what_lies_beside(tmp_path: Path) -> None:
    model, view = tmp_path / "model", tmp_path / "view"
    model.mkdir()
    view.mkdir()
    blob = model / "sha256-00"
    blob.write_bytes(b"GGUF")
    (model / "config.json").write_text("{}")
    (link,) = link_files([blob], "org/name:Q4", view)
    assert link == view / "org" / "name:Q4" / "sha256-00.gguf"
    assert link.read_bytes() == b"GGUF"
    assert [file.name for file in link.parent.iterdir()] == ["sha256-00.gguf"]


def test_a_view_of_a_folder_has_the_served_name(tmp_path: Path) -> None:
    view = tmp_path / "view"
    view.mkdir()
    link = link_folder(tmp_path, "org/name", view)
    assert link == view / "org" / "name"
    assert link.resolve() == tmp_path.resolve()


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/etc", ""])
def test_no_name_leaves_the_view(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        link_folder(tmp_path, name, tmp_path / "view")
