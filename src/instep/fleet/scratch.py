"""Folders for the length of a call, in the system's temporary directory, where programs of other users reach them.

A folder in use is locked. So the next daemon of this user can remove those that killed programs left, and
``systemd-tmpfiles`` leaves the others alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "instep-scratch-"
_TRIES = 8
_OPENED = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder of mode 0700, removed at the end of the block. ``OSError`` where none can be made."""
    folder, fd = _made()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(fd)


def _made() -> tuple[Path, int]:
    """The folder, and the descriptor that holds its lock. One that is swept before it is locked is made anew."""
    for _ in range(_TRIES):
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(folder, _OPENED)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(fd), os.lstat(folder)):
                    return folder, fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
    raise FileNotFoundError(f"{tempfile.gettempdir()} loses each new folder")


def sweep_scratch() -> int:
    """Remove this user's folders that no program holds; how many. ``OSError`` where they cannot be listed."""
    count = 0
    for name in os.listdir(tempfile.gettempdir()):
        if name.startswith(PREFIX):
            count += _swept(Path(tempfile.gettempdir(), name))
    return count


def _swept(folder: Path) -> bool:
    try:
        fd = os.open(folder, _OPENED)
    except OSError:  # no folder, another user's, or gone by now
        return False
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            return False
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()
    finally:
        os.close(fd)
