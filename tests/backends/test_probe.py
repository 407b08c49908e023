from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from backends import probe as module
from backends.probe import ArchitectureProbe, ask_worker, build_of, run
from tests.processes import none_alive, open_descriptors
from tests.slack import soon

KNOWN = {"llama": "llama", "qwen3": "qwen3", "unheard": ""}


class Engine:
    """Knows some names, has never heard of one, and does not answer for the rest."""

    def __init__(self, answers: Mapping[str, str] = KNOWN) -> None:
        self.answers = answers
        self.asked: list[list[str]] = []

    def __call__(self, names: Sequence[str]) -> Mapping[str, str]:
        self.asked.append(list(names))
        return {name: self.answers[name] for name in names if name in self.answers}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "fake.json"


def probe(engine: Engine, file: Path, build: str = "1") -> ArchitectureProbe:
    return ArchitectureProbe(engine, build=build, file=file)


# Architectures


def test_a_name_is_known_unheard_of_or_unanswered(file: Path) -> None:
    asked = probe(Engine(), file)
    assert (asked.answer("llama"), asked.knows("llama")) == ("llama", True)
    assert (asked.answer("unheard"), asked.knows("unheard")) == ("", False)
    assert (asked.answer("crash"), asked.knows("crash")) == (None, None)


def test_names_are_asked_together_and_once(file: Path) -> None:
    engine = Engine()
    asked = probe(engine, file)
    assert asked.answers(["llama", "crash", "llama", "unheard"]) == {
        "llama": "llama",
        "unheard": "",
    }
    assert asked.answers(["crash", "qwen3", "llama"]) == {"qwen3": "qwen3", "llama": "llama"}
    assert asked.answers([]) == {}
    assert engine.asked == [["llama", "crash", "unheard"], ["qwen3"]]


def test_answers_are_kept_for_the_next_process(file: Path) -> None:
    probe(Engine(), file).answers(KNOWN)
    later = Engine({})
    assert probe(later, file).answers(KNOWN) == KNOWN
    assert later.asked == []


def test_what_was_not_answered_is_asked_again_by_the_next_process(file: Path) -> None:
    probe(Engine(), file).answers(["llama", "crash"])
    later = Engine({"crash": "mended"})
    assert probe(later, file).answers(["llama", "crash"]) == {"llama": "llama", "crash": "mended"}
    assert later.asked == [["crash"]]


def test_answers_of_another_build_are_forgotten(file: Path) -> None:
    probe(Engine(), file, build="1").answers(["llama", "qwen3"])
    assert probe(Engine({"llama": "new"}), file, build="2").answer("llama") == "new"
    assert probe(Engine({}), file, build="2").answer("qwen3") is None


CORRUPT = [
    b"", b"{", b"\xff", b"null", b"[]", b"1", b'{"build": "1"}', b'{"answers": {}}',
    b'{"build": "1", "answers": []}', b'{"build": "1", "answers": null}',
    b'{"build": "1", "answers": {"llama": null}}', b'{"build": "1", "answers": {"llama": 1}}',
    b"[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("content", CORRUPT)
def test_a_file_that_is_corrupt_is_written_anew(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    engine = Engine()
    assert probe(engine, file).answers(KNOWN) == KNOWN
    assert engine.asked == [list(KNOWN)]
    assert json.loads(file.read_bytes()) == {"build": "1", "answers": KNOWN}


def test_names_from_strange_files_can_be_kept(file: Path) -> None:
    strange = {"\ud800": "a", "é\n\0": "\udfff", "": ""}
    assert probe(Engine(strange), file).answers(strange) == strange
    assert probe(Engine({}), file).answers(strange) == strange


def test_a_file_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    (taken / "inside").mkdir(parents=True)
    assert probe(Engine(), taken).answers(KNOWN) == KNOWN
    assert list(tmp_path.iterdir()) == [taken]
    (tmp_path / "file").write_text("")
    assert probe(Engine(), tmp_path / "file" / "cache.json").answers(KNOWN) == KNOWN


def test_writing_leaves_nothing_beside_the_file(file: Path) -> None:
    probe(Engine(), file).answers(KNOWN)
    assert list(file.parent.iterdir()) == [file]


def test_threads_that_ask_at_once_share_the_answers(file: Path) -> None:
    engine = Engine()
    asked = probe(engine, file)
    threads = [threading.Thread(target=asked.answers, args=(KNOWN,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert engine.asked == [list(KNOWN)]


def test_a_build_changes_with_the_version_the_place_and_the_file(tmp_path: Path) -> None:
    path = tmp_path / "engine"
    path.write_text("")
    os.utime(path, ns=(1, 1))
    builds = {build_of("1", path), build_of("2", path), build_of("1", tmp_path / "other")}
    builds |= {build_of("1", None), build_of(None, None)}
    assert build_of("1", path) in builds
    os.utime(path, ns=(2, 2))
    builds.add(build_of("1", path))
    assert len(builds) == 6


# Workers


WORKER = """
import json, os, sys
for name in sys.argv[1:]:
    if name == "abort":
        os.abort()
    if name == "noise":
        print("loading ...", "[1]", "{}", "[" * 100000, '["llama"]', "[1, 2, 3]", sep="\\n")
    print(json.dumps([name, name.upper()]), flush=True)
    if name == "more":
        print(json.dumps(["unasked", "x"]))
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "fake_probe_worker.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "fake_probe_worker"


def test_a_worker_answers_for_each_name(worker: str) -> None:
    assert ask_worker(worker, ["a", "é", "b c"]) == {"a": "A", "é": "É", "b c": "B C"}


def test_a_worker_that_crashes_has_answered_for_the_names_before(worker: str) -> None:
    assert ask_worker(worker, ["a", "abort", "b"]) == {"a": "A"}


def test_what_else_a_worker_prints_is_no_answer(worker: str) -> None:
    assert ask_worker(worker, ["noise", "more"]) == {"noise": "NOISE", "more": "MORE"}


def test_a_worker_that_is_missing_answers_nothing() -> None:
    assert ask_worker("no_such_module", ["a"]) == {}


# Programs


def sh(script: str, seconds: float = 60) -> module.Finished | None:
    return run(["sh", "-c", script], timeout_seconds=seconds)


def test_output_and_status_are_collected() -> None:
    assert sh("echo out; echo err >&2; exit 3") == module.Finished(3, "out\n", "err\n")


def test_large_output_of_both_kinds_is_collected() -> None:
    finished = sh("head -c 1000000 /dev/zero & head -c 1000000 /dev/zero >&2; wait")
    assert finished is not None
    assert (len(finished.stdout), len(finished.stderr)) == (1_000_000, 1_000_000)


def test_a_program_reads_nothing() -> None:
    assert sh("cat") == module.Finished(0, "", "")


def test_a_program_that_cannot_be_run_has_the_guards_status() -> None:
    finished = run(["/does/not/exist"], timeout_seconds=60)
    assert finished is not None
    assert finished.status == 126
    assert "No such file or directory" in finished.stderr


@pytest.mark.parametrize("argument", ["a\0b", "\ud800"])
def test_an_argument_that_is_none_is_no_error(argument: str) -> None:
    assert run(["echo", argument], timeout_seconds=60) is None


@pytest.mark.parametrize("deaf", ["", "trap '' TERM; "])
def test_a_program_that_hangs_is_ended_with_its_descendants(
    tmp_path: Path, deaf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GUARD_GRACE_SECONDS", 0.1)
    before = open_descriptors()
    assert sh(f"{deaf}sleep 600 & echo $! $$ > {tmp_path}/pids; wait", seconds=0.5) is None
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    soon(lambda: none_alive(pids), 1)
    assert open_descriptors() == before


def test_what_is_asked_together_is_answered_by_one_process(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def ask(names: Sequence[str]) -> dict[str, str]:
        asked.append(list(names))
        return dict.fromkeys(names, "text")

    probe = ArchitectureProbe(ask, build="1", file=tmp_path / "kept.json")
    assert probe.knows("a")
    with probe.together():
        assert probe.knows("a")
        assert [probe.knows(name) for name in ("b", "c", "b")] == [None] * 3
    assert [probe.knows(name) for name in ("b", "c")] == [True, True]
    assert asked == [["a"], ["b", "c"]]


def test_nothing_new_together_starts_nothing(tmp_path: Path) -> None:
    def ask(names: Sequence[str]) -> dict[str, str]:
        raise AssertionError(names)

    with ArchitectureProbe(ask, build="1", file=tmp_path / "kept.json").together():
        pass
