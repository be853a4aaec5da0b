"""Notices that a person or program edited ``instep.toml``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

LOOK_S = 0.5


class ConfigFile:
    """The stat of the file when it was read last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = self._stat()

    def note(self) -> None:
        """It is about to be read."""
        self._read = self._stat()

    async def mind(self, reload: Callable[[], None]) -> None:
        """Call ``reload``, which notes, whenever the file changed and was then the same for one look."""
        seen = self._read
        while True:
            await asyncio.sleep(LOOK_S)
            found = self._stat()
            if found != self._read and found == seen:
                reload()
            seen = found

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
