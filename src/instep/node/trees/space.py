"""Room for a generation before its first byte is written: its need against the free space."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from instep.errors import ResourceError
from instep.model.counts import sized
from instep.model.definition import Preserve
from instep.model.ids import Digest
from instep.model.manifest.entry import Kind
from instep.model.manifest.manifest import GetPage, diff
from instep.model.paths import shown
from instep.tree.journal.plan import find_moves
from instep.tree.root.place import Place

SPARE_SHARE, SPARE_MAX_BYTES = 0.005, 64 << 20
"""So much of a disk stays free: others write there too, and this node's journal and archive index."""
HOLES_FROM = 1 << 20
"""A smaller file has no holes worth a hint."""


@dataclass(frozen=True, slots=True)
class Room:
    """``need_bytes``: contents that are still to be laid; ``free_bytes``: the space that this user may still fill, of
    which ``spare_bytes`` stay free where anything is laid."""

    need_bytes: int
    free_bytes: int
    spare_bytes: int = 0

    @property
    def is_enough(self) -> bool:
        return self.need_bytes + self.spare_bytes <= self.free_bytes


def room_for(place: Place, base: Digest | None, target: Digest, get: GetPage) -> Room:
    """For making a tree with the manifest ``base`` (None: nothing) the one of ``target``. Directories that only move
    need nothing, sparse files and further names of one file count as nothing, what an interrupted stage holds is
    taken off. A file system that counts no space is asked nothing."""
    usage = shutil.disk_usage(place.control)
    if not usage.total:  # a file system that counts nothing, as ramfs: its free space is unknown
        return Room(0, 0)
    free, spare = usage.free, min(int(usage.total * SPARE_SHARE), SPARE_MAX_BYTES)
    room = _room(_laid(base, target, get, lambda _: False), free, spare)
    if room.is_enough:
        return room
    moved = find_moves(diff(base, target, get))
    room = _room(_laid(base, target, get, lambda path: moved.live_path(path) is not None), free, spare)
    return replace(room, need_bytes=max(0, room.need_bytes - _held(place.stage)))


def require_room(
    place: Place, base: Digest | None, target: Digest, get: GetPage, preserve: Collection[Preserve]
) -> None:
    """``ResourceError`` ``no_space`` with both values when there is not enough. A file that alone does not fit may have
    holes, which take room where ``preserve`` leaves them out."""
    room = room_for(place, base, target, get)
    if room.is_enough:
        return
    hint = f"free space there: instep archive prune {place.fileset} --dry-run; it goes on by itself"
    size, largest = max((size, path) for path, size in _laid(base, target, get, lambda _: False))
    if Preserve.SPARSE not in preserve and size > max(room.free_bytes, HOLES_FROM):
        keys = ",".join(each.value for each in (*preserve, Preserve.SPARSE))
        step = f"instep fileset set {place.fileset} preserve={keys}"
        hint += f"; if {shown(largest)} has holes, at the writer: {step}"
    raise _no_space(place, room, hint)


def require_free_twice(place: Place, size_bytes: int) -> None:
    """``ResourceError`` ``no_space`` where contents of so many bytes cannot be received and then staged beside the
    tree: until the switch they lie there twice."""
    usage = shutil.disk_usage(place.control)
    if not usage.total or not size_bytes:
        return
    room = Room(2 * size_bytes, usage.free, min(int(usage.total * SPARE_SHARE), SPARE_MAX_BYTES))
    if not room.is_enough:
        hint = f"free space there: instep archive prune {place.fileset} --dry-run"
        need = f"{sized(size_bytes)} twice, as received and as staged"
        raise _no_space(place, room, hint, need)


def _no_space(place: Place, room: Room, hint: str, need: str = "") -> ResourceError:
    return ResourceError(
        f"no space on the file system of {place.control}: the new contents take {need or sized(room.need_bytes)}, "
        f"{sized(room.free_bytes)} are free, and {sized(room.spare_bytes)} are kept free",
        hint=hint,
        code="no_space",
        need_bytes=room.need_bytes,
        free_bytes=room.free_bytes,
    )


def _room(laid: Iterable[tuple[bytes, int]], free: int, spare: int) -> Room:
    need, is_laying = 0, False
    for _, size in laid:
        need, is_laying = need + size, True
    return Room(need, free, spare if is_laying else 0)


def _laid(
    base: Digest | None, target: Digest, get: GetPage, is_moved: Callable[[bytes], bool]
) -> Iterator[tuple[bytes, int]]:
    """The least that each file which is laid anew takes. Contents that may take less than their size count as nothing:
    no apply that has room is refused."""
    for change in diff(base, target, get):
        old, new = change.old, change.new
        if new is None or new.kind is not Kind.FILE or is_moved(change.path):
            continue
        is_file = old is not None and old.kind is Kind.FILE
        if old is not None and is_file and old.digest == new.digest:
            continue
        extra = new.extra
        may_be_less = extra is not None and (extra.sparse or extra.link_group is not None)
        shares = (
            extra is not None and extra.chunks is not None and is_file
        )  # with the live file, where it can
        yield change.path, 0 if may_be_less or shares else new.size


def _held(folder: Path) -> int:
    held = 0
    for where, _, files in os.walk(folder):
        for name in files:
            try:
                held += os.lstat(os.path.join(where, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return held
