"""Removals of a switch: as one where that can be, entry by entry where something has to stay; nothing ignored goes."""

from __future__ import annotations

import contextlib
import errno
import stat

from instep.model.paths import parent_of
from instep.tree.journal.journal import Step
from instep.tree.journal.renames import take_away
from instep.tree.root.beneath import Root
from instep.tree.root.failpoints import failpoint, register
from instep.tree.scan.subtree import Found, walk_below
from instep.tree.switch.step_work import StepWork, make_like

_TAKEN = register("switch.taken")


class Removals(StepWork):
    """Removed objects go to ``o/key``."""

    def remove(self, step: Step) -> None:
        there = self.object_ino(step.key)
        if there is not None and there == step.old_ino:
            self._see_that_ignored_stays_here(step)
            return
        found = self.root.stat_or_none(step.path)
        if found is None:
            if there is None and step.old_ino:
                self.outcome.drifted.note(step.path)
            return
        if stat.S_ISDIR(found.st_mode):
            if self.is_mount(step.path, found):
                self.outcome.kept.note(step.path)
                return
            if there is not None or self.holds_ignored(self.root, step.path, step.path):
                self._remove_singly(step)
                return
        if there is not None:
            return  # an object that is not a directory was taken already; the present one came later
        self._remove_whole(step, is_directory=stat.S_ISDIR(found.st_mode))

    def _remove_whole(self, step: Step, *, is_directory: bool) -> None:
        live_fd, name = self.root.open_parent(step.path)
        self.root.forget(step.path)
        self.let_move(live_fd, name)
        try:
            take_away(live_fd, name, self.objects_fd, step.key)
        except OSError as error:
            if error.errno != errno.EXDEV or not is_directory:
                raise
            self._remove_singly(step)  # an overlay without redirect_dir, or another project's directory
            return
        failpoint(_TAKEN)
        if is_directory:
            self._see_that_ignored_stays_here(step)
        self.touch(step.path)

    def _see_that_ignored_stays_here(self, step: Step) -> None:
        """Ignored paths that were made between the look and the removal go back."""
        slot = b"o/" + step.key
        if not self.rules.has_patterns or not self.holds_ignored(self.staged, slot, step.path):
            return
        if self.live_ino(step.path) is None:
            make_like(self.root, step.path, self.staged, slot)
        self.return_ignored(self.staged, slot, step.path)
        self.outcome.kept.note(step.path)

    def _remove_singly(self, step: Step) -> None:
        """Take all that may go from a directory, into a copy of its shape."""
        make_like(self.staged, b"o/" + step.key, self.root, step.path)
        if self.take_below(step.path, self.staged, b"o/" + step.key):
            self.outcome.kept.note(step.path)

    def return_ignored(self, tree: Root, at: bytes, path: bytes) -> None:
        """Ignored paths in a directory that went along to ``at`` of ``tree`` go back to the live ``path``."""
        for found in list(walk_below(tree, at)):
            there = path + found.path[len(at) :]
            if not self.rules.ignored(there, stat.S_ISDIR(found.stat.st_mode)):
                continue
            if self.rules.ignored(parent_of(there), True) and parent_of(there) != path:
                continue  # its directory went back with it
            self._return_one(tree, found, at, path)

    def _return_one(self, tree: Root, found: Found, at: bytes, path: bytes) -> None:
        there = path + found.path[len(at) :]
        parent = parent_of(there)
        missing = []
        while parent != path and self.root.stat_or_none(parent) is None:
            missing.append(parent)
            parent = parent_of(parent)
        for directory in reversed(missing):
            make_like(self.root, directory, tree, at + directory[len(path) :])
        with contextlib.suppress(FileExistsError):  # made anew meanwhile: the older one is in the archive
            self.put_between(tree, found.path, self.root, there)
        self.touch(there)
