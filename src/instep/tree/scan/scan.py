"""Read a tree into entries, in path order, reading only the files that changed since the last time.

The stat cache decides what is read, the digest decides what changed. A row of the cache counts when inode,
ctime, mtime and size are the same and the row was read at least 2 s after the file's last change: a younger
one is read again, for a second change within the clock's grain would not show. ``ctime`` alone measures that
age, because programs may set ``mtime`` to anything. Design, section 5.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from instep.model.definition import Definition, Preserve
from instep.model.ids import EMPTY_DIGEST, Digest
from instep.model.limits import TIME_MAX_NS, TIME_MIN_NS, broken_by_stat
from instep.model.manifest.entry import CHUNKED_OVER, Entry, Extra, Kind
from instep.model.manifest.pages import PutPage, drop_page
from instep.model.paths import sort_key
from instep.model.statrow import StatRow
from instep.tree.objects.chunking import chunk_file
from instep.tree.objects.digest import READ_TRIES, SMALL_MAX, digest_bytes, read_once, same_stat
from instep.tree.objects.fidelity import Local, has_holes, read_extra
from instep.tree.objects.rows import RACY_NS, is_same, is_settled, row_of_stat
from instep.tree.root.beneath import Root
from instep.tree.root.descriptors import READ, closing_fd
from instep.tree.root.kernel import change_clock_ns
from instep.tree.root.marker import Marker, check_marker, open_root
from instep.tree.root.place import Place
from instep.tree.scan.cover import EVERYTHING, Cover
from instep.tree.scan.listing import GONE, Child, Lister, Problem, Seen, special, unfit, unreadable
from instep.tree.scan.openness import Openness, OpennessProbe
from instep.tree.scan.rules import Rules, is_in_lost_and_found
from instep.tree.scan.settling import (
    Settling,
    Sink,
    handed_on,
    is_in_place,
    is_read_later,
    trusted_at,
    written,
)
from instep.tree.scan.touched import is_reserved


class Scanned(msgspec.Struct, frozen=True, gc=False):
    """An entry as the tree has it (``born_ms`` 0). ``row`` only for files; it wants saving when
    ``is_row_new``. ``is_fresh_read``: its bytes were read just now. ``is_racy``: another change might show the
    same times, so the file wants reading again in 2 s. ``is_open``: a program has it open for writing, or mapped."""

    entry: Entry
    row: StatRow | None = None
    is_fresh_read: bool = False
    is_row_new: bool = False
    is_racy: bool = False
    is_open: bool = False


def scan(
    place: Place,
    definition: Definition,
    cached: Callable[[bytes], StatRow | None],
    by_inode: Callable[[int, int], StatRow | None] | None,
    now_ns: int,
    *,
    covered: Cover = EVERYTHING,
    local: Local | None = None,
    marker: Marker | None = None,
    rules: Rules | None = None,
    sink: Sink | None = None,
    keep_value: Callable[[Digest, bytes], None] | None = None,
    put_page: PutPage = drop_page,
    deep: bool = False,
    suspects: frozenset[bytes] = frozenset(),
    settling: Settling | None = None,
    seen: Seen | None = None,
) -> Iterator[Scanned | Problem]:
    """Every path of the tree in path order, the root itself left out; or the paths that ``covered`` names, of which a
    missing one yields nothing.

    ``cached`` gives the row of a path (``RowsInOrder`` where rows stream in order), ``by_inode`` finds the row of a
    file that was moved with its directory. ``local`` says which metadata is read; None means the writer's own tree.
    ``marker`` is checked before the first path and again after the last: a root that was emptied or unmounted
    meanwhile must not pass for one with fewer files. ``put_page`` gets the pages of chunk lists, ``sink`` the bytes
    that were read, ``keep_value`` large attribute values. ``deep`` reads every byte and names a settled file whose
    digest changed under the same stat as ``damaged``; ``suspects`` are files that are read so in any case.
    ``settling`` holds a writer's waiting times: a file that a program is writing is then an ``unstable`` problem.
    ``seen`` gets the directories that are listed.
    ``now_ns`` is the wall clock. Errors: ``RefusedError`` ``root_missing``, ``marker_missing``, ``marker_foreign``;
    ``ResourceError``. A root that cannot be listed is a ``Problem`` of the empty path.
    """
    local = local or Local(preserve=frozenset(definition.preserve), is_own=True)
    rules = rules or Rules(definition)
    if marker is not None:
        check_marker(place.root, marker.fileset, marker.node, marker.random)
    with open_root(place.root) as root:
        reads = (cached, by_inode, now_ns, sink, keep_value, put_page, deep, suspects, settling, seen)
        scanner = _Scanner(root, rules, local, *reads)
        if covered.is_everything:
            scanner.find_link_groups()
            yield from scanner.below(b"")
        else:
            trees = set(covered.trees)
            for path in sorted((*covered.trees, *covered.entries), key=sort_key):
                yield from scanner.at(path, with_subtree=path in trees)
    if marker is not None:
        check_marker(place.root, marker.fileset, marker.node, marker.random)


@dataclass(slots=True)
class _Scanner:
    """One pass over one tree; most fields are arguments of ``scan``."""

    root: Root
    rules: Rules
    local: Local
    cached: Callable[[bytes], StatRow | None]
    by_inode: Callable[[int, int], StatRow | None] | None
    now_ns: int
    sink: Sink | None
    keep_value: Callable[[Digest, bytes], None] | None
    put_page: PutPage
    deep: bool
    suspects: frozenset[bytes]
    settling: Settling | None
    seen: Seen | None
    lister: Lister = field(init=False)
    openness: OpennessProbe = field(init=False)
    change_ns: int | None = field(init=False)
    is_plain: bool = field(init=False)
    groups: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lister = Lister(self.root, self.rules, self.seen)
        self.openness = OpennessProbe(self.root.fd)
        self.change_ns = change_clock_ns(self.root.fd)
        self.is_plain = self.local.is_plain
        self.local.owners.refresh()

    def find_link_groups(self) -> None:
        """Where hard links are kept: a first walk that finds which inodes have two paths in this tree."""
        if not self.local.keeps(Preserve.HARDLINKS):
            return
        seen: dict[int, bytes] = {}
        pending = [b""]
        while pending:
            try:
                children = self.lister.children(pending.pop())
            except OSError:
                continue  # the walk that reports meets it again
            for path, found in children:
                if isinstance(found, Problem):
                    continue
                if stat.S_ISDIR(found.st_mode):
                    pending.append(path)
                elif stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
                    first = seen.setdefault(found.st_ino, path)
                    if first != path:
                        before = self.groups.get(found.st_ino, first)
                        self.groups[found.st_ino] = min(before, path, key=sort_key)

    def at(self, path: bytes, with_subtree: bool) -> Iterator[Scanned | Problem]:
        """One path, and all below it."""
        ancestor = path.rpartition(b"/")[0]
        if is_reserved(path) or (ancestor and self.rules.ignored(ancestor, True)):
            return
        try:
            if is_in_lost_and_found(self.root, path):
                return
            found = self.root.stat_or_none(path)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EXDEV):
                yield unreadable(path, error)
            return  # behind a symlink or a mount there is nothing of this tree
        if found is None or self.rules.ignored(path, stat.S_ISDIR(found.st_mode)):
            return
        yield from self._walk([iter([(path, found)])], with_subtree)

    def below(self, top: bytes) -> Iterator[Scanned | Problem]:
        """Everything below a directory, not itself."""
        try:
            children = self.lister.children(top)
        except OSError as error:
            return iter((unreadable(top, error),))
        return self._walk([iter(children)], True)

    def _walk(self, stack: list[Iterator[Child]], with_subtree: bool) -> Iterator[Scanned | Problem]:
        device = self.root.device
        reads_all, is_plain, cached = self.deep, self.is_plain, self.cached
        suspects = self.suspects
        while stack:
            for path, found in stack[-1]:
                if isinstance(found, Problem):
                    yield found
                    continue
                mode = found.st_mode
                kind = mode & 0o170000
                if found.st_dev != device and (kind == 0o040000 or self._is_mount(path)):
                    yield _mount(path)
                elif kind == 0o100000:
                    row = cached(path)
                    if (
                        row is not None
                        and is_plain
                        and not reads_all
                        and path not in suspects
                        and row.ino == found.st_ino
                        and row.ctime_ns == found.st_ctime_ns
                        and row.mtime_ns == found.st_mtime_ns
                        and row.size == found.st_size
                        and row.read_at_ns - row.ctime_ns >= RACY_NS
                    ):
                        extra = Extra(chunks=Digest(row.chunks)) if row.chunks else None
                        digest = Digest(row.digest)
                        entry = Entry(
                            path, Kind.FILE, mode & 0o7777, row.size, row.mtime_ns, digest, 0, extra
                        )
                        yield Scanned(entry, row)
                    else:
                        result = self._file(path, found, row)
                        if result is not None:
                            yield result
                elif kind == 0o040000:
                    result, children = self._enter(path, found, with_subtree)
                    if result is not None:
                        yield result
                    if children:
                        stack.append(iter(children))
                        break
                else:
                    result = self._symlink(path, found) if kind == 0o120000 else special(path, kind)
                    if result is not None:
                        yield result
            else:
                stack.pop()

    def _enter(
        self, path: bytes, found: os.stat_result, with_subtree: bool
    ) -> tuple[Scanned | Problem | None, Iterable[Child]]:
        """A directory and its children; opened even when they are not asked for, because a bind mount of
        the same file system shows only then."""
        try:
            children: Iterable[Child] = ()
            if with_subtree:
                children = self.lister.children(path)
            else:
                os.close(self.root.open_dir(path))
            extra = None if self.is_plain else self._extra(path, found, Kind.DIR)
        except OSError as error:
            if error.errno == errno.EXDEV:
                return _mount(path), ()
            return (None if error.errno in GONE else unreadable(path, error)), ()
        # Its time says nothing about its contents: one that cannot be carried holds nothing back.
        mtime_ns = min(max(found.st_mtime_ns, TIME_MIN_NS), TIME_MAX_NS)
        entry = Entry(path, Kind.DIR, found.st_mode & 0o7777, 0, mtime_ns, EMPTY_DIGEST, 0, extra)
        result = self._judged(Scanned(entry))
        return result, children if isinstance(result, Scanned) else ()

    def _is_mount(self, path: bytes) -> bool:
        """Whether something that is not a directory is a mount of its own. The device alone does not say it:
        on an overlay, files may have the device of their layer."""
        if self.root.walk:
            return True
        try:
            os.close(self.root.open(path, os.O_PATH | os.O_NOFOLLOW))
        except OSError as error:
            return error.errno == errno.EXDEV
        return False

    def _symlink(self, path: bytes, found: os.stat_result) -> Scanned | Problem | None:
        try:
            target = self.root.readlink(path)
            extra = None if self.is_plain else self._extra(path, found, Kind.SYMLINK)
        except OSError as error:
            return None if error.errno in (*GONE, errno.EINVAL) else unreadable(path, error)
        digest = digest_bytes(target)
        entry = Entry(path, Kind.SYMLINK, 0o777, len(target), found.st_mtime_ns, digest, 0, extra)
        result = self._judged(Scanned(entry))
        if self.sink is not None and isinstance(result, Scanned):
            self.sink(digest, target, -1)
        return result

    def _file(self, path: bytes, found: os.stat_result, row: StatRow | None) -> Scanned | Problem | None:
        """A file whose row does not answer at once; None when it is gone."""
        broken = broken_by_stat(found.st_size, found.st_mtime_ns)
        if broken is not None:
            return Problem(path, *broken)
        is_row_new = False
        if self.by_inode is not None and (row is None or row.ino != found.st_ino):
            moved = self.by_inode(found.st_dev, found.st_ino)
            if moved is not None and is_same(moved, found):
                row, is_row_new = moved._replace(path=path), True
        try:
            is_known = row is not None and is_same(row, found) and is_settled(row)
            if row is not None and is_known and not self.deep and path not in self.suspects:
                return self._judged(Scanned(self._file_entry(path, found, row), row, False, is_row_new))
            if row is not None and is_same(row, found) and is_read_later(self.settling, path):
                return self._judged(Scanned(self._file_entry(path, found, row), row, is_open=True))
            return self._read(path, found, row)
        except OSError as error:
            if error.errno in GONE:
                return None
            if error.errno == errno.EXDEV:
                return _mount(path)
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.ESPIPE, errno.EISDIR):
                return Problem(path, "unstable", "it changed its kind while it was read")
            return unreadable(path, error)

    def _read(self, path: bytes, found: os.stat_result, row: StatRow | None) -> Scanned | Problem:
        """Read until the stat before (at first that of the listing) equals the stat after."""
        with closing_fd(self.root.open(path, READ)) as fd:
            at_first = self.openness.of(fd)
            if found.st_size > SMALL_MAX and (
                problem := written(self.settling, path, found, at_first, self.now_ns)
            ):
                return problem
            for _ in range(READ_TRIES):
                digest, chunks, length, data = self._read_once(fd, found.st_size, found.st_mtime_ns, row)
                before, found = found, os.fstat(fd)
                if length == found.st_size and same_stat(before, found):
                    break
            else:
                return Problem(path, "unstable", f"it changed during each of {READ_TRIES} reads")
            openness = self.openness.of(fd)
            if problem := written(self.settling, path, found, openness, self.now_ns):
                return problem
            is_other = row is not None and row.digest != digest and is_same(row, found) and is_settled(row)
            if row is not None and is_other and not is_in_place(fd, openness, digest):
                is_now = f"its stat is that of {row.digest.hex()}, its bytes are {digest.hex()}"
                return Problem(path, "damaged", is_now)
            if problem := handed_on(self.sink, self.settling, path, digest, data, fd):
                return problem
        was_open = at_first is Openness.OPEN  # a store behind the read may have moved no time
        read_at = trusted_at(found, at_first if was_open else openness, self.now_ns, self.change_ns)
        new = row_of_stat(path, found, digest, chunks, read_at)
        is_young = max(read_at, self.now_ns) - found.st_ctime_ns < RACY_NS
        is_racy = is_young or (was_open and openness is not Openness.OPEN)
        entry = self._file_entry(path, found, new)
        return self._judged(Scanned(entry, new, True, True, is_racy, openness is Openness.OPEN))

    def _judged(self, scanned: Scanned) -> Scanned | Problem:
        return unfit(scanned.entry, is_own=self.local.is_own) or scanned

    def _read_once(
        self, fd: int, size: int, mtime_ns: int, row: StatRow | None
    ) -> tuple[Digest, bytes, int, bytes | None]:
        """Digest, chunk root, length read, and small contents."""
        is_chunked = size > CHUNKED_OVER
        is_likely_same = row is not None and (row.size, row.mtime_ns) == (size, mtime_ns)
        known = row if is_chunked and is_likely_same and row is not None and row.chunks else None
        if not is_chunked or known is not None:
            digest, length, data = read_once(fd, size)
            if known is None or known.digest == digest:  # a chunk list is a function of the contents alone
                return digest, known.chunks if known is not None else b"", length, data
        digest, chunks, length = chunk_file(fd, size, self.put_page)
        return digest, chunks, length, None

    def _file_entry(self, path: bytes, found: os.stat_result, row: StatRow) -> Entry:
        chunks = Digest(row.chunks) if row.chunks else None
        extra = None if self.is_plain else self._extra(path, found, Kind.FILE)
        if chunks is not None:
            extra = Extra(chunks=chunks) if extra is None else msgspec.structs.replace(extra, chunks=chunks)
        return Entry(
            path, Kind.FILE, found.st_mode & 0o7777, row.size, row.mtime_ns, Digest(row.digest), 0, extra
        )

    def _extra(self, path: bytes, found: os.stat_result, kind: Kind) -> Extra | None:
        parent, name = self.root.open_parent(path)
        is_file = kind is Kind.FILE
        extra = read_extra(
            b"/proc/self/fd/%d/%b" % (parent, name),
            found,
            kind,
            self.local,
            is_sparse=is_file and found.st_blocks * 512 < found.st_size and self._is_sparse(path, found),
            keep_value=self.keep_value,
        )
        group = self.groups.get(found.st_ino) if is_file and found.st_nlink > 1 else None
        if group is None:
            return extra
        return Extra(link_group=group) if extra is None else msgspec.structs.replace(extra, link_group=group)

    def _is_sparse(self, path: bytes, found: os.stat_result) -> bool:
        if not (self.local.is_own and self.local.keeps(Preserve.SPARSE)):
            return False
        with closing_fd(self.root.open(path, READ)) as fd:
            return has_holes(fd, found)


def _mount(path: bytes) -> Problem:
    return Problem(path, "mount", "another file system is mounted here; it is not crossed")
