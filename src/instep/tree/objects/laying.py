"""Laying single objects into a stage: the quickest safe way for small files, and the parts that they leave behind.

Every object is made under its final name below the stage with its final mode and times; no other program sees it
before a rename. Not for two threads at once.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable

import msgspec

from instep.errors import InstepError
from instep.model.definition import Preserve
from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Kind
from instep.tree.journal.journal import RowRecord
from instep.tree.objects.digest import digest_bytes
from instep.tree.objects.fidelity import Local, apply_metadata
from instep.tree.objects.inode import let_owner
from instep.tree.objects.large import digest_of_fd, mismatch, write_around_holes
from instep.tree.objects.rows import row_of_stat
from instep.tree.objects.sync_beside import SyncBeside
from instep.tree.root.beneath import NOT_BENEATH, Root, syncfs
from instep.tree.root.descriptors import CREATE, READ, Tolerated, closing_fd
from instep.tree.root.records import write_all

SYNC_SINGLY_MAX = 64
"""Up to so many objects are synced one by one; more by one ``syncfs``, which also flushes what is not ours."""


class Layer:
    """Makes objects below one stage directory. Slots are paths relative to it."""

    def __init__(self, stage: bytes, local: Local, large_value: Callable[[Digest], bytes]) -> None:
        self.tree = Root(stage)
        self.local = local
        self._large_value = large_value
        self._is_plain = local.is_plain
        self._mode_mask = local.modes(Kind.FILE)
        self._kept_by_open = 0o777 & ~_umask()
        self._unsynced: list[bytes] = []
        self._are_many = False
        self._beside = SyncBeside(self.tree)

    def close(self) -> None:
        try:
            self._beside.end()
        finally:
            self.tree.close()

    def small(self, slot: bytes, entry: Entry, data: bytes | memoryview) -> os.stat_result:
        """A new file with ``data``, whose digest is checked first. The stat is taken after all was set."""
        if len(data) != entry.size or digest_bytes(data) != entry.digest:
            raise mismatch(entry)
        dir_fd, name = self.tree.open_parent(slot)
        mode = entry.mode & self._mode_mask
        # Masked bits and set-id bits are given by fchmod; a file that has none is made right at once.
        fd = os.open(name, CREATE, mode & 0o777, dir_fd=dir_fd)
        try:
            if self._is_plain:
                if data:
                    write_all(fd, data)
                if mode & ~self._kept_by_open:
                    os.fchmod(fd, mode)
                os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
            else:
                self._bytes(fd, entry, data)
                self.metadata(slot, entry, fd)
            found = os.fstat(fd)
        except (OSError, InstepError):
            os.unlink(name, dir_fd=dir_fd)  # a full disk: half an object must not be in the way of a retry
            raise
        finally:
            os.close(fd)
        self.unsynced(slot)
        if self._are_many:
            self._beside.laid(entry.size)
        return found

    def is_sparse(self, entry: Entry) -> bool:
        return entry.extra is not None and entry.extra.sparse and self.local.keeps(Preserve.SPARSE)

    def _bytes(self, fd: int, entry: Entry, data: bytes | memoryview) -> None:
        if self.is_sparse(entry):
            os.ftruncate(fd, entry.size)
            write_around_holes(fd, 0, memoryview(data))
        else:
            write_all(fd, data)

    def symlink(self, slot: bytes, entry: Entry, target: bytes | memoryview) -> None:
        target = bytes(target)
        if len(target) != entry.size or digest_bytes(target) != entry.digest or b"\0" in target:
            raise mismatch(entry)
        dir_fd, name = self.tree.open_parent(slot)
        os.symlink(target, name, dir_fd=dir_fd)
        try:
            self.metadata(slot, entry, None)
        except (OSError, InstepError):
            os.unlink(name, dir_fd=dir_fd)
            raise

    def directory(self, slot: bytes) -> bool:
        """A directory with mode 0700, whose metadata comes at the seal; False when it was there."""
        dir_fd, name = self.tree.open_parent(slot)
        try:
            os.mkdir(name, 0o700, dir_fd=dir_fd)
        except FileExistsError:
            if let_owner(dir_fd, name, 0o700):
                return False
            os.unlink(name, dir_fd=dir_fd)
            os.mkdir(name, 0o700, dir_fd=dir_fd)
        self.unsynced(slot)
        return True

    def metadata(self, slot: bytes, entry: Entry, fd: int | None) -> None:
        dir_fd, name = self.tree.open_parent(slot)
        apply_metadata(dir_fd, name, entry, self.local, fd=fd, large_value=self._large_value)

    def holds(self, slot: bytes, entry: Entry) -> os.stat_result | None:
        """The stat of the object at ``slot`` when it has the entry's content, hashed now; else None."""
        found = self.tree.stat_or_none(slot)
        if found is None:
            return None
        dir_fd, name = self.tree.open_parent(slot)
        if entry.kind is Kind.SYMLINK:
            if stat.S_ISLNK(found.st_mode) and digest_bytes(os.readlink(name, dir_fd=dir_fd)) == entry.digest:
                self.metadata(slot, entry, None)
                return found
            return None
        if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size or found.st_nlink != 1:
            return None
        try:
            fd = os.open(name, READ, dir_fd=dir_fd)
        except PermissionError:
            return None
        with closing_fd(fd):
            if digest_of_fd(fd) != entry.digest:
                return None
            self.metadata(slot, entry, fd)
            self.unsynced(slot)
            return os.fstat(fd)

    def unsynced(self, slot: bytes) -> None:
        if not self._are_many:
            self._unsynced.append(slot)
            self._are_many = len(self._unsynced) > SYNC_SINGLY_MAX

    def sync(self) -> None:
        """Make all that was laid durable, and the directories that name it."""
        self._beside.end()
        if not self._are_many:
            try:
                self._sync_singly()
                return
            except PermissionError:
                pass  # a mode that we may not open, without being root: the whole file system is synced instead
        with closing_fd(self.tree.open_dir(b"")) as fd:
            syncfs(fd)

    def _sync_singly(self) -> None:
        directories = {b"", b"o"}
        for slot in self._unsynced:
            directories.add(slot.rpartition(b"/")[0])
            with closing_fd(self.tree.open(slot, READ)) as fd:
                os.fsync(fd)
        sync_each(self.tree, directories)


def attribute_slot(digest: Digest) -> bytes:
    """Where a stage keeps the value of a large attribute."""
    return b"v/" + digest.hex().encode()


def staged_attribute(tree: Root, digest: Digest) -> bytes:
    with closing_fd(tree.open(attribute_slot(digest), READ)) as fd:
        return os.pread(fd, 1 << 17, 0)


def without_large(entry: Entry) -> Entry:
    """``entry`` less attributes whose values are not here yet; they are set at the seal."""
    assert entry.extra is not None
    return msgspec.structs.replace(entry, extra=msgspec.structs.replace(entry.extra, large_xattrs=()))


def row_of(path: bytes, entry: Entry, found: os.stat_result, *, is_staged: bool) -> RowRecord:
    chunks = (entry.extra.chunks if entry.extra is not None else None) or b""
    return RowRecord(*row_of_stat(path, found, entry.digest, chunks, time.time_ns()), is_staged)


def _umask() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o777


def remove_object(dir_fd: int, name: bytes) -> None:
    """Remove ``name`` in ``dir_fd`` with all below it, however deep, following nothing; nothing there is fine."""
    if not _unlinked(name, dir_fd):
        _remove_directories(dir_fd, [name])


def remove_contents(dir_fd: int) -> None:
    """Remove all that lies in a directory, as ``remove_object`` does."""
    names = map(os.fsencode, os.listdir(dir_fd))
    _remove_directories(dir_fd, [name for name in names if not _unlinked(name, dir_fd)])


def _remove_directories(dir_fd: int, names: list[bytes]) -> None:
    with Root(b"/proc/self/fd/%d/." % dir_fd) as root:
        pending = list(names)
        while pending:
            path = pending[-1]
            directories = _emptied(root, path)
            if directories:
                pending += [path + b"/" + below for below in directories]
                continue
            parent, last = root.open_parent(path)
            os.rmdir(last, dir_fd=parent)
            pending.pop()


def _unlinked(name: bytes, dir_fd: int) -> bool:
    """Whether ``name`` is gone now; False for a directory."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return True
    except (IsADirectoryError, PermissionError):
        if not stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
            raise
        return False
    return True


def _emptied(root: Root, path: bytes) -> list[bytes]:
    """Unlink what lies in the directory ``path``; the names of the directories in it, which stay."""
    parent, last = root.open_parent(path)
    let_owner(parent, last, 0o700)
    with closing_fd(root.open_dir(path)) as fd:
        return [name for name in map(os.fsencode, os.listdir(fd)) if not _unlinked(name, fd)]


def sync_directory(path: bytes | str | os.PathLike[str]) -> None:
    with closing_fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        os.fsync(fd)


def sync_each(root: Root, paths: Iterable[bytes]) -> None:
    """Sync these files and directories beneath ``root``; an object that has gone or is something else by now is
    left out. ``PermissionError`` for an object that may not be opened."""
    for path in sorted(paths):  # a directory has its name on the disk before something moves into it for good
        found = root.stat_or_none(path)
        if found is None or not (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)):
            continue
        with Tolerated(*NOT_BENEATH), closing_fd(root.open(path, READ)) as fd:
            os.fsync(fd)
