"""The common part of doing and undoing the steps of a journal: an open root and stage, and how objects go between."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from instep.model.definition import decode_definition
from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import is_below, parent_of
from instep.tree.journal.journal import Journal, Op, Step
from instep.tree.journal.renames import inode_at, put_new
from instep.tree.objects.fidelity import Local, apply_metadata
from instep.tree.objects.inode import NOT_THERE, Inode, hold_directory, let_owner
from instep.tree.objects.laying import SYNC_SINGLY_MAX, staged_attribute, sync_each
from instep.tree.objects.projects import give_project
from instep.tree.root.beneath import Root, syncfs
from instep.tree.root.descriptors import Tolerated, closing_fd
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.kernel import ignores_modes, mounts_in
from instep.tree.root.place import Place
from instep.tree.scan.rules import Rules
from instep.tree.scan.subtree import holds_ignored
from instep.tree.stage.shortage import METADATA, shortage_named

_ENTRY_MOVED = register("switch.entry_moved")

REPORTED_MAX = 1000
"""So many drifted and kept paths are named; more are counted only by the archive's index."""


class Paths(list[bytes]):
    """Paths of a report, each once, and a bounded number of them."""

    def note(self, path: bytes) -> None:
        if len(self) < REPORTED_MAX and path not in self:
            self.append(path)


@dataclass(slots=True)
class Switched:
    """The findings of a switch. ``drifted``: paths at which something else was than the base said, all archived (or
    gone); ``kept``: directories that stay because they hold ignored paths or mounts; ``missed``: steps that could not
    be done because of drift and that the next drift scan puts right; ``held``: directories that could not become
    their target entries, because ignored paths lie in them."""

    journal: Journal
    drifted: Paths = field(default_factory=Paths)
    kept: Paths = field(default_factory=Paths)
    missed: Paths = field(default_factory=Paths)
    held: Paths = field(default_factory=Paths)


class StepWork:
    """The steps of one journal over an open root and stage."""

    def __init__(
        self, place: Place, journal: Journal, root: Root, staged: Root, local: Local, outcome: Switched
    ) -> None:
        self.place = place
        self.journal = journal
        self.root = root
        self.staged = staged
        self.local = local
        self.outcome = outcome
        self.rules = Rules(decode_definition(journal.header.definition))
        self.mounts = mounts_in(root)
        self.touched: set[bytes] = set()
        """Directories of the tree, and files that are changed in place."""
        self.taken: set[bytes] = {b"o"}
        """Directories of the stage."""
        self.ignores_modes = ignores_modes()
        self.objects_fd = staged.open_dir(b"o")

    def close(self) -> None:
        os.close(self.objects_fd)

    def object_ino(self, key: bytes) -> int | None:
        return inode_at(self.objects_fd, key)

    def live_ino(self, path: bytes) -> int | None:
        found = self.root.stat_or_none(path)
        return None if found is None else found.st_ino

    def live_directory(self, path: bytes) -> os.stat_result | None:
        found = self.root.stat_or_none(path)
        return found if found is not None and stat.S_ISDIR(found.st_mode) else None

    def is_directory(self, step: Step) -> bool:
        return step.new is not None and step.new.kind is Kind.DIR

    def is_mount(self, path: bytes, found: os.stat_result) -> bool:
        """An overlay shows files of its layers with other devices, and they are no mounts."""
        return path in self.mounts or (stat.S_ISDIR(found.st_mode) and found.st_dev != self.root.device)

    def holds_ignored(self, tree: Root, at: bytes, path: bytes) -> bool:
        """Whether anything ignored, or a mount, lies in the directory ``at`` of ``tree``, which is ``path`` of the
        root or was: then it cannot go with its other contents."""
        if any(is_below(mount, path) for mount in self.mounts):
            return True
        return holds_ignored(tree, self.rules, at, path)

    def let_move(self, dir_fd: int, name: bytes) -> None:
        """Moving a directory elsewhere writes its ``..``, which takes its write bit where the daemon is not root. A
        displaced one keeps the bit in the archive; for a moved one the plan has a step that takes it away again."""
        if self.ignores_modes:
            return
        try:
            let_owner(dir_fd, name, 0o200)
        except FileNotFoundError:
            return

    def settled(self, tree: Root, path: bytes, to_fd: int, error: OSError) -> bool:
        """Whether an object may be moved now that could not be: another project's directory takes only its own."""
        return error.errno == errno.EXDEV and give_project(tree, path, to_fd)

    def take_below(self, directory: bytes, tree: Root, slot: bytes) -> bool:
        """Take all that may go from the live ``directory`` to ``slot`` of ``tree``, entry by entry; whether something
        stays. After a crash simply again."""
        stays = False
        self.touched.add(directory)
        (self.touched if tree is self.root else self.taken).add(slot)
        if not self.ignores_modes:
            let_owner(*self.root.open_parent(directory), 0o700)
        for name in self.root.names(directory):
            path, to = directory + b"/" + name, slot + b"/" + name
            found = self.root.stat_or_none(path)
            if found is None:
                continue
            is_dir = stat.S_ISDIR(found.st_mode)
            if self.is_mount(path, found) or self.rules.ignored(path, is_dir):
                stays = True
            elif is_dir:
                make_like(tree, to, self.root, path)
                stays |= self.take_below(path, tree, to)
            else:
                stays |= self._take_one(path, tree, to)
        return self._removed(directory) if not stays else True

    def _take_one(self, path: bytes, tree: Root, to: bytes) -> bool:
        live_fd, live_name = self.root.open_parent(path)
        to_fd, to_name = tree.open_parent(to)
        try:
            self.put_new_of(self.root, path, live_fd, live_name, to_fd, to_name)
        except FileExistsError:
            return True  # another one with this name was taken before: this one came later, and is drift
        failpoint(_ENTRY_MOVED)
        self.touch(path)
        return False

    def put_new_of(
        self, tree: Root, path: bytes, from_fd: int, from_name: bytes, to_fd: int, to_name: bytes
    ) -> None:
        """``put_new`` of the object ``path`` of ``tree``."""
        try:
            put_new(from_fd, from_name, to_fd, to_name)
        except OSError as error:
            if not self.settled(tree, path, to_fd, error):
                raise
            put_new(from_fd, from_name, to_fd, to_name)

    def put_between(self, from_tree: Root, at: bytes, to_tree: Root, path: bytes) -> None:
        """``put_new`` from a tree to another; the second parent may push the first out of the cache."""
        from_fd, from_name = from_tree.open_parent(at)
        with closing_fd(os.dup(from_fd)) as held:
            put_new(held, from_name, *to_tree.open_parent(path))

    def _removed(self, directory: bytes) -> bool:
        """Remove an emptied directory; whether it stays, because something came meanwhile."""
        self.root.forget(directory)
        live_fd, live_name = self.root.open_parent(directory)
        with Tolerated(errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
            os.rmdir(live_name, dir_fd=live_fd)
            self.touch(directory)
            return False
        return True

    def apply(self, step: Step, entry: Entry) -> None:
        """To the very object that was looked at when the journal was sealed, if it is there still."""
        with Tolerated(*NOT_THERE):
            dir_fd, name = self.root.open_parent(step.path)
            apply_metadata(dir_fd, name, entry, self.local, ino=step.ino, large_value=self.attribute)
            return
        self.outcome.missed.note(step.path)

    def set_mode(self, path: bytes, mode: int, ino: int = 0) -> None:
        """Of the live directory ``path``, if it is one still."""
        held = hold_directory(self.root, path, ino)
        if held is not None:
            with held:
                held.set_mode(mode)

    def set_time(self, path: bytes, mtime_ns: int) -> None:
        held = hold_directory(self.root, path)
        if held is not None:
            with held:
                held.set_time(mtime_ns)

    def attribute(self, digest: Digest) -> bytes:
        return staged_attribute(self.staged, digest)

    def touch(self, path: bytes) -> None:
        if len(self.touched) <= SYNC_SINGLY_MAX:
            self.touched.add(parent_of(path))

    def sync(self) -> None:
        """Make durable all that the steps changed, also what was done before a crash: a killed daemon left it to the
        kernel, and the power may fail after the next daemon recorded it."""
        for step in self.journal.steps():
            self.touch(step.path)
            if step.op is Op.MOVE:
                self.touch(step.source)
            elif step.op in (Op.META, Op.MODE, Op.TIME):
                self.touched.add(step.path)
            if len(self.touched) + len(self.taken) > SYNC_SINGLY_MAX:
                break
        if len(self.touched) + len(self.taken) <= SYNC_SINGLY_MAX:
            try:
                sync_each(self.staged, self.taken)
                sync_each(self.root, self.touched)
                return
            except PermissionError:
                pass  # a mode that we may not open, without being root: the whole file system is synced instead
        syncfs(self.objects_fd)


_DOING = {
    Op.NEW: "made",
    Op.CHANGE: "replaced",
    Op.MOVE: "moved",
    Op.REMOVE: "removed",
    **dict.fromkeys((Op.META, Op.MODE, Op.TIME), METADATA),
}


def path_named(place: Place, step: Step, doing: str = "") -> AbstractContextManager[None]:
    """Let the error of a step name the path that people know, not the slot in the stage."""
    return shortage_named(place, doing or _DOING.get(step.op, "switched"), step.path)


def make_like(tree: Root, to: bytes, like: Root, path: bytes) -> None:
    """A directory ``to`` of ``tree`` with mode and owner of ``path``, open to this process; nothing if it is there."""
    to_fd, to_name = tree.open_parent(to)
    try:
        os.mkdir(to_name, 0o700, dir_fd=to_fd)
    except FileExistsError:
        return  # begun before
    found = like.stat(path)
    with Inode(to_fd, to_name) as held:
        held.require_new_directory()
        if (held.stat.st_uid, held.stat.st_gid) != (found.st_uid, found.st_gid) and os.geteuid() == 0:
            held.set_owner(found.st_uid, found.st_gid)
        held.set_mode(stat.S_IMODE(found.st_mode) & 0o1777 | 0o700)
