"""What went wrong with an engine, as the log and the clients hear of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from backends.base import InstanceStatus
from backends.errors import EngineError, EngineMemoryError
from router.entry import ModelEntry
from router.errors import (
    EngineFailedError,
    EngineUnavailableError,
    OutOfMemoryError,
    RouterError,
    StartFailedError,
    as_router_error,
)
from router.last_words import quotable

log = logging.getLogger("router")

LINES_IN_LOG = 20


def start_error(entry: ModelEntry, error: Exception) -> RouterError:
    """Why those who waited for the start are refused."""
    translated = as_router_error(error)
    if isinstance(translated, EngineUnavailableError):
        return translated
    reason = error.message if isinstance(error, EngineError) else "the log says why."
    said = quotable(error.last_words) if isinstance(error, EngineError) else ()
    kind = OutOfMemoryError if isinstance(error, EngineMemoryError) else StartFailedError
    return kind(f"{entry.id} could not be loaded with {entry.choice.engine}: {reason}", said)


def death(status: InstanceStatus) -> RouterError:
    """Why an instance that was ready is left alone."""
    return EngineFailedError(f"{status.engine} ended with {status.model}: {status.reason}.")


def log_start(entry: ModelEntry, error: Exception) -> None:
    if not isinstance(error, EngineError):
        log.error("%s: the start failed", entry.id, exc_info=error)
        return
    log.error("%s: %s", entry.id, error.message)
    _log_words(entry.id, error.last_words)


def log_death(status: InstanceStatus) -> None:
    log.error("%s: %s ended: %s", status.model, status.engine, status.reason)
    _log_words(status.model, status.last_words)


def _log_words(model: str, words: Sequence[str]) -> None:
    for line in words[-LINES_IN_LOG:]:
        log.error("%s | %s", model, line)
