from __future__ import annotations

import logging
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from router import log
from router.log import FILES, LogFile, PrintableLines

EVIL = "\x1b[2J\x9b\r\udcff\N{RIGHT-TO-LEFT OVERRIDE}"


def assert_printable(text: str) -> None:
    assert all(c.isprintable() or c == "\n" for c in text)


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The root; what a test adds to it is taken away again."""
    root = logging.getLogger()
    level = root.level
    yield root
    for handler in [h for h in root.handlers if isinstance(h.formatter, PrintableLines)]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


def begin(path: Path) -> None:
    log.to_stderr("debug")
    log.to_file(path)


# Lines


def test_a_log_line_is_printable_whatever_an_engine_says() -> None:
    record = logging.LogRecord("router", logging.ERROR, "", 0, f"a | \x1b[31m{EVIL}\tb", (), None)
    line = PrintableLines("%(message)s").format(record)
    assert_printable(line)
    assert line.startswith("a | ")
    assert line.endswith(" b")


def test_no_name_can_forge_a_line_of_the_log() -> None:
    formatter = PrintableLines("%(asctime)s %(message)s", "%H:%M:%S")
    record = logging.LogRecord("router", logging.INFO, "", 0, "a\n12:00:00 I b", (), None)
    assert len(formatter.format(record).splitlines()) == 1
    try:
        raise ValueError("a\n12:00:00 I b")
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    _, *lines = formatter.format(record).splitlines()
    assert all(line.startswith("  ") for line in lines)


# The file


def test_the_file_gets_the_same_lines_with_dates(
    logger: logging.Logger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "folder" / "router.log"
    begin(file)
    logger.info("one")
    logger.debug("two\nthree")
    told, kept = capsys.readouterr().err.splitlines(), file.read_text().splitlines()
    assert len(told) == 2
    assert [line[11:] for line in kept] == told


def test_the_file_is_its_owners_alone(logger: logging.Logger, tmp_path: Path) -> None:
    file = tmp_path / "router.log"
    file.touch(0o644)
    begin(file)
    logger.info("one")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_is_kept_never_grows_beyond_its_cap(
    logger: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "FILE_BYTES", 1000)
    begin(tmp_path / "router.log")
    for number in range(1000):
        logger.info("line %d", number)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [
        "router.log",
        *(f"router.log.{n}" for n in range(1, FILES)),
    ]
    assert all(file.stat().st_size <= 1000 for file in files)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert files[0].read_text().endswith("line 999\n")


def test_an_unwritable_file_is_told_once_and_written_once_it_can_be(
    logger: logging.Logger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").write_text("no folder")
    file = tmp_path / "folder" / "router.log"
    begin(file)
    for _ in range(3):
        logger.info("on stderr")
    told = capsys.readouterr().err
    assert told.count("on stderr") == 3
    assert told.count(f"--log-file {file} cannot be written: ") == 1
    (tmp_path / "folder").unlink()
    logger.info("in the file")
    assert "in the file" in file.read_text()
    assert "cannot be written" not in capsys.readouterr().err


def test_a_full_disk_is_told_once_and_holds_nothing_up(
    logger: logging.Logger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "router.log"
    begin(file)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        for _ in range(50):
            logger.info("on stderr %s", "x" * 60)
        told = capsys.readouterr().err
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert told.count("on stderr") == 50
    assert told.count("cannot be written: File too large.") == 1
    assert file.stat().st_size <= 100
    logger.info("room again")
    assert "room again" in file.read_text()


def test_a_pipe_that_nobody_reads_is_no_file(
    logger: logging.Logger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    begin(tmp_path / "pipe")
    logger.info("on stderr")
    assert f"--log-file {tmp_path / 'pipe'} cannot be written: " in capsys.readouterr().err


def test_what_ends_the_start_stands_in_the_file_and_is_not_told_twice(
    logger: logging.Logger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "router.log"
    begin(file)
    log.keep("The port is taken.")
    assert file.read_text().endswith(" E The port is taken.\n")
    assert capsys.readouterr().err == ""


def test_the_level_may_change(logger: logging.Logger, tmp_path: Path) -> None:
    begin(tmp_path / "router.log")
    log.set_level("warning")
    logger.info("too little")
    log.set_level("debug")
    logger.debug("enough")
    assert "too little" not in (tmp_path / "router.log").read_text()
    assert "enough" in (tmp_path / "router.log").read_text()


def test_no_file_is_made_before_there_is_a_line(tmp_path: Path) -> None:
    LogFile(tmp_path / "router.log").close()
    assert not list(tmp_path.iterdir())
