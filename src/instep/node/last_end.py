"""Why a daemon ended with an error, for the commands that are typed while none runs. The next daemon removes the
record."""

from __future__ import annotations

import logging
import os

import msgspec

from instep.errors import InstepError
from instep.node.directory import NodeDirectory

RECORD_MAX_BYTES = 64 << 10
log = logging.getLogger(__name__)


class LastEnd(msgspec.Struct, frozen=True):
    """The error that ended a daemon, and the moment."""

    at_ms: int
    reason: str
    hint: str | None = None


def record_end(directory: NodeDirectory, error: InstepError, at_ms: int) -> None:
    """Keep why this daemon ends. A disk that does not take it changes nothing: the log has it as well."""
    raw = msgspec.json.encode(LastEnd(at_ms, error.reason, error.hint))
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(directory.last_end, flags, 0o600), "wb") as file:
            file.write(raw)
    except OSError as failed:
        log.warning("%s could not be written: %s", directory.last_end, failed.strerror)


def forget_end(directory: NodeDirectory) -> None:
    directory.last_end.unlink(missing_ok=True)


def last_end(directory: NodeDirectory) -> LastEnd | None:
    """The record, or None where the last daemon was stopped, killed, or runs."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        with os.fdopen(os.open(directory.last_end, flags), "rb") as file:
            return msgspec.json.decode(file.read(RECORD_MAX_BYTES), type=LastEnd)
    except (OSError, msgspec.MsgspecError):
        return None  # the log has it as well
