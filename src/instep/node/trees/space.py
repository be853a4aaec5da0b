"""Room for a generation before its first byte is written: its need against the free space."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from instep.errors import ResourceError
from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.manifest import GetPage, diff
from instep.tree.journal.plan import find_moves
from instep.tree.root.place import Place


@dataclass(frozen=True, slots=True)
class Room:
    """``need_bytes``: contents that are still to be laid; ``free_bytes``: the space that this user may still fill."""

    need_bytes: int
    free_bytes: int

    @property
    def is_enough(self) -> bool:
        return self.need_bytes <= self.free_bytes


def room_for(place: Place, base: Digest | None, target: Digest, get: GetPage) -> Room:
    """For making a tree with the manifest ``base`` (None: nothing) the one of ``target``. Directories that only move
    need nothing, sparse files and further names of one file count as nothing, what an interrupted stage holds is
    taken off. A file system that counts no space is asked nothing."""
    usage = shutil.disk_usage(place.control)
    if not usage.total:  # a file system that counts nothing, as ramfs: its free space is unknown
        return Room(0, 0)
    free = usage.free
    if (need := _need(base, target, get, lambda _: False)) <= free:
        return Room(need, free)
    moved = find_moves(diff(base, target, get))
    need = _need(base, target, get, lambda path: moved.live_path(path) is not None)
    return Room(max(0, need - _held(place.stage)), free)


def require_room(place: Place, base: Digest | None, target: Digest, get: GetPage) -> None:
    """``ResourceError`` ``no_space`` with both values when there is not enough."""
    room = room_for(place, base, target, get)
    if not room.is_enough:
        raise ResourceError(
            f"needs {room.need_bytes} bytes, free are {room.free_bytes} on the file system of {place.control}",
            hint=f"free space there: instep archive prune {place.fileset} --dry-run; it goes on by itself",
            code="no_space",
            need_bytes=room.need_bytes,
            free_bytes=room.free_bytes,
        )


def _need(base: Digest | None, target: Digest, get: GetPage, is_moved: Callable[[bytes], bool]) -> int:
    return sum(
        change.new.size
        for change in diff(base, target, get)
        if change.new is not None and _is_laid(change.old, change.new) and not is_moved(change.path)
    )


def _is_laid(old: Entry | None, new: Entry) -> bool:
    """Whether its contents are written anew. Contents that may take less than their size are left out: this
    check must never refuse an apply that has room, and a disk that fills up meanwhile is met by ``disk_full``."""
    extra = new.extra
    if new.kind is not Kind.FILE or (extra is not None and (extra.sparse or extra.link_group is not None)):
        return False
    if extra is not None and extra.chunks is not None and old is not None and old.kind is Kind.FILE:
        return False  # a large file that changed may share blocks with the live one
    return old is None or old.kind is not Kind.FILE or old.digest != new.digest


def _held(folder: Path) -> int:
    held = 0
    for where, _, files in os.walk(folder):
        for name in files:
            try:
                held += os.lstat(os.path.join(where, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return held
