"""Where the log goes: to stderr, and to a file that is set aside before it grows too large."""

from __future__ import annotations

import errno
import io
import logging
import os
import stat
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from router.table import printable

log = logging.getLogger("router")

FILE_BYTES = 10 * 2**20
FILES = 5
"""The one that is written and those set aside."""

LINE = "%(asctime)s %(levelname).1s %(message)s"


def to_stderr(level: str) -> None:
    _add(logging.StreamHandler(sys.stderr), "%H:%M:%S")
    set_level(level)
    # uvicorn tells of its own start and end; ours says it better. Its errors still show.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    for name in ("httpx", "httpcore", "watchfiles"):
        logging.getLogger(name).setLevel(logging.WARNING)


def to_file(path: Path) -> None:
    """The same lines, with dates, as long as the file can be written."""
    _add(LogFile(path), "%Y-%m-%d %H:%M:%S")


def _add(handler: logging.Handler, time: str) -> None:
    handler.setFormatter(PrintableLines(LINE, time))
    logging.getLogger().addHandler(handler)


def keep(sentence: str) -> None:
    """Note in the file alone what the terminal is told in its own way."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogFile):
            handler.handle(log.makeRecord(log.name, logging.ERROR, "", 0, sentence, (), None))


def set_level(level: str) -> None:
    logging.getLogger().setLevel(level.upper())


class LogFile(RotatingFileHandler):
    """A file for its owner alone. That it cannot be written is told once, and holds nothing up."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=FILE_BYTES, backupCount=FILES - 1, delay=True)
        self._failing = False

    def _open(self) -> io.TextIOWrapper:
        path = Path(self.baseFilename)
        path.parent.mkdir(parents=True, exist_ok=True)
        # A pipe without a reader would hold up the daemon.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
        number = os.open(path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise OSError(errno.EINVAL, "it is not a file")
        os.fchmod(number, 0o600)
        return os.fdopen(number, "a", encoding="utf-8", errors="replace")

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        # Opened and not dropped again: this line was written.
        self._failing = self._failing and self.stream is None

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """The next line tries to open it anew: its folder may be back, or the disk emptier."""
        error = sys.exc_info()[1]
        self._drop()
        if not self._failing:
            self._failing = True
            reason = getattr(error, "strerror", None) or error
            log.warning("--log-file %s cannot be written: %s.", self.baseFilename, reason)

    def _drop(self) -> None:
        stream, self.stream = self.stream, None
        try:
            if stream is not None:
                stream.close()
        except OSError:
            pass


class PrintableLines(logging.Formatter):
    """Engines colour what they say, and paths say what their client wrote."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record).expandtabs(4))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Indented: no line of it can be taken for a record."""
        lines = super().formatException(ei).expandtabs(4).split("\n")
        return "\n".join(f"  {printable(line)}" for line in lines)
