"""Descriptors: the flags with which files are opened, that each is closed where its use ends, and errors to expect."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""For a name that leads to anything by now: no symlink is followed, no pipe is waited for, no terminal is taken."""
LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
REPLACE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def closing_fd(fd: int) -> Iterator[int]:
    """Lend ``fd``, and close it at the end of the block."""
    try:
        yield fd
    finally:
        os.close(fd)


class Tolerated:
    """Ends the block at an ``OSError`` with one of these numbers, as ``contextlib.suppress`` does for classes."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, OSError) and error.errno in self._numbers
