"""Copies of files that change faster than partners can fetch them: few of each, so that they cannot fill the disk.

A copy is made while a scan reads the file, and lies in the history like other contents. The newest ``KEPT`` of a file
stay; older ones go as soon as a generation with a newer one is committed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import msgspec

from instep.core.retention import FREE_MIN_SHARE
from instep.errors import ResourceError
from instep.model.counts import sized
from instep.model.ids import Digest, FilesetName
from instep.store.port import NodeStore
from instep.tree.archive.history import History

KEPT = 3

log = logging.getLogger(__name__)
_decoder = msgspec.msgpack.Decoder(dict[bytes, list[bytes]])


class HotCopies:
    """The copies of one fileset. ``keeps`` says which sizes the history keeps anyway: those are let alone here."""

    def __init__(self, store: NodeStore, fileset: FilesetName, keeps: Callable[[int], bool]) -> None:
        self._store = store
        self._key = f"hot/{fileset}"
        self._keeps = keeps
        self._uncommitted: dict[bytes, Digest] = {}
        self._committed: dict[bytes, Digest] = {}
        self._now: dict[bytes, None] = {}

    @property
    def made(self) -> tuple[bytes, ...]:
        """The files that were copied since ``begin``."""
        return tuple(self._now)

    def begin(self, history: History) -> None:
        """A scan begins. Commits since the last one make older copies needless: they go now."""
        self._now.clear()
        if not self._committed:
            return
        try:
            self._let_go(history)
        except OSError as error:
            log.warning("an old copy of a hot file stays until the next tidying: %s", error)
        self._committed.clear()

    def copy(self, history: History, path: bytes, digest: Digest, fd: int) -> None:
        """Keep what ``fd`` holds. Errors: ``ResourceError`` ``no_room_for_copy``; ``DamagedError``
        ``content_mismatch`` when the file moved on."""
        size = os.fstat(fd).st_size
        if not history.has(digest):
            _require_room(history, size)
            history.put_file(digest, fd, size)
        before = self._uncommitted.get(path)
        if before is not None and before != digest:
            history.drop(before, self._keeps)  # no generation came to name it
        self._uncommitted[path] = digest
        self._now[path] = None

    def committed(self) -> None:
        """A generation names what was copied."""
        self._committed.update(self._uncommitted)
        self._uncommitted.clear()

    def _let_go(self, history: History) -> None:
        raw = self._store.get(self._key)
        kept = _decoder.decode(raw) if raw is not None else {}
        for path, digest in self._committed.items():
            digests = [*(each for each in kept.pop(path, []) if each != digest), digest]
            kept[path] = digests[-KEPT:]
            for old in digests[:-KEPT]:
                if not any(old in others for others in kept.values()):
                    history.drop(Digest(old), self._keeps)
        self._store.put(self._key, msgspec.msgpack.encode(kept))


def _require_room(history: History, size: int) -> None:
    """Room that a reflink would not need is required all the same: the kernel does not say before."""
    disk = os.statvfs(history.place.control)
    free = disk.f_bavail * disk.f_frsize
    if free - size < disk.f_blocks * disk.f_frsize * FREE_MIN_SHARE:
        raise ResourceError(
            "it changes faster than partners can fetch it, and there is no room for a copy: "
            f"{sized(size)}, {sized(free)} are free",
            hint="free space, or ignore the file",
            code="no_room_for_copy",
            need_bytes=size,
            free_bytes=free,
        )
