"""Files captured from a tree that is in use, as they are at the moment of a database's snapshot.

Everything is copied first. Paths that the watch reports meanwhile are copied again just before the snapshot, and those
of the moment around it just after. A program that removes a row before its file, and writes a file before its row,
leaves no row without a file then, but for the files of that moment which are gone or changed: they are in doubt.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

from instep.model.definition import Definition, Preserve
from instep.model.ids import EMPTY_DIGEST, Digest
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import is_below
from instep.tree.objects.abilities import lacking, probe_filesystem
from instep.tree.objects.copied_file import copied_file, entry_of
from instep.tree.objects.digest import READ_TRIES, digest_bytes, same_stat
from instep.tree.objects.fidelity import Local, apply_metadata
from instep.tree.objects.large import digest_of_fd
from instep.tree.objects.laying import remove_object
from instep.tree.root.beneath import NOT_BENEATH, Root
from instep.tree.root.descriptors import READ, Tolerated, closing_fd
from instep.tree.root.failpoints import failpoint, register
from instep.tree.scan.rules import Rules
from instep.tree.scan.subtree import OTHER, kind_of
from instep.tree.scan.touched import Touched, is_reserved
from instep.tree.watch.inotify import InotifyWatcher

_CAPTURED = register("backup.captured")
_PENDING = b".instep-pending"


class Captured(NamedTuple):
    """One object as it was copied."""

    kind: Kind
    digest: Digest
    size: int
    stat: os.stat_result


def local_of(folder: Path) -> Local:
    """The metadata that copies in ``folder`` can have."""
    wanted = frozenset(Preserve)
    return Local(wanted, without=lacking(wanted, probe_filesystem(folder)), is_own=True)


class Capture:
    """Copies the tree at ``root`` into the empty folder ``into``. Its ignored paths are left out."""

    def __init__(self, root: Path, definition: Definition, into: Path) -> None:
        self._rules = Rules(definition)
        self._tree, self._into = Root(root), Root(into)
        self._local = local_of(into)
        self._values: dict[Digest, bytes] = {}
        self._watcher = InotifyWatcher(root, self._rules)
        self.objects: dict[bytes, Captured] = {}
        self._doubts: set[bytes] = set()

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._watcher.close()
        self._tree.close()
        self._into.close()

    def look(self) -> None:
        """Copy everything. What an earlier look copied stays where its original has gone."""
        self._take_all(self._walk(b""))

    def before_snapshot(self) -> None:
        """Copy again what was touched since. A file that is gone now has no row in a snapshot that comes later."""
        self._doubts.clear()
        self._retake(self._drain())
        self._doubts.clear()

    def after_snapshot(self) -> None:
        """Copy what was touched around the snapshot, and name each path of it that may be others by now."""
        touched = self._drain()
        self._retake(touched)
        self._doubts.update(touched & self._drain())
        if self._watcher.problem is not None:
            self._doubts.add(b"/")

    def in_doubt(self) -> list[bytes]:
        """The paths that a row of the dump may name, and that are not here as they were at the snapshot."""
        return sorted(self._doubts)

    def finish(self) -> None:
        """Directories get their metadata, deepest first."""
        for path in sorted((p for p, o in self.objects.items() if o.kind is Kind.DIR), reverse=True):
            with Tolerated(*NOT_BENEATH), closing_fd(self._tree.open_dir(path)) as fd:
                about = os.fstat(fd)
                entry = entry_of(path, Kind.DIR, fd, about, EMPTY_DIGEST, self._local, self._values)
                parent, name = self._into.open_parent(path)
                apply_metadata(parent, name, entry, self._local, large_value=self._values.__getitem__)

    def _drain(self) -> set[bytes]:
        """Touched paths since the last call; ``/`` for the whole tree."""
        found: set[bytes] = set()
        while events := self._watcher.read():
            found.update(event.path if isinstance(event, Touched) else b"/" for event in events)
        return {path or b"/" for path in found}

    def _retake(self, touched: set[bytes]) -> None:
        if b"/" in touched:
            self.look()
        for path in sorted(touched - {b"/"}):
            found = self._tree.stat_or_none(path)
            if found is None:
                if path not in self.objects:
                    self._doubts.add(path)
                continue
            is_dir = stat.S_ISDIR(found.st_mode)
            if kind_of(found) == OTHER or self._rules.ignored(path, is_dir):
                continue
            self._take_all(((path, found),))
            if is_dir:
                self._take_all(self._walk(path))

    def _take_all(self, objects: Iterable[tuple[bytes, os.stat_result]]) -> None:
        for path, found in objects:
            with Tolerated(*NOT_BENEATH, errno.ENXIO):
                self._take(path, found)
                failpoint(_CAPTURED)

    def _walk(self, directory: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
        with Tolerated(*NOT_BENEATH):
            for path, found in self._tree.stats(directory):
                is_dir = stat.S_ISDIR(found.st_mode)
                if is_reserved(path) or kind_of(found) == OTHER or self._rules.ignored(path, is_dir):
                    continue
                yield path, found
                if is_dir:
                    yield from self._walk(path)

    def _take(self, path: bytes, found: os.stat_result) -> None:
        kind = Kind(kind_of(found))
        before = self.objects.get(path)
        if before is not None and before.kind is kind and (kind is Kind.DIR or same_stat(before.stat, found)):
            return
        if before is not None and before.kind is not kind:
            remove_object(*self._into.open_parent(path))
            self._into.forget(path)
            for below in [each for each in self.objects if is_below(each, path)]:
                del self.objects[below]
        digest = EMPTY_DIGEST
        if kind is Kind.DIR:
            parent, name = self._into.open_parent(path)
            os.mkdir(name, 0o700, dir_fd=parent)
        else:
            digest = self._symlink(path, found) if kind is Kind.SYMLINK else self._file(path)
        size = 0 if kind is Kind.DIR else self._into.stat(path).st_size
        self.objects[path] = Captured(kind, digest, size, found)

    def _symlink(self, path: bytes, found: os.stat_result) -> Digest:
        target = self._tree.readlink(path)
        digest = digest_bytes(target)
        os.symlink(target, _PENDING, dir_fd=self._into.fd)
        entry = Entry(path, Kind.SYMLINK, 0o777, len(target), found.st_mtime_ns, digest, 0, None)
        apply_metadata(self._into.fd, _PENDING, entry, Local(is_own=True))
        self._place(path)
        return digest

    def _file(self, path: bytes) -> Digest:
        """The last state that was read; in doubt when it changed at each attempt."""
        with closing_fd(self._tree.open(path, READ)) as source:
            for _ in range(READ_TRIES):
                with Tolerated(errno.ENOENT):
                    os.unlink(_PENDING, dir_fd=self._into.fd)
                digest = copied_file(source, self._into.fd, _PENDING, path, self._local, self._values)
                if digest is not None:
                    break
            else:
                self._doubts.add(path)
                with closing_fd(self._into.open(_PENDING, READ)) as copy:
                    digest = digest_of_fd(copy)
        self._place(path)
        return digest

    def _place(self, path: bytes) -> None:
        parent, name = self._into.open_parent(path)
        os.rename(_PENDING, name, src_dir_fd=self._into.fd, dst_dir_fd=parent)
