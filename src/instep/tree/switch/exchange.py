"""Swap the root with the next tree in one call. Implements "Switched" of section 7 of ``docs/spec/journal.md``.

``check_swap`` looks before the point of no return; ``swap`` runs after it, and again where a crash interrupted it:
which inode the root is says how far it came.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from instep.errors import ContentionError, RefusedError
from instep.model.paths import parent_of, shown
from instep.tree.journal.journal import Journal, Op, Step
from instep.tree.objects.laying import remove_object, sync_directory
from instep.tree.root.beneath import NOT_BENEATH, Root, rename_exchange
from instep.tree.root.control_folder import open_control
from instep.tree.root.descriptors import LIST, Tolerated, closing_fd
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.kernel import mounts_below
from instep.tree.root.marker import open_marked
from instep.tree.root.place import Place
from instep.tree.stage.next_tree import NEXT, refused

_CARRYING = register("exchange.carrying")
_CARRIED = register("exchange.carried")
_SWAPPING = register("exchange.swapping")
_SWAPPED = register("exchange.swapped")
_SYNCED = register("exchange.synced")
_WITHDRAWN = register("exchange.withdrawn")


def check_swap(place: Place, journal: Journal) -> None:
    """Whether the swap can be begun; nothing has moved yet.

    ``ContentionError`` ``root_changed`` when another directory is the root by now, which is staged anew;
    ``RefusedError`` ``exchange_refused``. ``OSError``.
    """
    found = os.stat(place.root, follow_symlinks=False).st_ino
    if found != journal.header.root_ino:
        raise ContentionError(
            f"{place.root} is another directory than when the generation was staged",
            hint="it is staged again by itself",
            code="root_changed",
            expected_inode=journal.header.root_ino,
            found_inode=found,
        )
    mounts = mounts_below(os.path.realpath(os.fsencode(place.root)))
    if mounts:
        raise refused(place, "a root with no mount at or below it", ", ".join(map(shown, mounts[:20])))
    with Root(place.root) as live:
        for step in _carried(journal):
            status = live.stat_or_none(step.path)
            if status is None or not stat.S_ISDIR(status.st_mode):
                continue
            parent, name = live.open_parent(step.path)
            if not os.access(name, os.W_OK, dir_fd=parent, effective_ids=True):
                needed = f"carried directories that uid {os.geteuid()} may write, to move them"
                what = f"{shown(step.path)}, uid {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}"
                raise refused(place, needed, what)


def swap(place: Place, journal: Journal, stage: bytes) -> None:
    """Carry over what is carried, exchange root and ``next``, make it durable. ``RefusedError`` ``root_replaced``
    when the root is neither of the two."""
    header = journal.header
    here = os.stat(place.root, follow_symlinks=False).st_ino
    if here == header.root_ino:
        with open_marked(place.root, place.fileset) as live, Root(stage + b"/" + NEXT) as tree:
            for step in _carried(journal):
                failpoint(_CARRYING)
                _carry(live, tree, step)
        failpoint(_CARRIED)
        parent = os.open(place.root.parent, LIST)
        with closing_fd(parent) as parent_fd, closing_fd(os.open(stage, LIST)) as stage_fd:
            failpoint(_SWAPPING)
            _swap_root(place, header.root_ino, stage_fd, parent_fd)
            failpoint(_SWAPPED)
    elif here == header.next_ino:
        _carry_late(place, journal, stage)
    else:
        raise RefusedError(
            f"{place.root} is neither the tree before the interrupted switch nor the one after it",
            hint=f"another directory was put there; the two are inodes {header.root_ino} and {header.next_ino}",
            code="root_replaced",
            found_inode=here,
        )
    # The stage is synced as it becomes the archive's.
    sync_directory(place.root.parent)
    with open_marked(place.root, place.fileset) as live, Root(stage + b"/" + NEXT) as old:
        _sync_carried(journal, live, old)
    failpoint(_SYNCED)


def _swap_root(place: Place, root_ino: int, stage_fd: int, parent_fd: int) -> None:
    """``ContentionError`` ``root_changed`` when another directory came away than the root; it is back then."""
    name = os.fsencode(place.root.name)
    rename_exchange(stage_fd, NEXT, parent_fd, name)
    came = os.stat(NEXT, dir_fd=stage_fd, follow_symlinks=False).st_ino
    if came != root_ino:
        rename_exchange(stage_fd, NEXT, parent_fd, name)
        raise ContentionError(
            f"another directory than the root came away from {place.root} in the exchange, and was put back",
            hint=f"find out which program renames directories in {place.root.parent}; it is staged again by itself",
            code="root_changed",
            expected_inode=root_ino,
            found_inode=came,
        )


def withdraw(place: Place, journal: Journal, stage: bytes) -> None:
    """The kernel refused the exchange: carried paths go back, and the journal goes back to its stage."""
    with open_marked(place.root, place.fileset) as live, Root(stage + b"/" + NEXT) as tree:
        for step in _carried(journal):
            found = live.stat_or_none(step.path)
            if found is not None and found.st_ino == step.ino:
                _exchange(live, tree, step.path)
        _sync_carried(journal, live, tree)  # before the journal that says what was carried goes
    with closing_fd(open_control(place)) as control, closing_fd(os.open(stage, LIST)) as stage_fd:
        os.rename(b"journal", b"journal", src_dir_fd=control, dst_dir_fd=stage_fd)
        os.fsync(stage_fd)
        os.fsync(control)
    failpoint(_WITHDRAWN)


def _carried(journal: Journal) -> Iterator[Step]:
    return (step for step in journal.steps() if step.op is Op.CARRY)


def _carry(live: Root, tree: Root, step: Step) -> None:
    stand_in = tree.stat_or_none(step.path)
    if stand_in is None or stand_in.st_ino != step.ino:
        return  # carried before the crash
    if live.stat_or_none(step.path) is None:
        remove_object(*tree.open_parent(step.path))
        return
    _exchange(live, tree, step.path)


def _carry_late(place: Place, journal: Journal, stage: bytes) -> None:
    """A power cut may have kept the swap and lost what was carried before it: the stand-ins came into the live tree."""
    with open_marked(place.root, place.fileset) as live, Root(stage + b"/" + NEXT) as old:
        for step in _carried(journal):
            here = live.stat_or_none(step.path)
            if here is not None and here.st_ino == step.ino and old.stat_or_none(step.path) is not None:
                _exchange(live, old, step.path)


def _exchange(live: Root, tree: Root, path: bytes) -> None:
    """Swap what is at ``path`` in both trees; the directory that holds it keeps its time in the next tree."""
    live_fd, name = live.open_parent(path)
    tree_fd, _ = tree.open_parent(path)
    before = os.fstat(tree_fd)
    rename_exchange(live_fd, name, tree_fd, name)
    os.utime(b"/proc/self/fd/%d/." % tree_fd, ns=(before.st_atime_ns, before.st_mtime_ns))
    live.forget(path)
    tree.forget(path)


def _sync_carried(journal: Journal, *trees: Root) -> None:
    """Sync the folders that gave or got carried paths."""
    parents = {parent_of(step.path) for step in _carried(journal)}
    for tree in trees:
        for parent in sorted(parents):
            with Tolerated(*NOT_BENEATH), closing_fd(tree.open_dir(parent)) as fd:  # it may be gone meanwhile
                os.fsync(fd)
