"""The copies in the destination: laid out of sight, with their metadata, durable, and only then under their names.

A batch of objects is laid in the journal's folder and synced; the journal records their digests; then each gets its
name, where the name is free. Nothing that another program put there is ever replaced.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

from instep.errors import RefusedError
from instep.model.definition import Preserve
from instep.model.ids import EMPTY_DIGEST, Digest
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import parent_of, shown, sort_key
from instep.tree.journal.renames import put_new
from instep.tree.layout.move_journal import MoveJournal, MoveLaid
from instep.tree.layout.originals import Original
from instep.tree.layout.trouble import named_errors
from instep.tree.objects.abilities import lacking, probe_filesystem
from instep.tree.objects.copied_file import copied_file, entry_of
from instep.tree.objects.digest import READ_TRIES, digest_bytes, digest_fd
from instep.tree.objects.fidelity import Local, apply_metadata
from instep.tree.root.beneath import Root, syncfs
from instep.tree.root.descriptors import READ, Tolerated, closing_fd
from instep.tree.root.failpoints import failpoint, register

BATCH_OBJECTS = 256
BATCH_BYTES = 64 << 20
_MADE = register("layout.made")
_COPIED = register("layout.copied")
_RECORDED = register("layout.recorded")
_NAMED = register("layout.named")
_LINKED = register("layout.linked")
_DRESSED = register("layout.dressed")


def changed(paths: Iterable[bytes]) -> RefusedError:
    """Originals were written while they were moved."""
    names = [shown(path) for path in paths]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return RefusedError(
        f"changed while it was moved: {', '.join(names[:3])}{more}; nothing was deleted, no setting was changed",
        hint="stop the program that writes there, then repeat the command",
        code="changed_since",
        paths=names[:1000],
    )


def kept_in(dest: Path) -> tuple[Local, tuple[str, ...]]:
    """The metadata that copies in ``dest`` get, and the names of the kinds that its file system or this user cannot
    set."""
    wanted = frozenset(Preserve)
    without = lacking(wanted, probe_filesystem(dest))
    return Local(wanted, without=without, is_own=True), tuple(sorted(each.value for each in without))


class Copies:
    """Lays originals into the destination of one journal."""

    def __init__(self, source: Root, journal: MoveJournal, local: Local) -> None:
        self.source, self.journal, self.local = source, journal, local
        self.dest = journal.dest
        self.digests: dict[bytes, Digest] = {}
        """Of each file and link by its path in the source, as copied."""
        self._pending = -1
        self._batch: list[tuple[bytes, bytes, Digest]] = []
        self._batch_bytes = 0
        self._values: dict[Digest, bytes] = {}
        self._inodes: dict[tuple[int, int], Original] = {}

    def have(self, each: Original, digest: Digest) -> None:
        """The destination has this one already."""
        self.digests[each.path] = digest
        if each.stat.st_nlink > 1 and each.kind is Kind.FILE:
            self._is_second(each)

    def lay(self, originals: Iterable[Original]) -> None:
        """Everything, in the order of paths: directories before what lies in them, their metadata at the end."""
        originals = tuple(originals)
        links: list[Original] = []
        self._pending = self.journal.empty_pending()
        try:
            with named_errors(self._dest, b"", "written"):
                directories = self._directories(originals)
            for each in originals:
                with named_errors(self._top, each.path, f"copied to {self._dest}"):
                    if each.kind is Kind.DIR:
                        continue
                    if each.stat.st_nlink > 1 and each.kind is Kind.FILE and self._is_second(each):
                        links.append(each)
                    else:
                        self._object(each)
            with named_errors(self._dest, b"", "written"):
                self._place()
                self._link(links)
                for target in sorted(directories, key=sort_key, reverse=True):
                    self._dress(target, directories[target])
        finally:
            os.close(self._pending)

    @property
    def _top(self) -> Path:
        return Path(os.fsdecode(self.source.path))

    @property
    def _dest(self) -> Path:
        return Path(os.fsdecode(self.dest.path))

    def _is_second(self, each: Original) -> bool:
        return self._inodes.setdefault((each.stat.st_dev, each.stat.st_ino), each) is not each

    # Directories ------------------------------------------------------------------------------------------------

    def _directories(self, originals: tuple[Original, ...]) -> dict[bytes, bytes]:
        """Make every directory that lacks; all of them, by target, with the directory of the source that each is like.
        Those above an item become as the directories above its original."""
        like = {b"": b""}
        for each in originals:
            if each.kind is Kind.DIR:
                like[each.target] = each.path
        for each in originals:
            above, path = parent_of(each.target), parent_of(each.path)
            while above not in like:
                like[above] = path
                above, path = parent_of(above), parent_of(path)
        missing = [each for each in sorted(like, key=sort_key) if self.dest.stat_or_none(each) is None]
        if missing:
            self.journal.add(MoveLaid(tuple((target, EMPTY_DIGEST) for target in missing)))
        for target in missing:
            parent, name = self.dest.open_parent(target)
            os.mkdir(name, 0o700, dir_fd=parent)
            failpoint(_MADE)
        return like

    def _dress(self, target: bytes, path: bytes) -> None:
        """Metadata of a directory that this move made: last, because each name in it changes its time."""
        state = self.journal.state
        is_own = target in state.laid if target else state.began.made_destination
        if not is_own:
            return
        with closing_fd(self.source.open_dir(path)) as fd:
            about = os.fstat(fd)
            entry = entry_of(target, Kind.DIR, fd, about, EMPTY_DIGEST, self.local, self._values)
        if target:
            parent, name = self.dest.open_parent(target)
            apply_metadata(parent, name, entry, self.local, large_value=self._values.__getitem__)
        else:
            with closing_fd(self.dest.open_dir(b"")) as fd:
                apply_metadata(fd, b".", entry, self.local, fd=fd, large_value=self._values.__getitem__)
        failpoint(_DRESSED)

    # Files and links --------------------------------------------------------------------------------------------

    def _object(self, each: Original) -> None:
        name = b"%d" % len(self._batch)
        digest = self._symlink(each, name) if each.kind is Kind.SYMLINK else self._file(each, name)
        self.digests[each.path] = digest
        self._batch.append((name, each.target, digest))
        self._batch_bytes += each.stat.st_size
        failpoint(_COPIED)
        if len(self._batch) >= BATCH_OBJECTS or self._batch_bytes >= BATCH_BYTES:
            self._place()

    def _symlink(self, each: Original, name: bytes) -> Digest:
        target = self.source.readlink(each.path)
        digest = digest_bytes(target)
        entry = Entry(each.target, Kind.SYMLINK, 0o777, len(target), each.stat.st_mtime_ns, digest, 0, None)
        os.symlink(target, name, dir_fd=self._pending)
        if self.local.keeps(Preserve.OWNER):
            os.chown(name, each.stat.st_uid, each.stat.st_gid, dir_fd=self._pending, follow_symlinks=False)
        apply_metadata(self._pending, name, entry, Local(is_own=True))
        return digest

    def _file(self, each: Original, name: bytes) -> Digest:
        for _ in range(READ_TRIES):
            with closing_fd(self.source.open(each.path, READ)) as source:
                digest = copied_file(source, self._pending, name, each.target, self.local, self._values)
            if digest is not None:
                return digest
            os.unlink(name, dir_fd=self._pending)
        raise changed([each.path])

    def _place(self) -> None:
        """Give the batch its names."""
        if not self._batch:
            return
        syncfs(self._pending)
        self.journal.add(MoveLaid(tuple((target, digest) for _, target, digest in self._batch)))
        failpoint(_RECORDED)
        for name, target, digest in self._batch:
            self._name(name, target, digest)
            failpoint(_NAMED)
        self._batch.clear()
        self._batch_bytes = 0

    def _name(self, name: bytes, target: bytes, digest: Digest) -> None:
        parent, last = self.dest.open_parent(target)
        try:
            put_new(self._pending, name, parent, last)
        except FileExistsError:
            raise taken([target], self.dest) from None

    def _link(self, links: list[Original]) -> None:
        """Further names of files that were copied."""
        for each in links:
            first = self._inodes[each.stat.st_dev, each.stat.st_ino]
            self.digests[each.path] = self.digests[first.path]
        if links:
            self.journal.add(MoveLaid(tuple((each.target, self.digests[each.path]) for each in links)))
        for each in links:
            first = self._inodes[each.stat.st_dev, each.stat.st_ino]
            with closing_fd(os.dup(self.dest.open_parent(first.target)[0])) as held:
                parent, name = self.dest.open_parent(each.target)
                first_name = first.target.rpartition(b"/")[2]
                os.link(first_name, name, src_dir_fd=held, dst_dir_fd=parent, follow_symlinks=False)
            failpoint(_LINKED)


def taken(paths: Iterable[bytes], dest: Root) -> RefusedError:
    """Other objects lie in the destination where originals go."""
    names = [shown(path) for path in paths]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return RefusedError(
        f"{os.fsdecode(dest.path)} holds something else already: {', '.join(names[:3])}{more}",
        hint="compare them with the originals, then move them away, and repeat the command",
        code="destination_differs",
        paths=names[:1000],
    )


def digest_on_disk(dest: Root, target: bytes, kind: Kind) -> Digest | None:
    """Digest of a copy as the disk gives it: its pages leave the cache first. None where it is not there."""
    if kind is Kind.SYMLINK:
        with Tolerated(errno.ENOENT, errno.EINVAL):
            return digest_bytes(dest.readlink(target))
        return None
    with contextlib.suppress(FileNotFoundError), closing_fd(dest.open(target, READ)) as fd:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return digest_fd(fd)[0]
    return None
