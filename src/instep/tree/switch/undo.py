"""Take the steps of an unfinished switch back: section 5 of ``docs/spec/journal.md``.

Like a switch, an undo looks at which inode is where before each step; so it can be begun anywhere and again. It goes
past a step that cannot be taken back: as much of the tree as can be is of one generation. A file that a
program wrote meanwhile stays where it is; an object that then cannot return to its place goes to the archive.
"""

from __future__ import annotations

import contextlib
import os
import stat

from instep.errors import InstepError
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.manifest import GetPage, PageMissing
from instep.model.manifest.walk import Reader, entries_below
from instep.tree.journal.journal import Journal, Op, Phase, Step
from instep.tree.journal.renames import displaced_names, inode_at, place_over, put_new, take_away
from instep.tree.objects.fidelity import Local, apply_metadata, expected_local
from instep.tree.objects.inode import NOT_THERE, hold_directory
from instep.tree.objects.laying import remove_object
from instep.tree.root import beneath
from instep.tree.root.beneath import RenameUnsupportedError, Root
from instep.tree.root.control_folder import on_opened
from instep.tree.root.descriptors import Tolerated
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.marker import open_marked
from instep.tree.root.place import Place
from instep.tree.scan.subtree import is_like, subtree_differences, walk_below
from instep.tree.switch.left_objects import LEFT, archive_left
from instep.tree.switch.step_work import StepWork, Switched, make_like, path_named
from instep.tree.switch.steps import SINGLY

_BACK = "brought back"
_UNDOING = register("undo.undoing")
_STEP_BEFORE = register("undo.step.before")
_STEP_AFTER = register("undo.step.after")
_SYNCED = register("undo.synced")
_ARCHIVED = register("undo.archived")


@on_opened
def undo(place: Place, journal: Journal, *, local: Local, get_page: GetPage | None, now_ms: int) -> None:
    """Make the tree hold the base again, durably, and remove the journal; the stage stays as a source.

    The first error of a step is raised when all others were tried; then the journal stays, and undoing it can be
    retried. ``OSError``, ``InstepError``.
    """
    assert not journal.is_switched
    if not journal.is_undoing:
        with contextlib.suppress(
            OSError
        ):  # a full disk: without the mark a restart tries to go forward first
            journal = journal.mark(Phase.SWITCHING, now_ms)
    failpoint(_UNDOING)
    stage = os.fsencode(place.stage) + b"/" + journal.stage_name
    with (
        open_marked(place.root, place.fileset) as root,
        Root(stage) as staged,
        contextlib.closing(_Undo(place, journal, root, staged, local, Switched(journal))) as work,
    ):
        left = work.run(get_page)
    failpoint(_SYNCED)
    archive_left(place, journal, stage, left, at_ms=now_ms)
    failpoint(_ARCHIVED)
    journal.remove()


class _Undo(StepWork):
    """Backward: from anywhere to the base."""

    def run(self, get_page: GetPage | None) -> list[bytes]:
        """The slots of objects that cannot return."""
        self.get_page = get_page
        self.left: list[bytes] = []
        failed: OSError | InstepError | None = None
        for ops in (
            (Op.MODE, Op.META),
            (Op.REMOVE,),
            (Op.NEW, Op.CHANGE, Op.MOVE),
            (Op.META, Op.MODE),
            (Op.TIME,),
        ):
            is_opening = ops[0] is Op.MODE
            for step in self.journal.steps():
                if step.op not in ops:
                    continue
                failpoint(_STEP_BEFORE)
                self.place.guard()
                try:
                    with path_named(self.place, step, _BACK):
                        self._open(step) if is_opening else self._back(step)
                except (OSError, InstepError) as error:
                    failed = failed or error
                failpoint(_STEP_AFTER)
        self.sync()
        if failed is not None:
            raise failed
        return self.left

    def _back(self, step: Step) -> None:
        match step.op:
            case Op.REMOVE:
                self._bring_back(step)
            case Op.NEW | Op.CHANGE:
                self._take_back(step)
            case Op.MOVE:
                self._move_back(step)
            case Op.META | Op.MODE:
                self._dress_back(step)
            case Op.TIME:
                self._time_back(step)

    def _open(self, step: Step) -> None:
        """A directory that its owner may not write is opened again while things go back to it."""
        if self.is_directory(step):
            held = hold_directory(self.root, step.path, step.ino)
            if held is not None:
                with held:
                    mode = stat.S_IMODE(held.stat.st_mode)
                    if mode & 0o300 != 0o300 and not self.ignores_modes:
                        held.set_mode(mode & 0o1777 | 0o300)

    # --- removals -------------------------------------------------------------------------------------------

    def _bring_back(self, step: Step) -> None:
        found = self.staged.stat_or_none(b"o/" + step.key)
        if found is None:
            return
        if found.st_ino != step.old_ino and stat.S_ISDIR(found.st_mode):
            self._give_below(step, b"o/" + step.key, step.path)
            return
        self._put_back(step, step.key)

    def _put_back(self, step: Step, slot: bytes) -> None:
        """A displaced object to its path; an object that lies there by now stays, and the displaced one is left."""
        live_fd, name = self.root.open_parent(step.path)
        self.let_move(self.objects_fd, slot)
        if step.old is not None and step.old.kind is Kind.DIR and self.live_directory(step.path) is not None:
            self._give_below(step, b"o/" + slot, step.path)  # ignored paths kept their directory
            return
        try:
            put_new(self.objects_fd, slot, live_fd, name)
        except FileExistsError:
            self.left.append(slot)
            return
        if step.old is not None and step.old.kind is Kind.DIR and not self.ignores_modes:
            self.set_mode(step.path, expected_local(step.old, self.local).mode)
        self.touch(step.path)

    def _give_below(self, step: Step, slot: bytes, path: bytes) -> None:
        """Entries that were taken one by one go back to the live directory, which is made where it is missing."""
        if self.live_ino(path) is None:
            make_like(self.root, path, self.staged, slot)
        for found in list(walk_below(self.staged, slot)):
            there = path + found.path[len(slot) :]
            if stat.S_ISDIR(found.stat.st_mode):
                if self.live_ino(there) is None:
                    make_like(self.root, there, self.staged, found.path)
                continue
            self.root.open_parent(
                there
            )  # an error here is raised: only an object at the path itself may be in the way
            with contextlib.suppress(FileExistsError, NotADirectoryError):
                self.put_between(self.staged, found.path, self.root, there)
            self.touch(there)
        self._dress_below(path)
        if any(not stat.S_ISDIR(f.stat.st_mode) for f in walk_below(self.staged, slot)):
            self.left.append(slot[2:])
        else:
            remove_object(*self.staged.open_parent(slot))

    def _dress_below(self, path: bytes) -> None:
        """Directories that were made anew get what the base says of them."""
        if self.get_page is None or not self.journal.header.base_root:
            return
        with contextlib.suppress(KeyError, PageMissing):
            below = list(entries_below(self.journal.header.base_root, path, self.get_page))
            own = Reader(self.get_page).lookup(self.journal.header.base_root, path)
            for entry in reversed(
                [*([own] if own is not None else []), *(e for e in below if e.kind is Kind.DIR)]
            ):
                if self.live_directory(entry.path) is not None:
                    self._metadata(entry.path, entry, 0)

    # --- new and change -------------------------------------------------------------------------------------

    def _take_back(self, step: Step) -> None:
        """The staged object to ``o/key``, what it displaced to its path."""
        key, live_ino = step.key, self.live_ino(step.path)
        olds = [slot for slot in displaced_names(key) if inode_at(self.objects_fd, slot) is not None]
        there = self.object_ino(key)
        if live_ino == step.ino and there == step.ino and not self.is_directory(step):
            live_fd, name = self.root.open_parent(step.path)
            os.unlink(name, dir_fd=live_fd)  # linked only
            live_ino = None
        if there == step.ino:
            self._return_olds(step, olds, live_ino)
        elif live_ino != step.ino:
            self._leave(step, [*([key] if there is not None else []), *olds], live_ino)
        elif olds:
            self._take_new(step, key)
            self._return_olds(step, olds, None)
        elif there is not None:
            live_fd, name = self.root.open_parent(step.path)
            self.let_move(live_fd, name)
            self.root.forget(step.path)
            self._swap(step, live_fd, name)
            self._see_that_it_is_as_staged(step)
        else:
            self._take_new(step, key)
        self.touch(step.path)

    def _swap(self, step: Step, live_fd: int, name: bytes) -> None:
        key = step.key
        try:
            beneath.rename_exchange(self.objects_fd, key, live_fd, name)
        except RenameUnsupportedError:
            os.rename(key, key + b".was", src_dir_fd=self.objects_fd, dst_dir_fd=self.objects_fd)
            place_over(self.objects_fd, key + b".was", live_fd, name)
            os.rename(
                displaced_names(key + b".was")[0], key, src_dir_fd=self.objects_fd, dst_dir_fd=self.objects_fd
            )

    def _take_new(self, step: Step, key: bytes) -> None:
        """A new object leaves the tree; ignored paths in it stay with their directory."""
        live_fd, name = self.root.open_parent(step.path)
        self.root.forget(step.path)
        if self.live_directory(step.path) is not None and self.holds_ignored(self.root, step.path, step.path):
            make_like(self.staged, b"o/" + key + LEFT, self.root, step.path)
            self.take_below(step.path, self.staged, b"o/" + key + LEFT)
            self.left.append(key + LEFT)
            return
        self.let_move(live_fd, name)
        take_away(live_fd, name, self.objects_fd, key)
        self._see_that_it_is_as_staged(step)

    def _return_olds(self, step: Step, olds: list[bytes], live_ino: int | None) -> None:
        """Without an exchange, or of a directory that was taken entry by entry: the first is the base's."""
        for slot in olds:
            found = self.staged.stat_or_none(b"o/" + slot)
            assert found is not None
            if found.st_ino == live_ino:
                os.unlink(slot, dir_fd=self.objects_fd)  # linked, and not replaced
            elif stat.S_ISDIR(found.st_mode) and found.st_ino != step.old_ino:
                self._give_below(step, b"o/" + slot, step.path)
            elif live_ino is None:
                self._put_back(step, slot)
                live_ino = found.st_ino
            else:
                self.left.append(slot)

    def _leave(self, step: Step, slots: list[bytes], live_ino: int | None) -> None:
        """A program put something else in the place of the new object, or removed it."""
        for slot in slots:
            if live_ino is None and step.op is Op.CHANGE:
                self._put_back(step, slot)
                live_ino = self.live_ino(step.path)
            else:
                self.left.append(slot)

    def _see_that_it_is_as_staged(self, step: Step) -> None:
        """Archive changes that were written into a new object while it was live; the next attempt fetches it anew."""
        slot = b"o/" + step.key
        found = self.staged.stat_or_none(slot)
        if found is None or step.new is None:
            return
        if (
            found.st_ino != step.ino
            or not is_like(found, step.new, self.local)
            or self._is_changed_below(step, slot)
        ):
            os.rename(step.key, step.key + LEFT, src_dir_fd=self.objects_fd, dst_dir_fd=self.objects_fd)
            self.left.append(step.key + LEFT)

    def _is_changed_below(self, step: Step, slot: bytes) -> bool:
        if step.new is None or step.new.kind is not Kind.DIR:
            return False
        if self.get_page is None:
            return True
        try:
            entries = entries_below(self.journal.header.target.root, step.path, self.get_page)
            pairs = subtree_differences(walk_below(self.staged, slot), slot, entries, step.path)
            return any(f is None or e is None or not is_like(f.stat, e, self.local) for _, f, e in pairs)
        except (KeyError, PageMissing):
            return True

    # --- moves ----------------------------------------------------------------------------------------------

    def _move_back(self, step: Step) -> None:
        singly = step.key + SINGLY
        if self.object_ino(singly) is not None:
            if self.live_directory(step.path) is not None:
                if self.live_ino(step.source) is None:
                    make_like(self.root, step.source, self.root, step.path)
                self.take_below(step.path, self.root, step.source)
                self._dress_below(step.source)
            os.rmdir(singly, dir_fd=self.objects_fd)
        elif self.live_ino(step.path) == step.ino:
            self._rename_back(step)
        if self.object_ino(step.key) is not None:
            self._put_back(step, step.key)
        self.touch(step.source)
        self.touch(step.path)

    def _rename_back(self, step: Step) -> None:
        if self.live_ino(step.source) is not None:  # ignored paths stayed there
            self.take_below(step.path, self.root, step.source)
            return
        self.let_move(*self.root.open_parent(step.path))
        self.put_between(self.root, step.path, self.root, step.source)
        self.root.forget(step.path)

    # --- metadata -------------------------------------------------------------------------------------------

    def _dress_back(self, step: Step) -> None:
        if step.op is Op.MODE:
            assert step.new is not None
            self.set_mode(step.path, expected_local(step.new, self.local).mode)
            return
        new, old = step.new, step.old
        if old is None or new is None:
            return
        found = self.root.stat_or_none(step.path)
        if found is None or found.st_ino != step.ino:
            return
        if old.kind is Kind.FILE and (
            found.st_size != old.size or found.st_mtime_ns not in (old.mtime_ns, new.mtime_ns)
        ):
            return  # written meanwhile
        self._metadata(step.path, old, step.ino)

    def _metadata(self, path: bytes, entry: Entry, ino: int) -> None:
        with Tolerated(*NOT_THERE):
            dir_fd, name = self.root.open_parent(path)
            apply_metadata(dir_fd, name, entry, self.local, ino=ino, large_value=self.attribute)

    def _time_back(self, step: Step) -> None:
        """Times of directories are no content: they come back where the base's pages are here."""
        if self.get_page is None or not self.journal.header.base_root:
            return
        with contextlib.suppress(KeyError, PageMissing):
            entry = Reader(self.get_page).lookup(self.journal.header.base_root, step.path)
            if entry is not None:
                self.set_time(step.path, entry.mtime_ns)
