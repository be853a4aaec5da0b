"""Build the tree that an exchange makes live: beside the live one, of links of its files and directories of its own.

Section 7 of ``docs/spec/journal.md``. Everything here happens before the permit and is visible to no program;
``take_apart`` makes the stage what it was before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from instep.errors import DamagedError, RefusedError
from instep.model.paths import is_below, shown
from instep.model.statrow import StatRow
from instep.tree.journal.journal import Journal, LinkedRecord, Op, Step, encode_record
from instep.tree.objects.laying import SYNC_SINGLY_MAX, remove_object
from instep.tree.objects.rows import RACY_NS, is_same, is_settled
from instep.tree.root.beneath import NOT_BENEATH, Root, syncfs
from instep.tree.root.control_folder import on_opened
from instep.tree.root.descriptors import CREATE, Tolerated, closing_fd
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.marker import CONTROL_NAME, open_marked
from instep.tree.root.place import Place
from instep.tree.root.records import RecordWriter
from instep.tree.scan.rules import Rules
from instep.tree.scan.subtree import walk_below

_LINKED_ONE = register("exchange.linked")
_BUILT = register("exchange.built")

NEXT = b"next"
"""The next tree in its stage; after the swap the old one, which goes with the stage into the archive."""
LINKED = b"linked"
"""Which names of the next tree are links."""
PREPARED = b"prepared"
"""Says that the next tree holds the target, durably."""
NAMED_MAX = 20
ROWS_BATCH = 2_000
_SURELY_OLD_NS = 1_000_000_000

LiveRow = Callable[[bytes], StatRow | None]
KeepRows = Callable[[Sequence[StatRow]], None]


@dataclass(frozen=True, slots=True)
class Exchange:
    """Switch by exchanging the whole root. ``carry``: ignored paths, relative and without a trailing slash, that move
    along. ``keep_rows`` stores stat rows of linked files, whose ctime the link changed."""

    carry: tuple[bytes, ...] = ()
    keep_rows: KeepRows | None = None


def refused(place: Place, needed: str, found: str) -> RefusedError:
    """Why this root cannot be exchanged."""
    return RefusedError(
        f"{place.root} cannot be exchanged: it needs {needed}, and there is {found}",
        hint=f"put that right, then: instep retry {place.fileset}; or: instep fileset set {place.fileset} switch=",
        code="exchange_refused",
        needed=needed,
        found=found,
    )


class Relinked:
    """Keeps what is known of files whose ctime changes because they get or lose a name, and nothing else."""

    def __init__(self, live_row: LiveRow | None, keep: KeepRows | None) -> None:
        self._live_row = live_row if keep is not None else None
        self._keep = keep
        self._rows: list[StatRow] = []

    def known(self, path: bytes, before: os.stat_result) -> StatRow | None:
        """The row of ``path`` if it is of the file as it was before."""
        row = self._live_row(path) if self._live_row is not None and stat.S_ISREG(before.st_mode) else None
        return row if row is not None and is_same(row, before) else None

    def note(self, row: StatRow | None, after: os.stat_result) -> None:
        """``row`` holds on with the new ctime. A write between the two stats shows in the time of the contents."""
        if row is None or (row.ino, row.mtime_ns, row.size) != (
            after.st_ino,
            after.st_mtime_ns,
            after.st_size,
        ):
            return
        ctime = after.st_ctime_ns
        is_sure = is_settled(row) and abs(ctime - row.mtime_ns) > _SURELY_OLD_NS
        self._rows.append(
            row._replace(ctime_ns=ctime, read_at_ns=ctime + RACY_NS if is_sure else row.read_at_ns)
        )
        if len(self._rows) >= ROWS_BATCH:
            self.flush()

    def flush(self) -> None:
        if self._rows and self._keep is not None:
            self._keep(self._rows)
        self._rows = []


def build_next(
    place: Place, live: Root, staged: Root, rules: Rules, exchange: Exchange, live_row: LiveRow | None
) -> list[Step]:
    """Make ``next`` in the stage; the steps that carry paths over at the swap.

    ``RefusedError`` ``exchange_refused`` for objects that can be neither linked nor copied, mounts, and ignored paths
    that ``carry`` does not name. ``OSError``.
    """
    os.mkdir(NEXT, 0o700, dir_fd=staged.fd)
    with RecordWriter(LINKED, staged.fd) as writer, Root(staged.path + b"/" + NEXT) as tree:
        relinked = Relinked(live_row, exchange.keep_rows)
        builder = _Builder(place, live, tree, rules, exchange.carry, writer, relinked)
        builder.run()
        writer.sync()
    failpoint(_BUILT)
    return builder.carried


@dataclass
class _Builder:
    place: Place
    live: Root
    tree: Root
    rules: Rules
    carry: Sequence[bytes]
    writer: RecordWriter
    relinked: Relinked
    carried: list[Step] = field(default_factory=list)
    uncarried: list[bytes] = field(default_factory=list)

    def run(self) -> None:
        pending = [(b"", iter(self._listed(b"")))]
        while pending:
            directory, names = pending[-1]
            found = next(names, None)
            if found is None:
                pending.pop()
                self._dress(directory)
                continue
            path, status = found
            is_dir = stat.S_ISDIR(status.st_mode)
            if path in self.carry:
                self._stand_in(path, is_dir)
            elif self._is_left_out(path, is_dir):
                continue
            elif is_dir:
                to_fd, name = self.tree.open_parent(path)
                os.mkdir(name, 0o700, dir_fd=to_fd)
                pending.append((path, iter(self._listed(path))))
            else:
                self._link(path, status)
        self.relinked.flush()
        if self.uncarried:
            carried = ", ".join(map(shown, self.carry)) or "nothing"
            named = ", ".join(map(shown, self.uncarried))
            raise refused(self.place, f"all ignored paths named in carry (it has {carried})", named)

    def _listed(self, directory: bytes) -> list[tuple[bytes, os.stat_result]]:
        try:
            return self.live.stats(directory)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return []  # gone meanwhile: the check after the switch looks at it
            if error.errno == errno.EXDEV:
                raise refused(
                    self.place, "a tree without mounts below it", f"a mount at {shown(directory)}"
                ) from error
            raise refused(
                self.place, "directories that it may read", f"{shown(directory)}: {error.strerror}"
            ) from error

    def _is_left_out(self, path: bytes, is_dir: bool) -> bool:
        if path == CONTROL_NAME or is_below(path, CONTROL_NAME):
            return False  # the marker goes along
        if not self.rules.has_patterns or not self.rules.ignored(path, is_dir):
            return False
        if len(self.uncarried) < NAMED_MAX:
            self.uncarried.append(path)
        return True

    def _link(self, path: bytes, before: os.stat_result) -> None:
        row = self.relinked.known(path, before)
        from_fd, name = self.live.open_parent(path)
        to_fd, _ = self.tree.open_parent(path)
        try:
            os.link(name, name, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)
        except FileNotFoundError:
            return  # gone meanwhile
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES, errno.EMLINK, errno.EXDEV):
                raise
            why = f"{shown(path)} of uid {before.st_uid}: {error.strerror}"
            raise refused(self.place, f"files that uid {os.geteuid()} may link", why) from error
        after = os.stat(name, dir_fd=to_fd, follow_symlinks=False)
        self.writer.add(encode_record(LinkedRecord(path, after.st_ino)))
        self.relinked.note(row, after)
        failpoint(_LINKED_ONE)

    def _stand_in(self, path: bytes, is_dir: bool) -> None:
        """Something empty where a carried path goes, so that the exchange of the two never leaves a name missing."""
        if not self.rules.ignored(path, is_dir):
            raise refused(self.place, "only ignored paths in carry", f"{shown(path)}, which is not ignored")
        to_fd, name = self.tree.open_parent(path)
        if is_dir:
            os.mkdir(name, 0o700, dir_fd=to_fd)
            self._dress(path)
        else:
            os.close(os.open(name, CREATE, 0o600, dir_fd=to_fd))
        ino = self.tree.stat(path).st_ino
        self.writer.add(encode_record(LinkedRecord(path, ino, True)))
        self.carried.append(Step(Op.CARRY, path, ino=ino))

    def _dress(self, directory: bytes) -> None:
        """Owner, attributes, mode and times as the live directory has them."""
        try:
            fd = self.live.open_dir(directory)
        except OSError as error:
            if error.errno in NOT_BENEATH:
                return  # gone meanwhile
            raise
        with closing_fd(fd), closing_fd(self.tree.open_dir(directory)) as to:
            self._copy_metadata(directory, fd, to)

    def _copy_metadata(self, directory: bytes, fd: int, to: int) -> None:
        wanted, made = os.fstat(fd), os.fstat(to)
        what = shown(directory) if directory else "the root"
        try:
            if (wanted.st_uid, wanted.st_gid) != (made.st_uid, made.st_gid):
                os.fchown(to, wanted.st_uid, wanted.st_gid)
            ours, theirs = _attributes(to), _attributes(fd)
            for name in ours.keys() - theirs.keys():
                os.removexattr(to, name)
            for name, value in theirs.items():
                if ours.get(name) != value:
                    os.setxattr(to, name, value)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOTSUP):
                raise
            needed = f"directories whose owner and attributes uid {os.geteuid()} may set"
            found = f"{what} of uid {wanted.st_uid}, gid {wanted.st_gid}: {error.strerror}"
            raise refused(self.place, needed, found) from error
        os.fchmod(to, stat.S_IMODE(wanted.st_mode))
        os.utime(to, ns=(wanted.st_atime_ns, wanted.st_mtime_ns))


def _attributes(fd: int) -> dict[str, bytes]:
    with Tolerated(errno.ENOTSUP, errno.ENODATA):
        return {name: os.getxattr(fd, name) for name in sorted(os.listxattr(fd))}
    return {}


def sync_tree(tree: Root) -> None:
    """Make all names below ``tree`` durable; the named objects were synced before they were staged, or are live."""
    directories = [found.path for found in walk_below(tree, b"") if stat.S_ISDIR(found.stat.st_mode)]
    with closing_fd(tree.open_dir(b"")) as fd:
        if len(directories) > SYNC_SINGLY_MAX:
            syncfs(fd)
            return
        try:
            for directory in reversed(directories):
                with closing_fd(tree.open_dir(directory)) as below:
                    os.fsync(below)
        except PermissionError:  # a mode that we may not open, without being root
            syncfs(fd)
            return
        os.fsync(fd)


def holding_next(folder: bytes, names: Sequence[bytes]) -> list[bytes]:
    """The stages or batches of these names in which a next tree lies."""
    return [name for name in names if os.path.lexists(folder + b"/" + name + b"/" + NEXT)]


@on_opened
def take_apart(place: Place, stage: bytes, relinked: Relinked | None = None) -> None:
    """Undo what was prepared in a stage: staged objects return to their slots, links and copies go. Harmless again.

    With ``relinked`` the stat rows of live files hold on, though they lose a name.
    """
    path = os.fsencode(place.stage) + b"/" + stage
    if not os.path.lexists(path + b"/" + NEXT):
        return
    journal: Journal | None = None
    with contextlib.suppress(DamagedError):  # one that a crash tore: the steps had not begun
        journal = Journal.load(place, b"stage/" + stage + b"/journal")
    with Root(path) as tree:
        if journal is not None:
            with contextlib.suppress(FileExistsError):  # a power cut may have taken it
                os.mkdir(b"o", 0o700, dir_fd=tree.fd)
            for step in journal.steps():
                _return_object(tree, step)
        if relinked is not None:
            _unlink_noting(place, tree, relinked)
        for name in (PREPARED, NEXT, LINKED):
            remove_object(tree.fd, name)


def _unlink_noting(place: Place, tree: Root, relinked: Relinked) -> None:
    with open_marked(place.root, place.fileset) as live:
        for found in walk_below(tree, NEXT):
            path = found.path[len(NEXT) + 1 :]
            row = relinked.known(path, found.stat)
            if row is not None:
                parent, name = tree.open_parent(found.path)
                os.unlink(name, dir_fd=parent)
                if (after := live.stat_or_none(path)) is not None:
                    relinked.note(row, after)
    relinked.flush()


def _return_object(tree: Root, step: Step) -> None:
    if not step.key:
        return
    slot = b"o/" + step.key
    if step.op in (Op.NEW, Op.CHANGE):
        there, moved = tree.stat_or_none(slot), tree.stat_or_none(NEXT + b"/" + step.path)
        if there is not None and there.st_ino == step.ino:
            return
        remove_object(*tree.open_parent(slot))
        if moved is not None and moved.st_ino == step.ino:
            from_fd, name = tree.open_parent(NEXT + b"/" + step.path)
            with contextlib.suppress(PermissionError):  # a directory without a write bit: it is fetched again
                os.rename(name, step.key, src_dir_fd=from_fd, dst_dir_fd=tree.open_parent(slot)[0])
    elif step.op in (Op.REMOVE, Op.MOVE):
        remove_object(*tree.open_parent(slot))
