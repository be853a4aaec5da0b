"""Compare and set: a switch that takes a step only where the tree still holds the base. Section 9 of
``docs/spec/journal.md``.

Each step reads the object that it displaced, bytes and metadata. Another one than the base is exchanged back at once,
and the path is *outdated*: the tree keeps what it has. After a crash the same look is taken again, so nothing about a
step has to be recorded before all are done.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from instep.errors import ContentionError
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.manifest import GetPage, PageMissing
from instep.model.manifest.walk import entries_below
from instep.model.paths import shown
from instep.tree.journal.journal import Compare, Op, Step
from instep.tree.journal.plan import object_key
from instep.tree.journal.renames import DISPLACED_MAX, NO_LINKS, displaced_names, put_new, take_away
from instep.tree.objects.fidelity import expected_local
from instep.tree.objects.inode import Inode
from instep.tree.root import beneath
from instep.tree.root.beneath import RenameUnsupportedError
from instep.tree.root.failpoints import failpoint, register
from instep.tree.scan.subtree import is_like
from instep.tree.scan.whole_object import holds_entry
from instep.tree.switch.step_work import path_named
from instep.tree.switch.steps import Steps

_EXCHANGED = register("compared.exchanged")
_RETURNED = register("compared.returned")
_TAKEN = register("compared.taken")
_GIVEN_BACK = register("compared.given_back")
_LINKED = register("compared.linked")
_REPLACED = register("compared.replaced")
_LINKED_BACK = register("compared.linked_back")

OUTDATED = "outdated"


class ComparedSteps(Steps):
    """Forward, where nothing changed since the base was seen. ``outdated`` has the keys of the other paths."""

    get_page: GetPage | None = None

    def run(self) -> None:
        self.outdated: set[bytes] = set()
        super().run()

    def _outdate(self, step: Step) -> None:
        """The path keeps what it has. ``ContentionError`` ``outdated`` where all or nothing shall be switched."""
        self.outdated.add(object_key(step.path))
        if self.journal.header.compare is Compare.WHOLE:
            raise ContentionError(
                f"{shown(step.path)} was changed here meanwhile, so none of the changes is made",
                hint="look at the file as it is now, and make the change again",
                code=OUTDATED,
                path=shown(step.path),
            )

    # --- the look ---------------------------------------------------------------------------------------------

    def _is_base(self, step: Step, key: bytes) -> bool:
        """Whether the displaced object ``key`` is what the base says, read whole."""
        old = step.old
        if old is None:
            return False
        try:
            return holds_entry(self.staged, b"o/" + key, old, self._below(old), self.local)
        except KeyError:
            return False  # nothing says what was in the directory: it stays

    def _below(self, old: Entry) -> Iterator[Entry]:
        if old.kind is not Kind.DIR:
            return iter(())
        if self.get_page is None:
            raise PageMissing(self.journal.header.base_root)
        return entries_below(self.journal.header.base_root, old.path, self.get_page)

    def _looks_like_base(self, step: Step, found: os.stat_result) -> bool:
        """The cheap look before anything moves: most changes that came meanwhile are found by it."""
        if step.old is None or not is_like(found, step.old, self.local):
            return False
        if stat.S_ISDIR(found.st_mode) and self.holds_ignored(self.root, step.path, step.path):
            self.outcome.held.note(step.path)
            return False
        return not self.is_mount(step.path, found)

    # --- new and change ---------------------------------------------------------------------------------------

    def _place(self, step: Step) -> None:
        if self.object_ino(step.key) != step.ino:
            self._look_again(step)
        elif not self._has_parent(step.path):
            self._outdate(step)
        elif step.op is Op.NEW:
            live_fd, name = self.root.open_parent(step.path)
            try:
                self.put_new_of(self.staged, b"o/" + step.key, self.objects_fd, step.key, live_fd, name)
            except FileExistsError:
                self._outdate(step)
            self.touch(step.path)
        else:
            self._change(step)

    def _change(self, step: Step) -> None:
        if self.object_ino(displaced_names(step.key)[0]) is not None:
            self._replace_again(step)
            return
        found = self.root.stat_or_none(step.path)
        if found is None or not self._looks_like_base(step, found):
            self._outdate(step)
            return
        live_fd, name = self.root.open_parent(step.path)
        self.let_move(live_fd, name)
        self.root.forget(step.path)
        # Held, so that no other object gets its inode number while it is looked for.
        with Inode(self.objects_fd, step.key):
            try:
                self._exchange_once(step, live_fd, name)
            except FileNotFoundError:
                self._outdate(step)
                return
            except RenameUnsupportedError:
                self._replace(step, live_fd, name)
                return
            failpoint(_EXCHANGED)
            self._look(step, live_fd, name)

    def _exchange_once(self, step: Step, live_fd: int, name: bytes) -> None:
        try:
            beneath.rename_exchange(self.objects_fd, step.key, live_fd, name)
        except OSError as error:
            if not self.settled(self.staged, b"o/" + step.key, live_fd, error):
                raise
            beneath.rename_exchange(self.objects_fd, step.key, live_fd, name)

    def _look(self, step: Step, live_fd: int, name: bytes) -> None:
        self.touch(step.path)
        if not self._is_base(step, step.key):
            self._return(step, live_fd, name)
            self._outdate(step)

    def _look_again(self, step: Step) -> None:
        """After a crash: the staged object went to its path. Was it right?"""
        if step.op is Op.NEW:
            return
        if self.object_ino(step.key) is None:
            self._replace_again(step)
        elif self.live_ino(step.path) == step.ino:
            self._look(step, *self.root.open_parent(step.path))
        elif not self._is_base(step, step.key):
            self._outdate(step)  # and a program put another one over it: both were kept, this one is archived

    def _return(self, step: Step, live_fd: int, name: bytes) -> None:
        """Exchange the displaced object back. An object that a program put there meanwhile is newer still: it stays,
        and the displaced one goes to the archive. ``OSError`` ``EBUSY`` when that does not end."""
        expected = step.ino
        with contextlib.ExitStack() as held:
            for _ in range(DISPLACED_MAX):
                displaced = held.enter_context(Inode(self.objects_fd, step.key)).stat.st_ino
                self.root.forget(step.path)
                try:
                    beneath.rename_exchange(self.objects_fd, step.key, live_fd, name)
                except FileNotFoundError:
                    return  # removed meanwhile, which is newer
                failpoint(_RETURNED)
                if self.object_ino(step.key) == expected:
                    return
                expected = displaced
        raise OSError(errno.EBUSY, "a program here puts one file after the other under this name", name)

    # --- without an exchange ----------------------------------------------------------------------------------

    def _replace(self, step: Step, live_fd: int, name: bytes) -> None:
        """A file or symlink is linked aside, read, and renamed over; anything else is moved aside first."""
        slot = displaced_names(step.key)[0]
        if not self._is_linked_aside(step, live_fd, name, slot):
            self._move_aside(step, live_fd, name, slot)
            return
        failpoint(_LINKED)
        if not self._is_base(step, slot) or not self._leads_to(slot, live_fd, name, step):
            os.unlink(slot, dir_fd=self.objects_fd)
            self._outdate(step)
            return
        try:
            os.rename(step.key, name, src_dir_fd=self.objects_fd, dst_dir_fd=live_fd)
        except IsADirectoryError:
            self._outdate(step)
            return
        failpoint(_REPLACED)
        self._look_at_replaced(step, live_fd, name, slot)

    def _is_linked_aside(self, step: Step, live_fd: int, name: bytes, slot: bytes) -> bool:
        if self._has_directory(step):
            return False
        try:
            os.link(name, slot, src_dir_fd=live_fd, dst_dir_fd=self.objects_fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            return False
        return True

    def _has_directory(self, step: Step) -> bool:
        return any(entry is not None and entry.kind is Kind.DIR for entry in (step.old, step.new))

    def _leads_to(self, slot: bytes, live_fd: int, name: bytes, step: Step) -> bool:
        """Whether the name still leads to the object in ``slot``: by a link, as a look may come from a cache."""
        again = displaced_names(step.key)[1]
        try:
            os.link(name, again, src_dir_fd=live_fd, dst_dir_fd=self.objects_fd, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.ENOENT and error.errno not in NO_LINKS:
                raise
            return False  # gone, or a directory by now
        is_same = self.object_ino(again) == self.object_ino(slot)
        os.unlink(again, dir_fd=self.objects_fd)
        return is_same

    def _look_at_replaced(self, step: Step, live_fd: int, name: bytes, slot: bytes) -> None:
        self.touch(step.path)
        if self._is_base(step, slot):
            return
        if self.live_ino(step.path) == step.ino:
            self._give_back(step, live_fd, name, slot)
        self._outdate(step)

    def _give_back(self, step: Step, live_fd: int, name: bytes, slot: bytes) -> None:
        """The staged object leaves the path for the displaced one. What a program puts there meanwhile stays."""
        if self._is_kept_at_key(step, live_fd, name):
            failpoint(_LINKED_BACK)
            if not self._has_directory(step):
                with contextlib.suppress(IsADirectoryError):
                    os.rename(slot, name, src_dir_fd=self.objects_fd, dst_dir_fd=live_fd)
                return
            os.unlink(name, dir_fd=live_fd)
        else:
            self.root.forget(step.path)
            take_away(live_fd, name, self.objects_fd, step.key)
            failpoint(_LINKED_BACK)
        with contextlib.suppress(FileExistsError):
            put_new(self.objects_fd, slot, live_fd, name)

    def _is_kept_at_key(self, step: Step, live_fd: int, name: bytes) -> bool:
        """Whether the staged object, which is live, has its name in the stage as well; it gets one if it can."""
        try:
            os.link(name, step.key, src_dir_fd=live_fd, dst_dir_fd=self.objects_fd, follow_symlinks=False)
        except FileExistsError:
            return True
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            return False
        return True

    def _replace_again(self, step: Step) -> None:
        """After a crash in the middle of ``_replace``: inodes say where."""
        slot = displaced_names(step.key)[0]
        if self.object_ino(slot) is None:
            return
        live_fd, name = self.root.open_parent(step.path)
        live_ino, is_staged = self.live_ino(step.path), self.object_ino(step.key) == step.ino
        with contextlib.suppress(FileNotFoundError):
            os.unlink(displaced_names(step.key)[1], dir_fd=self.objects_fd)
        if live_ino is None and is_staged:
            self._settle_moved(step, live_fd, name, slot)
        elif is_staged and live_ino == step.ino:
            self._end_link(step, live_fd, name, slot)
        elif is_staged and live_ino == self.object_ino(slot):
            os.unlink(slot, dir_fd=self.objects_fd)  # only linked
            self._change(step)
        elif is_staged:
            self._outdate(step)  # a program put another one there
        else:
            self._look_at_replaced(step, live_fd, name, slot)

    def _end_link(self, step: Step, live_fd: int, name: bytes, slot: bytes) -> None:
        """The staged object has both names: it was on its way to the path, or back."""
        if self._is_base(step, slot):
            os.unlink(step.key, dir_fd=self.objects_fd)
        else:
            self._give_back(step, live_fd, name, slot)
            self._outdate(step)

    def _move_aside(self, step: Step, live_fd: int, name: bytes, slot: bytes) -> None:
        """A directory, or where nothing can be linked. For that moment the path is missing."""
        try:
            take_away(live_fd, name, self.objects_fd, slot)
        except FileNotFoundError:
            self._outdate(step)
            return
        failpoint(_LINKED)
        self._settle_moved(step, live_fd, name, slot)

    def _settle_moved(self, step: Step, live_fd: int, name: bytes, slot: bytes) -> None:
        is_base = self._is_base(step, slot)
        with contextlib.suppress(FileExistsError):
            put_new(self.objects_fd, step.key if is_base else slot, live_fd, name)
            self.touch(step.path)
            if is_base:
                return
        self._outdate(step)

    # --- removals ---------------------------------------------------------------------------------------------

    def remove(self, step: Step) -> None:
        slot = b"o/" + step.key
        if self.object_ino(step.key) is None and not self._is_taken(step):
            self._outdate(step)
            return
        found = self.staged.stat(slot)
        is_holding = stat.S_ISDIR(found.st_mode) and self.holds_ignored(self.staged, slot, step.path)
        self.touch(step.path)
        if not is_holding and self._is_base(step, step.key):
            return
        with contextlib.suppress(FileExistsError):  # made anew meanwhile: the older one goes to the archive
            put_new(self.objects_fd, step.key, *self.root.open_parent(step.path))
            failpoint(_GIVEN_BACK)
        self._outdate(step)

    def _is_taken(self, step: Step) -> bool:
        found = self.root.stat_or_none(step.path)
        if found is None or not self._looks_like_base(step, found):
            return False
        live_fd, name = self.root.open_parent(step.path)
        self.root.forget(step.path)
        self.let_move(live_fd, name)
        try:
            take_away(live_fd, name, self.objects_fd, step.key)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return False  # a directory of a lower layer of an overlay cannot be renamed as one
        failpoint(_TAKEN)
        return True

    # --- metadata ---------------------------------------------------------------------------------------------

    def _meta_of_file(self, step: Step) -> None:
        found = self.root.stat_or_none(step.path)
        if found is None or found.st_ino != step.ino or not self._is_either(step, found):
            self._outdate(step)
            return
        assert step.new is not None
        self.apply(step, step.new)

    def _is_either(self, step: Step, found: os.stat_result) -> bool:
        """As the base or, after a crash, as the target says."""
        return any(entry is not None and is_like(found, entry, self.local) for entry in (step.old, step.new))

    def _close_directories(self) -> None:
        """Times of directories stay as the changes below made them."""
        for step in self.journal.steps():
            if step.new is None or step.op not in (Op.META, Op.MODE) or not self.is_directory(step):
                continue
            with path_named(self.place, step):
                if step.op is Op.MODE:
                    self.set_mode(step.path, expected_local(step.new, self.local).mode, step.ino)
                    continue
                found = self.live_directory(step.path)
                if found is None or not self._is_either(step, found):
                    self._outdate(step)
                else:
                    self.apply(step, step.new)
                    self.touch(step.path + b"/.")
