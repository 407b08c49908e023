from __future__ import annotations

from pathlib import Path

import pytest

from backends.base import InstanceOptions
from router import experience
from router.experience import Experience

FILES = (("m.gguf", 1, 2, 3),)
OPTIONS = InstanceOptions(context_length=512)


def test_it_survives_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "experience.json"
    first = Experience(file)
    first.took(FILES, "mlx", "1", OPTIONS, 100)
    first.refused(FILES, "llama.cpp", "2", "no such tensor")
    first.save()
    later = Experience(file)
    assert later.needed_bytes(FILES, "mlx", "1", OPTIONS) == 100
    assert later.refusal(FILES, "llama.cpp", "2") == "no such tensor"


def test_another_version_file_or_size_knows_nothing() -> None:
    known = Experience()
    known.took(FILES, "mlx", "1", OPTIONS, 100)
    known.refused(FILES, "mlx", "1", "no")
    assert known.needed_bytes(FILES, "mlx", "2", OPTIONS) is None
    assert known.needed_bytes(FILES, "mlx", "1", InstanceOptions()) is None
    assert known.needed_bytes((), "mlx", "1", OPTIONS) is None
    assert known.refusal(FILES, "mlx", "2") == ""


@pytest.mark.parametrize(
    "content",
    [b"", b"not json", b"[]", b'{"needed_bytes": [], "refusals": {"a": 1}}', b"[" * 100_000],
)
def test_a_corrupt_file_is_forgotten(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "experience.json"
    file.write_bytes(content)
    known = Experience(file)
    assert known.needed_bytes(FILES, "mlx", "1", OPTIONS) is None
    assert known.refusal(FILES, "mlx", "1") == ""
    known.took(FILES, "mlx", "1", OPTIONS, 7)
    known.save()
    assert Experience(file).needed_bytes(FILES, "mlx", "1", OPTIONS) == 7


def test_a_file_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    known = Experience(tmp_path / "file" / "experience.json")
    known.took(FILES, "mlx", "1", OPTIONS, 7)
    known.save()
    assert known.needed_bytes(FILES, "mlx", "1", OPTIONS) == 7


def test_the_oldest_is_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experience, "MAX_RECORDS", 3)
    known = Experience()
    for number in range(5):
        known.took(((str(number), 1, 2, 3),), "mlx", "1", OPTIONS, number)
    kept = [known.needed_bytes(((str(n), 1, 2, 3),), "mlx", "1", OPTIONS) for n in range(5)]
    assert kept == [None, None, 2, 3, 4]
