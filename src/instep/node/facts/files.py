"""Facts that are read from files: regular ones only, opened without waiting, read up to a limit."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from blake3 import blake3

TEXT_MAX = 1 << 20
SECRET_MAX = 64 << 10
DIGEST_MAX = 4 << 30
LIST_MAX = 1_000
_PIECE = 1 << 20
T = TypeVar("T")


class _Told(Exception):
    """Why there is no value, as the fact says it."""


@contextmanager
def _opened(path: Path, limit: int) -> Iterator[int]:
    """A descriptor of a regular file of at most ``limit`` bytes. A pipe or device is refused, not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _Told("<not a regular file>")
        if found.st_size > limit:
            raise _Told(f"<{found.st_size} bytes long, the limit is {limit}>")
        yield descriptor
    finally:
        os.close(descriptor)


def _said(read: Callable[[Path], T]) -> Callable[[Path], T | str]:
    """``read``, or why there is no value."""

    @functools.wraps(read)
    def said(path: Path) -> T | str:
        try:
            return read(path)
        except _Told as told:
            return str(told)

    return said


@_said
def text_of(path: Path) -> str:
    """The file's text; ``OSError`` when it cannot be read."""
    with _opened(path, TEXT_MAX) as descriptor:
        return _read(descriptor, TEXT_MAX).decode("utf-8", "replace")


@_said
def secret_of(path: Path) -> bytes:
    """The file's bytes, or why there are none."""
    with _opened(path, SECRET_MAX) as descriptor:
        return _read(descriptor, SECRET_MAX)


def _read(descriptor: int, limit: int) -> bytes:
    pieces = []
    left = limit
    while left and (piece := os.read(descriptor, min(left, _PIECE))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


@_said
def digest_of(path: Path) -> str:
    """BLAKE3 of the file in hex; read again only when its stat has changed."""
    with _opened(path, DIGEST_MAX) as descriptor:
        of = os.fstat(descriptor)
    return _digest(str(path), (of.st_dev, of.st_ino, of.st_ctime_ns, of.st_mtime_ns, of.st_size))


@functools.lru_cache(maxsize=128)
def _digest(path: str, of_stat: tuple[int, ...]) -> str:
    hasher = blake3()
    left = of_stat[-1]
    with _opened(Path(path), DIGEST_MAX) as descriptor:
        while left > 0 and (piece := os.read(descriptor, _PIECE)):
            hasher.update(piece)
            left -= len(piece)
    return hasher.hexdigest()


def names_in(folder: Path) -> str:
    """The names in a directory, sorted, one a line."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            names.append(entry.name)
            if len(names) > LIST_MAX:
                return f"<more than {LIST_MAX} names>"
    return "\n".join(sorted(names))
