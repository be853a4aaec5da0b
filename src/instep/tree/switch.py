"""Make a staged generation the tree, step by step. Implements sections 3 and 4 of ``docs/spec/journal.md``.

Every step looks first at which inode is where, so the same code runs the switch and finishes an interrupted one.
All access to the tree is beneath its root: a symlink or mount that somebody put where a directory was ends in
an error, never outside.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass, field

from instep.errors import ContentionError, RefusedError
from instep.model.definition import decode_definition
from instep.model.entry import Entry, Kind
from instep.model.ids import Digest
from instep.model.manifest import GetPage
from instep.model.paths import parent_of
from instep.tree.archive import close_batch
from instep.tree.beneath import (
    NOT_BENEATH,
    RenameUnsupportedError,
    Root,
    rename_exchange,
    rename_noreplace,
    syncfs,
)
from instep.tree.control_folder import on_opened, open_control
from instep.tree.exchange import check_swap, swap, withdraw
from instep.tree.failpoints import failpoint, register
from instep.tree.fidelity import Local, apply_metadata, expected_local
from instep.tree.inode import NOT_THERE, hold_directory, let_owner
from instep.tree.journal import Journal, Op, Phase, Step
from instep.tree.laying import SYNC_SINGLY_MAX, remove_object, sync_directory
from instep.tree.marker import open_marked
from instep.tree.next_tree import NEXT, PREPARED, sync_tree
from instep.tree.place import Place
from instep.tree.rules import Rules
from instep.tree.shortage import resource_error
from instep.tree.subtree import holds_ignored

__all__ = ["Switched", "finish", "prepare", "strip_batch", "switch"]

_BEGINNING = register("switch.beginning")
_BEGUN = register("switch.begun")
_STEP_BEFORE = register("switch.step.before")
_EXCHANGED = register("switch.exchanged")
_LINKED = register("switch.linked")
_ENTRY_MOVED = register("switch.entry_moved")
_STEP_AFTER = register("switch.step.after")
_REMOVALS = register("switch.removals")
_CLOSING = register("switch.closing")
_DIRS_SYNCED = register("switch.dirs_synced")
_ARCHIVED = register("switch.archived")
_SWITCHED = register("switch.switched")
_FINISHING = register("switch.finishing")
_PREPARING = register("exchange.preparing")
_PREPARED = register("exchange.prepared")

REPORTED_MAX = 1000
"""So many drifted and kept paths are named; more are counted only by the archive's index."""


@dataclass(slots=True)
class Switched:
    """What a switch met. ``drifted``: paths at which something else was than the base said, all archived (or gone);
    ``kept``: directories that stay because they hold ignored paths or mounts; ``missed``: steps that could not be
    done because of drift and that the next drift scan puts right."""

    journal: Journal
    drifted: list[bytes] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)
    missed: list[bytes] = field(default_factory=list)


@on_opened
def switch(
    place: Place, journal: Journal, *, local: Local, get_page: GetPage | None, now_ms: int
) -> Switched:
    """Do all that the sealed ``journal`` says; returns when it is durable and marked ``switched``.

    With ``get_page``, displaced directories are compared with the base and what drifted in them is named.
    An error leaves the journal for ``recover``. Errors: ``RefusedError`` of the marker, ``ResourceError``.
    """
    open_marked(place.root, place.fileset).close()
    try:
        if journal.name != b"journal":
            if journal.is_exchange:
                prepare(place, journal, local=local)
                check_swap(place, journal)
            journal = _begin(place, journal)
        return _run(place, journal, local, get_page, now_ms)
    except OSError as error:
        raise resource_error(error, place) from error


@on_opened
def prepare(place: Place, journal: Journal, *, local: Local) -> None:
    """Do the steps of a sealed exchange in the next tree, durably: what is left is the swap. Again is harmless.

    Of no effect on a journal of a switch in place. ``ResourceError`` as ``switch``.
    """
    stage = os.fsencode(place.stage) + b"/" + journal.stage_name
    if not journal.is_exchange or os.path.lexists(stage + b"/" + PREPARED):
        return
    failpoint(_PREPARING)
    try:
        with Root(stage + b"/" + NEXT) as tree, Root(stage) as staged:
            _Switch(place, journal, tree, staged, local, Switched(journal)).run()
            sync_tree(tree)
            os.close(staged.open(PREPARED, os.O_WRONLY | os.O_CREAT, 0o600))
        sync_directory(stage)
    except OSError as error:
        raise resource_error(error, place) from error
    failpoint(_PREPARED)


def _begin(place: Place, journal: Journal) -> Journal:
    """The point of no return: the sealed journal becomes the fileset's."""
    current = Journal.load(place)
    assert current is None or current.is_switched, "a switch began while another was not finished"
    failpoint(_BEGINNING)
    control = open_control(place)
    try:
        os.rename(journal.name, b"journal", src_dir_fd=control, dst_dir_fd=control)
        os.fsync(control)
    finally:
        os.close(control)
    failpoint(_BEGUN)
    if current is not None:
        _strip_batch(place, current)
    return Journal(journal.place, b"journal", journal.header, ())


def _run(place: Place, journal: Journal, local: Local, get_page: GetPage | None, now_ms: int) -> Switched:
    outcome = Switched(journal)
    stage = os.fsencode(place.stage) + b"/" + journal.stage_name
    archive = os.fsencode(place.archive) + b"/" + journal.header.batch.encode()
    if os.path.lexists(stage):
        if journal.is_exchange:
            _swap(place, journal, stage)
        else:
            with open_marked(place.root, place.fileset) as root, Root(stage) as staged:
                _Switch(place, journal, root, staged, local, outcome).run()
        close_batch(
            place, journal, stage, local=local, get_page=get_page, at_ms=now_ms, drifted=outcome.drifted
        )
        failpoint(_ARCHIVED)
    elif not os.path.lexists(archive):
        raise RefusedError(
            f"the staging of {place.fileset} was removed in the middle of a switch",
            hint="scan the tree against its generation; what is missing is fetched again",
            code="stage_lost",
            stage=os.fsdecode(place.by_name(stage)),
        )
    outcome.journal = journal.mark(Phase.SWITCHED, now_ms)
    failpoint(_SWITCHED)
    return outcome


def _swap(place: Place, journal: Journal, stage: bytes) -> None:
    try:
        swap(place, journal, stage)
    except (OSError, ContentionError):
        if os.stat(place.root, follow_symlinks=False).st_ino == journal.header.root_ino:
            withdraw(place, journal, stage)
        raise


class _Switch:
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
        self.touched: set[bytes] = set()
        self.is_root = os.geteuid() == 0
        self.objects_fd = staged.open_dir(b"o")

    def run(self) -> None:
        try:
            self._steps()
        finally:
            os.close(self.objects_fd)

    def _steps(self) -> None:
        removals = is_closing = False
        for step in self.journal.steps():
            match step.op:
                case Op.REMOVE:
                    removals = True
                case Op.TIME:
                    is_closing = True
                case Op.MODE:
                    is_closing = True
                    self._open_directory(step)
                case Op.META if self._is_directory(step):
                    is_closing = True
                    self._open_directory(step)
                case Op.NEW | Op.CHANGE | Op.MOVE | Op.META:
                    failpoint(_STEP_BEFORE)
                    self._forward(step)
                    failpoint(_STEP_AFTER)
        failpoint(_REMOVALS)
        if removals:
            for step in self.journal.steps():
                if step.op is Op.REMOVE:
                    failpoint(_STEP_BEFORE)
                    self._remove(step)
                    failpoint(_STEP_AFTER)
        failpoint(_CLOSING)
        if is_closing:
            self._close_directories()
        self._sync()
        failpoint(_DIRS_SYNCED)

    def _is_directory(self, step: Step) -> bool:
        return step.new is not None and step.new.kind is Kind.DIR

    def _forward(self, step: Step) -> None:
        if step.op is Op.MOVE:
            self._move(step)
        elif step.op is Op.META:
            self._meta_of_file(step)
        else:
            self._place(step)

    def _place(self, step: Step) -> None:
        """New and change: ``o/key`` goes to its path; what was there comes to ``o/key``."""
        key = step.key
        if self._object_ino(key) != step.ino:
            return
        if not self._has_parent(step.path):
            return
        if step.op is Op.NEW:
            live_fd, name = self.root.open_parent(step.path)
            try:
                rename_noreplace(self.objects_fd, key, live_fd, name)
                self._touch(step.path)
                return
            except FileExistsError:
                pass
            except RenameUnsupportedError:
                if self.root.stat_or_none(step.path) is None:
                    os.rename(key, name, src_dir_fd=self.objects_fd, dst_dir_fd=live_fd)
                    self._touch(step.path)
                    return
            if self.journal.header.base_root:
                self._drifted(step.path)
        self._exchange(step)

    def _has_parent(self, path: bytes) -> bool:
        """Whether the directory that holds ``path`` is there. Where somebody removed it or put something else in its
        place, the step is left to the repair of that drift, which archives what is there: a switch must end."""
        try:
            self.root.open_parent(path)
        except OSError as error:
            if error.errno not in NOT_BENEATH:
                raise
            missed = parent_of(path)
            while (above := parent_of(missed)) and self.root.stat_or_none(missed) is None:
                missed = above
            self._missed(missed)
            return False
        return True

    def _exchange(self, step: Step) -> None:
        key = step.key
        live_fd, name = self.root.open_parent(step.path)
        self._let_move(live_fd, name)
        try:
            rename_exchange(self.objects_fd, key, live_fd, name)
        except FileNotFoundError:
            rename_noreplace(self.objects_fd, key, live_fd, name)
            self._drifted(step.path)
        except RenameUnsupportedError:
            self._exchange_by_link(step, live_fd, name)
        self.root.forget(step.path)
        self._touch(step.path)
        failpoint(_EXCHANGED)

    def _exchange_by_link(self, step: Step, live_fd: int, name: bytes) -> None:
        """Where the kernel or the file system cannot exchange."""
        old = step.key + b".old"
        try:
            found = os.stat(name, dir_fd=live_fd, follow_symlinks=False)
        except FileNotFoundError:
            if self._object_ino(old) is None:  # else an interrupted attempt took it
                self._drifted(step.path)
        else:
            if stat.S_ISDIR(found.st_mode) or (step.new is not None and step.new.kind is Kind.DIR):
                os.rename(name, old, src_dir_fd=live_fd, dst_dir_fd=self.objects_fd)
            else:
                with contextlib.suppress(FileExistsError):  # an interrupted attempt linked it
                    os.link(name, old, src_dir_fd=live_fd, dst_dir_fd=self.objects_fd, follow_symlinks=False)
        failpoint(_LINKED)
        os.rename(step.key, name, src_dir_fd=self.objects_fd, dst_dir_fd=live_fd)

    def _move(self, step: Step) -> None:
        found = self.root.stat_or_none(step.source)
        if found is None or found.st_ino != step.ino:
            there = self.root.stat_or_none(step.path)
            if there is None or there.st_ino != step.ino:
                self._missed(step.path)
            return
        if not self._has_parent(step.path):
            self._missed(step.source)
            return
        from_fd, from_name = self.root.open_parent(step.source)
        self._let_move(from_fd, from_name)
        from_fd = os.dup(from_fd)  # the second parent may push the first out of the cache
        try:
            to_fd, to_name = self.root.open_parent(step.path)
            try:
                self._rename_new(from_fd, from_name, to_fd, to_name)
            except FileExistsError:
                self._let_move(to_fd, to_name)
                self._rename_new(to_fd, to_name, self.objects_fd, step.key)
                self._drifted(step.path)
                self._rename_new(from_fd, from_name, to_fd, to_name)
        finally:
            os.close(from_fd)
        self.root.forget(step.source)
        self._touch(step.source)
        self._touch(step.path)

    def _let_move(self, dir_fd: int, name: bytes) -> None:
        """Moving a directory elsewhere writes its ``..``: who is not root needs its write bit. A displaced one keeps
        the bit in the archive; for a moved one the plan has a step that takes it away again."""
        if self.is_root:
            return
        with contextlib.suppress(FileNotFoundError):
            let_owner(dir_fd, name, 0o200)

    def _rename_new(self, from_fd: int, from_name: bytes, to_fd: int, to_name: bytes) -> None:
        try:
            rename_noreplace(from_fd, from_name, to_fd, to_name)
        except RenameUnsupportedError:
            try:
                os.stat(to_name, dir_fd=to_fd, follow_symlinks=False)
            except FileNotFoundError:
                os.rename(from_name, to_name, src_dir_fd=from_fd, dst_dir_fd=to_fd)
            else:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), to_name) from None

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
            self._missed(step.path)
            return
        if step.old is not None and found.st_mtime_ns not in (step.old.mtime_ns, new.mtime_ns):
            self._missed(step.path)
            return
        self._apply(step, new)

    def _apply(self, step: Step, entry: Entry) -> None:
        """To the very object that was looked at when the journal was sealed, if it is there still."""
        try:
            dir_fd, name = self.root.open_parent(step.path)
            apply_metadata(dir_fd, name, entry, self.local, ino=step.ino, large_value=self._attribute)
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise
            self._missed(step.path)

    def _attribute(self, digest: Digest) -> bytes:
        fd = self.staged.open(b"v/" + digest.hex().encode(), os.O_RDONLY)
        try:
            return os.pread(fd, 1 << 17, 0)
        finally:
            os.close(fd)

    def _open_directory(self, step: Step) -> None:
        """A directory whose owner gets more rights gets them before what happens in it."""
        assert step.new is not None
        found = self._live_directory(step)
        if found is not None and found.st_mode & 0o300 != 0o300:
            dir_fd, name = self.root.open_parent(step.path)
            with contextlib.suppress(FileNotFoundError):
                let_owner(dir_fd, name, 0o300)

    def _live_directory(self, step: Step) -> os.stat_result | None:
        found = self.root.stat_or_none(step.path)
        return found if found is not None and stat.S_ISDIR(found.st_mode) else None

    def _close_directories(self) -> None:
        for step in self.journal.steps():
            if step.op is Op.META and self._is_directory(step):
                assert step.new is not None
                if self._live_directory(step) is None:
                    self._missed(step.path)
                    continue
                self._apply(step, step.new)
                self._touch(step.path + b"/.")
            elif step.op is Op.MODE and (held := hold_directory(self.root, step.path, step.ino)) is not None:
                assert step.new is not None
                with held:
                    held.set_mode(expected_local(step.new, self.local).mode)
        for step in self.journal.steps():
            if step.op is Op.TIME and (held := hold_directory(self.root, step.path)) is not None:
                with held:
                    held.set_time(step.mtime_ns)

    # --- removals --------------------------------------------------------------------------------------------

    def _remove(self, step: Step) -> None:
        there = self._object_ino(step.key)
        if there is not None and there == step.old_ino:
            return
        try:
            found = self.root.stat_or_none(step.path)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EXDEV):
                raise
            found = None
        if found is None:
            if there is None and step.old_ino:
                self._drifted(step.path)
            return
        if stat.S_ISDIR(found.st_mode):
            if found.st_dev != self.root.device:
                self._kept(step.path)
                return
            if there is not None or holds_ignored(self.root, self.rules, step.path):
                if self._remove_singly(step):
                    self._kept(step.path)
                return
        live_fd, name = self.root.open_parent(step.path)
        if there is not None:
            return  # an object that is not a directory was taken already; what is here now came later
        self.root.forget(step.path)
        self._let_move(live_fd, name)
        self._rename_new(live_fd, name, self.objects_fd, step.key)
        self._touch(step.path)

    def _remove_singly(self, step: Step) -> bool:
        """Take all that may go from a directory, into a copy of its shape; whether something stays."""
        try:
            os.mkdir(step.key, 0o700, dir_fd=self.objects_fd)
        except FileExistsError:
            pass  # begun before
        return self._take_below(step.path, b"o/" + step.key)

    def _take_below(self, directory: bytes, slot: bytes) -> bool:
        stays = False
        if not self.is_root:
            let_owner(*self.root.open_parent(directory), 0o700)
        fd = self.root.open_dir(directory)
        try:
            names = sorted(map(os.fsencode, os.listdir(fd)))
        finally:
            os.close(fd)
        for name in names:
            path, to = directory + b"/" + name, slot + b"/" + name
            found = self.root.stat_or_none(path)
            if found is None:
                continue
            is_dir = stat.S_ISDIR(found.st_mode)
            if found.st_dev != self.root.device or self.rules.ignored(path, is_dir):
                stays = True
                continue
            if is_dir:
                to_fd, to_name = self.staged.open_parent(to)
                try:
                    os.mkdir(to_name, 0o700, dir_fd=to_fd)
                except FileExistsError:
                    pass  # begun before
                stays |= self._take_below(path, to)
                continue
            live_fd, live_name = self.root.open_parent(path)
            to_fd, to_name = self.staged.open_parent(to)
            self._rename_new(live_fd, live_name, to_fd, to_name)
            failpoint(_ENTRY_MOVED)
            self._touch(path)
        if not stays:
            self.root.forget(directory)
            live_fd, live_name = self.root.open_parent(directory)
            try:
                os.rmdir(live_name, dir_fd=live_fd)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                return True  # something came meanwhile: it stays, and is drift for the next scan
            self._touch(directory)
        return stays

    # --- helpers -----------------------------------------------------------------------------------------------

    def _object_ino(self, key: bytes) -> int | None:
        try:
            return os.stat(key, dir_fd=self.objects_fd, follow_symlinks=False).st_ino
        except FileNotFoundError:
            return None

    def _touch(self, path: bytes) -> None:
        if len(self.touched) <= SYNC_SINGLY_MAX:
            self.touched.add(parent_of(path))

    def _sync(self) -> None:
        if len(self.touched) > SYNC_SINGLY_MAX:
            syncfs(self.objects_fd)
            return
        os.fsync(self.objects_fd)
        for directory in sorted(self.touched):
            try:
                fd = self.root.open_dir(directory)
            except (FileNotFoundError, NotADirectoryError):
                continue  # removed by a later step, whose own parent is here too
            except PermissionError:
                syncfs(self.objects_fd)
                return
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def _drifted(self, path: bytes) -> None:
        if len(self.outcome.drifted) < REPORTED_MAX:
            self.outcome.drifted.append(path)

    def _kept(self, path: bytes) -> None:
        if len(self.outcome.kept) < REPORTED_MAX:
            self.outcome.kept.append(path)

    def _missed(self, path: bytes) -> None:
        if len(self.outcome.missed) < REPORTED_MAX:
            self.outcome.missed.append(path)


@on_opened
def finish(place: Place, journal: Journal) -> None:
    """Close a switched journal whose result the node has recorded: rows and journal go, in this order."""
    assert journal.is_switched
    failpoint(_FINISHING)
    _strip_batch(place, journal)
    journal.remove()


def _strip_batch(place: Place, journal: Journal) -> None:
    batch = journal.header.batch.encode()
    path = os.fsencode(place.archive) + b"/" + batch
    for name in (b"rows", b"steps", b"dirs", b"links", b"base", PREPARED):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(path + b"/" + name)
    strip_batch(place, batch)


@on_opened
def strip_batch(place: Place, batch: bytes) -> None:
    """Remove a batch in which nothing was archived, unless an old tree lingers in it."""
    path = os.fsencode(place.archive) + b"/" + batch
    with contextlib.suppress(FileNotFoundError):  # pruned meanwhile
        if not os.listdir(path + b"/o") and not os.path.lexists(path + b"/" + NEXT):
            _remove_empty_batch(path)


def _remove_empty_batch(batch: bytes) -> None:
    fd = os.open(os.path.dirname(batch), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_object(fd, os.path.basename(batch))
    finally:
        os.close(fd)
