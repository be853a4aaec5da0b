"""``restore --to DIR``: paths of a generation written into a directory that an operator names, on any node.

Contents come from this node, else from partners: a writer asks its followers, a follower asks its senders, which
give what their links allow (P6). Nothing is followed or overwritten there, and each file gets its name once its digest
was checked. Setuid and setgid bits, owners and attributes are left out: the written files belong to the node's user.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from instep.errors import RefusedError, UnavailableError, UsageError
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.manifest import Change, diff
from instep.model.paths import is_below, shown
from instep.node.retrieval.fetching_out import FetchingOut
from instep.node.trees.keeping.page_walk import must_have
from instep.node.writing.restore_plan import nowhere
from instep.tree.archive.contents import Contents
from instep.tree.archive.outlet import finish_directory, open_outlet, put_out
from instep.tree.root.beneath import Root
from instep.tree.root.descriptors import closing_fd

_WRITE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class RestoringOut:
    """One ``restore --to``. The walk is made in a thread of its own; missing contents are fetched on the event loop."""

    def __init__(self, fetching: FetchingOut) -> None:
        self._fetching = fetching
        self._service = fetching.service
        self._target = fetching.target
        self._made: dict[bytes, tuple[int, int]] = {}
        """Device and inode of each directory that this restore made."""

    async def changes(self, paths: Sequence[bytes]) -> list[Change]:
        """The changes to write, parents first. ``UsageError`` ``no_such_path``."""
        return await asyncio.to_thread(self._changes, paths)

    def _changes(self, paths: Sequence[bytes]) -> list[Change]:
        try:
            found = [
                change
                for change in diff(None, self._target.root, must_have(self._service.runtime.store.get_page))
                if not paths or any(change.path == path or is_below(change.path, path) for path in paths)
            ]
        except KeyError as error:
            raise UnavailableError(
                f"the manifest of generation {self._target.number} is not here any more",
                hint=f"on the node that writes it: instep restore {self._service.fileset.name} --to DIR",
                code="contents_missing",
                generation=self._target.number,
            ) from error
        there = {change.path for change in found}
        for path in paths:
            if path not in there:
                raise UsageError(
                    f"generation {self._target.number} has no {shown(path)}",
                    hint=f"see the generations: instep log {self._service.fileset.name}",
                    code="no_such_path",
                    path=shown(path),
                )
        return found

    async def require_contents(self, changes: Sequence[Change]) -> None:
        """``UnavailableError`` ``contents_missing`` where no node has a content. Whether a follower's senders have
        it shows only once they are asked."""
        entries = [c.new for c in changes if c.new is not None and c.new.kind is not Kind.DIR]
        lost = await asyncio.to_thread(lambda: self._service.tree.contents().missing_of(entries))
        if not lost:
            return
        partners = self._fetching.partners
        await partners.locate(lost)
        gone = [entry for entry in lost if not partners.who_has(entry)]
        if gone and not self._fetching.senders:
            raise nowhere(self._service.fileset.name, self._target, gone, partners)

    async def write(self, changes: Sequence[Change], to: bytes) -> None:
        """Write all of it. ``RefusedError`` ``exists``, ``target_is_symlink``."""
        await asyncio.to_thread(self._write, changes, to)

    def _write(self, changes: Sequence[Change], to: bytes) -> None:
        contents = self._service.tree.contents()
        entries = [change.new for change in changes if change.new is not None]
        contents.expect(entries)
        with open_outlet(to) as outlet:
            for entry in entries:
                if outlet.stat_or_none(entry.path) is not None:
                    raise _exists(to, entry.path)
            for change in changes:
                self._put(outlet, to, change, contents)
            for entry in reversed(entries):
                if entry.kind is Kind.DIR:
                    made = self._made[entry.path]
                    finish_directory(outlet, entry.path, made, entry.mode, entry.mtime_ns, shown_as=to)

    def _put(self, outlet: Root, to: bytes, change: Change, contents: Contents) -> None:
        entry = change.new
        assert entry is not None

        def make(fd: int, name: bytes) -> None:
            if entry.kind is Kind.DIR:
                # Files below may be guarded by the mode of this directory alone.
                os.mkdir(name, 0o700, dir_fd=fd)
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                self._made[entry.path] = found.st_dev, found.st_ino
            elif entry.kind is Kind.SYMLINK:
                os.symlink(self._target_of(change, entry, contents), name, dir_fd=fd)
            else:
                self._make_file(fd, name, change, entry, contents)

        put_out(outlet, entry.path, make, shown_as=to)

    def _target_of(self, change: Change, entry: Entry, contents: Contents) -> bytes:
        with closing_fd(os.memfd_create("target", os.MFD_CLOEXEC)) as fd:
            self._fetching.put(change, entry, contents, fd)
            return os.pread(fd, entry.size, 0)

    def _make_file(self, fd: int, name: bytes, change: Change, entry: Entry, contents: Contents) -> None:
        to = os.open(name, _WRITE, 0o600, dir_fd=fd)
        try:
            self._fetching.put(change, entry, contents, to)
            os.fchmod(to, entry.mode & 0o777)
            os.utime(to, ns=(entry.mtime_ns, entry.mtime_ns))
            os.fsync(to)
        finally:
            os.close(to)


def _exists(to: bytes, path: bytes) -> RefusedError:
    target = shown(to + b"/" + path)
    return RefusedError(
        f"{target} exists already",
        hint="restore to another directory; nothing is overwritten",
        code="exists",
        path=target,
    )
