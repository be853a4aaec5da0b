"""Files of keys and certificates: written whole, and changed by one program at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from instep.errors import ContentionError, ResourceError

_LOCK_POLL_S = 0.02


@contextlib.contextmanager
def locked(path: Path, flags: int, within_s: float, busy: ContentionError) -> Iterator[None]:
    """Hold the lock of a file or folder, so that the daemon and commands exclude each other; ``busy`` is raised when
    another program holds it for longer."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        pause = threading.Event()  # a lock has no deadline of its own
        for _ in range(round(within_s / _LOCK_POLL_S)):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pause.wait(_LOCK_POLL_S)
        else:
            raise busy
        yield
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes, *, mode: int, of_node: bool = False) -> None:
    """Replace a file atomically and durably; it is never readable by more than ``mode`` says. A file ``of_node``
    that root writes belongs to the folder's user: the daemon must read what a command of root's wrote."""
    writing = path.with_name(f".writing-{path.name}")
    try:
        with contextlib.suppress(FileNotFoundError):
            writing.unlink()
        descriptor = os.open(writing, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            if of_node and os.geteuid() == 0:
                owner = os.stat(path.parent)
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        writing.rename(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ResourceError(f"{path} cannot be written: {error.strerror}", path=str(path)) from error
