"""Structured logs: one JSON line a decision, to standard error, where systemd or ``instep start`` keeps them.

A daemon that ``instep start`` detached writes ``daemon.log`` of its node directory; no other program keeps that file
small, so the daemon does: ``daemon.log.1`` is the one before, and the oldest goes.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import os
import sys
from pathlib import Path
from typing import TextIO

FILE_MAX_BYTES = 16 << 20
FILES_KEPT = 4
_MODE = 0o600


class JsonLines(logging.Formatter):
    """The line of a record, with the facts of an event where it is one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "where": record.name.removeprefix("instep."),
            "text": record.getMessage(),
        }
        about = getattr(record, "about", {})
        line |= {key: value for key, value in about.items() if value is not None and key not in line}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class BoundedFile(logging.StreamHandler[TextIO]):
    """Lines to a descriptor that is open on ``path``, with everything else that the process writes there. Once the file
    has ``max_bytes``, it is renamed and the descriptor is opened anew."""

    def __init__(self, path: Path, stream: TextIO, fd: int, max_bytes: int = FILE_MAX_BYTES) -> None:
        super().__init__(stream)
        self._path, self._fd, self._max_bytes = path, fd, max_bytes
        self._at_bytes = max_bytes

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        size = os.fstat(self._fd).st_size
        if size < self._max_bytes:
            self._at_bytes = self._max_bytes  # a fresh file, or one that a person emptied
        elif size >= self._at_bytes:
            self._at_bytes = size + self._max_bytes  # before the next attempt, where this one fails
            try:
                self._begin_anew()
            except OSError as error:
                logging.getLogger(__name__).warning("%s grows: it cannot be renamed: %s", self._path, error)

    def _begin_anew(self) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            names = [self._path.name, *(f"{self._path.name}.{n}" for n in range(1, FILES_KEPT))]
            for older, newer in reversed(list(zip(names[1:], names, strict=False))):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(newer, older, src_dir_fd=folder, dst_dir_fd=folder)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            fresh = os.open(names[0], flags, _MODE, dir_fd=folder)
            try:
                os.dup2(fresh, self._fd)
            finally:
                os.close(fresh)
        finally:
            os.close(folder)


def set_up_logs(path: Path) -> None:
    """All of our lines except those for debugging; of the libraries only warnings. Where standard error is the file
    ``path``, it is kept small."""
    fd = sys.stderr.fileno()
    try:
        is_own = os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        is_own = False  # a file that is not there, or that cannot be looked at, is not kept small
    handler = BoundedFile(path, sys.stderr, fd) if is_own else logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("instep").setLevel(logging.INFO)
    logging.getLogger("instep.net.http").setLevel(logging.CRITICAL)
