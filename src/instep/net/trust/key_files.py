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
    try:
        write_beside(path, data, mode, os.stat(path.parent) if of_node else None).rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise ResourceError(f"{path} cannot be written: {error.strerror}", path=str(path)) from error


def write_beside(path: Path, data: bytes, mode: int, owner: os.stat_result | None) -> Path:
    """The next contents of a file, durable under a name beside it. Root gives them to ``owner``."""
    writing = path.with_name(f".writing-{path.name}")
    with contextlib.suppress(FileNotFoundError):
        writing.unlink()
    descriptor = os.open(writing, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode & 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if owner is not None and os.geteuid() == 0:
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        writing.unlink(missing_ok=True)
        raise
    return writing


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
