"""Do the steps of a journal: section 3 of ``docs/spec/journal.md``.

Every step looks first at which inode is where, so the same code runs a switch and finishes an interrupted one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable

from instep.model.manifest.entry import Kind
from instep.model.paths import parent_of
from instep.tree.journal.journal import Op, Step
from instep.tree.journal.renames import displaced_names, place_over, put_new, take_away
from instep.tree.objects.fidelity import expected_local
from instep.tree.objects.inode import let_owner
from instep.tree.root import beneath
from instep.tree.root.beneath import NOT_BENEATH, RenameUnsupportedError
from instep.tree.root.failpoints import failpoint, register
from instep.tree.switch.removals import Removals
from instep.tree.switch.step_work import make_like, path_named

_STEP_BEFORE = register("switch.step.before")
_EXCHANGED = register("switch.exchanged")
_STEP_AFTER = register("switch.step.after")
_REMOVALS = register("switch.removals")
_CLOSING = register("switch.closing")
_DIRS_SYNCED = register("switch.dirs_synced")


def is_turned(step: Step) -> bool:
    """Whether a symlink gets another target."""
    links = [entry is not None and entry.kind is Kind.SYMLINK for entry in (step.old, step.new)]
    return step.op is Op.CHANGE and all(links)


class Steps(Removals):
    """Forward: from the base to the target."""

    def run(self) -> None:
        removals = self._all_forward()
        failpoint(_REMOVALS)
        if removals:
            self._all_of(lambda step: step.op is Op.REMOVE, self.remove)
        failpoint(_CLOSING)
        if self.is_closing:
            self._close_directories()
        self.sync()
        failpoint(_DIRS_SYNCED)

    def _all_forward(self) -> bool:
        """All steps but removals; whether there are some. Links that are turned come last: the paths that they lead to
        are there by then, as when a deploy turns ``current`` to its next release."""
        removals = links = self.is_closing = False
        for step in self.journal.steps():
            with path_named(self.place, step):
                match step.op:
                    case Op.REMOVE:
                        removals = True
                    case Op.TIME:
                        self.is_closing = True
                    case Op.MODE:
                        self.is_closing = True
                        self._open_directory(step)
                    case Op.META if self.is_directory(step):
                        self.is_closing = True
                        self._open_directory(step)
                    case Op.CHANGE if is_turned(step):
                        links = True
                    case Op.NEW | Op.CHANGE | Op.MOVE | Op.META:
                        self._one(self._forward, step)
        if links:
            self._all_of(is_turned, self._forward)
        return removals

    def _one(self, work: Callable[[Step], None], step: Step) -> None:
        failpoint(_STEP_BEFORE)
        self.place.guard()
        work(step)
        failpoint(_STEP_AFTER)

    def _all_of(self, is_meant: Callable[[Step], bool], work: Callable[[Step], None]) -> None:
        for step in self.journal.steps():
            if is_meant(step):
                with path_named(self.place, step):
                    self._one(work, step)

    def _forward(self, step: Step) -> None:
        if step.op is Op.MOVE:
            self._move(step)
        elif step.op is Op.META:
            self._meta_of_file(step)
        else:
            self._place(step)

    def _place(self, step: Step) -> None:
        """New and change: ``o/key`` goes to its path; the object there comes to ``o/key``."""
        key = step.key
        if self.object_ino(key) != step.ino:
            self._look_again(step)
            return
        if not self._has_parent(step.path):
            return
        if step.op is Op.NEW:
            live_fd, name = self.root.open_parent(step.path)
            try:
                self.put_new_of(self.staged, b"o/" + key, self.objects_fd, key, live_fd, name)
                self.touch(step.path)
                return
            except FileExistsError:
                pass
            if self.journal.header.base_root:
                self.outcome.drifted.note(step.path)
        self._exchange(step)

    def _has_parent(self, path: bytes) -> bool:
        """Whether the directory that holds ``path`` is there. Where a program removed it or put something else in its
        place, the step is left to the repair of that drift, which archives what is there: a switch must end."""
        try:
            self.root.open_parent(path)
        except OSError as error:
            if error.errno not in NOT_BENEATH:
                raise
            missed = parent_of(path)
            while (above := parent_of(missed)) and self.root.stat_or_none(missed) is None:
                missed = above
            self.outcome.missed.note(missed)
            return False
        return True

    def _exchange(self, step: Step) -> None:
        """Displace the object at the path. A directory that holds ignored paths or mounts is not displaced: it
        stays, and the path is held."""
        live = self.live_directory(step.path)
        if live is not None and self.holds_ignored(self.root, step.path, step.path):
            self.outcome.held.note(step.path)
            return
        live_fd, name = self.root.open_parent(step.path)
        self.let_move(live_fd, name)
        self.root.forget(step.path)
        try:
            beneath.rename_exchange(self.objects_fd, step.key, live_fd, name)
        except FileNotFoundError:
            put_new(self.objects_fd, step.key, live_fd, name)
            self.outcome.drifted.note(step.path)
        except RenameUnsupportedError:
            if not place_over(self.objects_fd, step.key, live_fd, name):
                self.outcome.drifted.note(step.path)
        except OSError as error:
            if self.settled(self.staged, b"o/" + step.key, live_fd, error):
                beneath.rename_exchange(self.objects_fd, step.key, live_fd, name)
            elif error.errno == errno.EXDEV and live is not None:
                self._exchange_singly(step)
            else:
                raise
        else:
            failpoint(_EXCHANGED)
            if live is not None and self.holds_ignored(self.staged, b"o/" + step.key, step.path):
                # It was made between the look and the exchange: back it goes.
                beneath.rename_exchange(self.objects_fd, step.key, live_fd, name)
                self.outcome.held.note(step.path)
                return
        self.touch(step.path)

    def _look_again(self, step: Step) -> None:
        """After a crash: the displaced object may be a directory with ignored paths, which goes back."""
        if not self.rules.has_patterns or self.live_ino(step.path) != step.ino:
            return
        slot = b"o/" + step.key
        found = self.staged.stat_or_none(slot)
        if found is None or not stat.S_ISDIR(found.st_mode):
            return
        if self.holds_ignored(self.staged, slot, step.path):
            live_fd, name = self.root.open_parent(step.path)
            beneath.rename_exchange(self.objects_fd, step.key, live_fd, name)
            self.root.forget(step.path)
            self.outcome.held.note(step.path)

    def _exchange_singly(self, step: Step) -> None:
        """A directory that the file system cannot rename as one gives way entry by entry."""
        slot = displaced_names(step.key)[0]
        with contextlib.suppress(FileExistsError):
            os.mkdir(slot, 0o700, dir_fd=self.objects_fd)
        if self.take_below(step.path, self.staged, b"o/" + slot):
            self.outcome.held.note(step.path)
            return
        live_fd, name = self.root.open_parent(step.path)
        put_new(self.objects_fd, step.key, live_fd, name)

    def _move(self, step: Step) -> None:
        if self.live_ino(step.source) != step.ino:
            if self.live_ino(step.path) == step.ino:
                self._see_that_ignored_stays(step)
            elif not self._is_moved_singly(step):
                self.outcome.missed.note(step.path)
            return
        if not self._has_parent(step.path):
            self.outcome.missed.note(step.source)
            return
        if self._is_moved_singly(step) or self.holds_ignored(self.root, step.source, step.source):
            self._move_singly(step)
            return
        from_fd, from_name = self.root.open_parent(step.source)
        self.let_move(from_fd, from_name)
        from_fd = os.dup(from_fd)  # the second parent may push the first out of the cache
        try:
            to_fd, to_name = self.root.open_parent(step.path)
            try:
                put_new(from_fd, from_name, to_fd, to_name)
            except FileExistsError:
                self.let_move(to_fd, to_name)
                take_away(to_fd, to_name, self.objects_fd, step.key)
                self.outcome.drifted.note(step.path)
                put_new(from_fd, from_name, to_fd, to_name)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._move_singly(step)
            return
        finally:
            os.close(from_fd)
        self.root.forget(step.source)
        self._see_that_ignored_stays(step)
        self.touch(step.source)
        self.touch(step.path)

    def _is_moved_singly(self, step: Step) -> bool:
        return self.object_ino(step.key + SINGLY) is not None

    def _move_singly(self, step: Step) -> None:
        """Entry by entry, where the file system cannot rename the directory or something in it has to stay."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(step.key + SINGLY, 0o700, dir_fd=self.objects_fd)
        live = self.live_directory(step.source)
        if self.live_directory(step.path) is None and live is not None:
            if self.live_ino(step.path) is not None:
                to_fd, to_name = self.root.open_parent(step.path)
                take_away(to_fd, to_name, self.objects_fd, step.key)
                self.outcome.drifted.note(step.path)
            make_like(self.root, step.path, self.root, step.source)
        if self.take_below(step.source, self.root, step.path):
            self.outcome.kept.note(step.source)
        self.touch(step.source)
        self.touch(step.path + b"/.")
        self.touch(step.path)

    def _see_that_ignored_stays(self, step: Step) -> None:
        """Ignored paths that were made between the look and the move go back to where they were."""
        if not self.holds_ignored(self.root, step.path, step.source):
            return
        make_like(self.root, step.source, self.root, step.path)
        self.return_ignored(self.root, step.path, step.source)
        self.outcome.kept.note(step.source)

    def _meta_of_file(self, step: Step) -> None:
        new = step.new
        assert new is not None
        found = self.root.stat_or_none(step.path)
        if (
            found is None
            or found.st_ino != step.ino
            or found.st_size != new.size
            or not stat.S_ISREG(found.st_mode)
        ):
            self.outcome.missed.note(step.path)
            return
        if step.old is not None and found.st_mtime_ns not in (step.old.mtime_ns, new.mtime_ns):
            self.outcome.missed.note(step.path)
            return
        self.apply(step, new)

    def _open_directory(self, step: Step) -> None:
        """A directory whose owner gets more rights gets them before what happens in it."""
        assert step.new is not None
        found = self.live_directory(step.path)
        if found is not None and found.st_mode & 0o300 != 0o300:
            dir_fd, name = self.root.open_parent(step.path)
            with contextlib.suppress(FileNotFoundError):
                let_owner(dir_fd, name, 0o300)

    def _close_directories(self) -> None:
        for step in self.journal.steps():
            if step.op is Op.META and self.is_directory(step):
                assert step.new is not None
                if self.live_directory(step.path) is None:
                    self.outcome.missed.note(step.path)
                    continue
                with path_named(self.place, step):
                    self.apply(step, step.new)
                self.touch(step.path + b"/.")
            elif step.op is Op.MODE:
                assert step.new is not None
                with path_named(self.place, step):
                    self.set_mode(step.path, expected_local(step.new, self.local).mode, step.ino)
        for step in self.journal.steps():
            if step.op is Op.TIME:
                with path_named(self.place, step):
                    self.set_time(step.path, step.mtime_ns)


SINGLY = b".singly"
"""Beside its slot: says that a directory is being moved entry by entry."""
