"""Mounts below a root, as the kernel's list changes: no watch of files reports a mount or an umount."""

from __future__ import annotations

import asyncio
import os
import re
import select
from collections.abc import Callable
from pathlib import Path

TABLE = "/proc/self/mountinfo"
_ESCAPED = re.compile(rb"\\([0-7]{3})")


def mounts_below(root: bytes, table: bytes) -> frozenset[bytes]:
    """The mount points properly below ``root``, relative to it."""
    top = root.rstrip(b"/") + b"/"
    found = (_ESCAPED.sub(lambda m: bytes([int(m[1], 8)]), line.split()[4]) for line in table.splitlines())
    return frozenset(at[len(top) :] for at in found if at.startswith(top))


class MountWatch:
    """Calls ``changed(mounted, unmounted)`` with paths below the root. Where the kernel has no such list it is
    never called, and scans find the mounts."""

    def __init__(self, root: Path, changed: Callable[[frozenset[bytes], frozenset[bytes]], None]) -> None:
        self._root = os.fsencode(os.path.realpath(root))
        self._changed = changed
        self._table = self._epoll = None
        try:
            self._table = open(TABLE, "rb")  # noqa: SIM115  closed by close()
        except OSError:
            return
        self._known = self._read()
        # The list is always readable. That it changed is an exceptional event, which takes an epoll of its own.
        self._epoll = select.epoll()
        self._epoll.register(self._table, select.EPOLLPRI)
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._told)

    def _read(self) -> frozenset[bytes]:
        assert self._table is not None
        self._table.seek(0)
        return mounts_below(self._root, self._table.read())

    def _told(self) -> None:
        assert self._epoll is not None
        self._epoll.poll(0)
        before, self._known = self._known, self._read()
        if before != self._known:
            self._changed(self._known - before, before - self._known)

    def close(self) -> None:
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
        if self._table is not None:
            self._table.close()
