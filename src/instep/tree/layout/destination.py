"""The destination of a move: apart from the source, with a place of its own for each original, and with room."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from instep.errors import RefusedError, ResourceError
from instep.model.counts import sized
from instep.model.manifest.entry import Kind
from instep.model.paths import shown
from instep.tree.layout.originals import Original, Survey
from instep.tree.root.beneath import NOT_BENEATH, Root
from instep.tree.root.descriptors import Tolerated


def check_apart(source: Root, dest: Path, found: Survey) -> None:
    """Neither side may lie in what the other moves, by whatever name or mount it is reached."""
    at = Path(os.fsdecode(source.path))
    above = set(_inodes_above(dest))
    moved = {
        (each.stat.st_dev, each.stat.st_ino): each.path
        for each in found.originals.values()
        if each.kind is Kind.DIR
    }
    inside = next((moved[key] for key in above if key in moved), None)
    here = os.fstat(source.fd)
    is_source = _inode_of(dest) == (here.st_dev, here.st_ino)
    holds_source = _inode_of(dest) in set(_inodes_above(at))
    if inside is None and not is_source and not holds_source:
        return
    where = at if inside is None else at / os.fsdecode(inside)
    raise RefusedError(
        f"{dest} and {where} lie in each other",
        hint="name a destination outside of the moved files",
        code="destination_inside",
        source=str(where),
        dest=str(dest),
    )


def check_targets(found: Survey) -> None:
    targets: dict[bytes, Original] = {}
    for each in found.originals.values():
        other = targets.setdefault(each.target, each)
        if other is not each and not (other.kind is Kind.DIR and each.kind is Kind.DIR):
            raise RefusedError(
                f"{shown(other.path)} and {shown(each.path)} would both become {shown(each.target)}",
                hint="write a layout that gives each its own place",
                code="layout_collides",
                paths=[shown(other.path), shown(each.path)],
            )


def check_room(dest: Path, to_lay: Iterable[Original]) -> None:
    laid = Survey({each.path: each for each in to_lay})
    at = next(each for each in (dest, *dest.parents) if each.is_dir())
    room = os.statvfs(at)
    free = room.f_bavail * room.f_frsize
    if laid.bytes_needed > free or (room.f_files and len(laid.originals) > room.f_favail):
        raise ResourceError(
            f"{at} has no room: {sized(laid.bytes_needed)} in {len(laid.originals)} objects are to be copied, "
            f"{sized(free)} are free",
            hint=f"free space: df -h {at}; df -i {at}",
            code="no_room",
            needed_bytes=laid.bytes_needed,
            free_bytes=free,
        )


def _inode_of(path: Path) -> tuple[int, int] | None:
    with Tolerated(*NOT_BENEATH):
        found = os.stat(path)
        return found.st_dev, found.st_ino
    return None


def _inodes_above(path: Path) -> Iterator[tuple[int, int]]:
    """Of ``path`` and of each directory above it, where symbolic links were followed."""
    real = Path(os.path.realpath(path))
    for each in (real, *real.parents):
        found = _inode_of(each)
        if found is not None:
            yield found
