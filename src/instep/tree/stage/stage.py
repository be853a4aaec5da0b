"""Stage a generation beside the live tree: everything laid, verified and durable before anything moves.

Implements sections 1, 3 and 4 of ``docs/spec/journal.md``. All calls are synchronous and come from one thread at
a time. Memory does not grow with the trees: the plan is streamed and its leftovers lie in files of the stage.

It is one long file, for the class is one state: planner, answers and seal read the same open root, stage and leftovers,
and a part of its own would only be handed all of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import msgspec

from instep.errors import ContentionError
from instep.model.definition import Definition, Preserve
from instep.model.ids import Digest, HeadRef
from instep.model.manifest.entry import CHUNKED_OVER, Entry, Kind, same_but_for_times_of_directories
from instep.model.manifest.manifest import Change, GetPage, diff
from instep.model.manifest.walk import Reader, entries_below
from instep.model.paths import shown
from instep.model.statrow import StatRow
from instep.tree.journal.journal import (
    Compare,
    EndRecord,
    Header,
    Journal,
    Op,
    RowRecord,
    Step,
    Why,
    encode_record,
)
from instep.tree.journal.plan import Moves, PlannedSteps, find_moves, plan
from instep.tree.objects.digest import digest_bytes
from instep.tree.objects.fidelity import Local, expected_local
from instep.tree.objects.inode import SETID
from instep.tree.objects.large import LargeFile, Recut, copy_whole, digest_of_fd, mismatch
from instep.tree.objects.laying import (
    Layer,
    attribute_slot,
    remove_object,
    row_of,
    staged_attribute,
    sync_directory,
    without_large,
)
from instep.tree.objects.rows import is_same
from instep.tree.root.beneath import NOT_BENEATH, Root
from instep.tree.root.control_folder import opened as opened_place
from instep.tree.root.descriptors import Tolerated, closing_fd
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.kernel import ignores_modes
from instep.tree.root.marker import open_marked
from instep.tree.root.place import Place
from instep.tree.root.records import RecordWriter, read_whole
from instep.tree.scan.rules import Rules, is_in_lost_and_found
from instep.tree.scan.subtree import is_like, kind_of, subtree_differences, walk_below
from instep.tree.stage.exchange_check import refuse_obstacles
from instep.tree.stage.live_files import LiveFiles
from instep.tree.stage.next_tree import NEXT, Exchange, build_next
from instep.tree.stage.package_order import in_package_order
from instep.tree.stage.shortage import METADATA, shortage_named
from instep.tree.stage.stages import open_stage, staged_slot

_LAID = register("stage.laid")
_LARGE_LAID = register("stage.large_laid")
_SEALING = register("stage.sealing")
_DIRECTORIES_SEALED = register("stage.directories_sealed")
_JOURNAL_WRITTEN = register("stage.journal_written")
_SEALED = register("stage.sealed")

IN_PLACE_OVER = 64 << 10
"""A file larger than this, of which only mode or time changes, is changed in place; smaller ones are exchanged."""

FEW_CHANGES = 1_000
SMALL_MAX = CHUNKED_OVER
_WRITE_LARGE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

Source = Callable[[Entry], int | None]
"""A descriptor (owned by the caller) that may hold the entry's content, or None. Nothing it gives is trusted."""

LiveRow = Callable[[bytes], StatRow | None]
"""The stat row that the node recorded for a live path."""


@dataclass(frozen=True, slots=True)
class Want:
    """Contents that must come from outside: those of ``entry`` (``which`` 0), or its ``which``-th large attribute.

    A request names them by ``page`` and ``index``. Answer with ``Stage.lay``, or ``Stage.large`` when ``is_large``.
    """

    page: Digest
    index: int
    entry: Entry
    which: int
    slot: bytes

    @property
    def is_large(self) -> bool:
        return self.which == 0 and self.entry.kind is Kind.FILE and self.entry.size > SMALL_MAX

    @property
    def size_bytes(self) -> int:
        return self.entry.size if self.which == 0 else self._attribute[2]

    @property
    def digest(self) -> Digest:
        return self.entry.digest if self.which == 0 else self._attribute[1]

    @property
    def _attribute(self) -> tuple[bytes, Digest, int]:
        assert self.entry.extra is not None
        return self.entry.extra.large_xattrs[self.which - 1]


class Stage:
    """One target being staged. ``open``, then ``wants`` and ``lay`` until nothing is wanted, then ``seal``."""

    def __init__(
        self,
        place: Place,
        target: HeadRef,
        live_root: Digest | None,
        get_page: GetPage,
        definition: Definition,
        *,
        previous: HeadRef | None = None,
        local: Local | None = None,
        live_row: LiveRow | None = None,
        sources: Sequence[Source] = (),
        recut: Recut | None = None,
        why: Why | None = None,
        exchange: Exchange | None = None,
        compare: Compare = Compare.NOTHING,
        union: bytes = b"",
    ) -> None:
        """Begin to stage ``target``, or go on where an earlier attempt stopped: its objects are hashed again.
        ``live_root`` is the root of the present tree (None: unknown, all of it goes to the archive or is reused);
        ``previous`` names its generation; ``local`` is the metadata that this node keeps and may set. ``why`` is the
        reason of displaced objects in the archive where that is known (``DRIFT`` for a revert). With ``exchange`` the
        seal builds the next tree. Errors: ``RefusedError`` of the marker, ``ContentionError`` ``recovery_due``,
        ``PeerError`` ``bad_tree``, ``ResourceError``.
        """
        open_marked(place.root, place.fileset).close()
        journal = Journal.load(place)
        if journal is not None and not journal.is_switched:
            raise ContentionError(
                f"a switch of {place.fileset} was interrupted and must be recovered first",
                code="recovery_due",
            )
        self.place: Place
        self.target = target
        self.live_root = live_root
        self.local = local or Local(frozenset(definition.preserve))
        self._get_page = get_page
        self._targets = Reader(get_page)
        known = (place.fileset, target, previous, live_root or Digest(b""), definition.encoded())
        self._header = Header(1, *known, "", 0, why, 0, 0, compare, union)
        self._live_row = live_row
        self._sources = sources
        self._recut = recut
        self._exchange = exchange
        self._definition, self._rules = definition, Rules(definition)
        self._unanswered: dict[bytes, Want] = {}
        self._late: list[tuple[bytes, Entry]] = []
        self._is_planned = False
        self._has_links = False
        with shortage_named(place, "staged"), contextlib.ExitStack() as opened:
            self._open(opened, place)

    def _open(self, opened: contextlib.ExitStack, place: Place) -> None:
        self.place = place = opened.enter_context(opened_place(place))
        self._root = self._steps_on = opened.enter_context(open_marked(place.root, place.fileset))
        self._live = LiveFiles(self._root)
        at, self.is_resumed = open_stage(place, self._header, self._get_page)
        self.path = place.by_name(at)
        self._layer = Layer(at, self.local, self._attribute)
        opened.callback(self._layer.close)
        self._tree = self._layer.tree
        self._steps, self._dirs, self._links, self._rows = (
            opened.enter_context(RecordWriter(name, self._tree.fd))
            for name in (b"steps", b"dirs", b"links", b"rows")
        )
        self._few = list(islice(diff(self.live_root, self.target.root, self._get_page), FEW_CHANGES))
        self.moves = self._moves()
        self._has_hints = bool(self.moves.hints)
        self._plan = plan(self._changes(), self, self.moves, takes_over=self.live_root is None)
        self._opened = opened.pop_all()

    # --- what the planner asks -----------------------------------------------------------------------------

    def children(self, path: bytes) -> list[bytes] | None:
        if self._header.compare is not Compare.NOTHING:
            return None  # a directory that came meanwhile is not merged: its step finds it
        with Tolerated(*NOT_BENEATH):
            return self._root.names(path)
        return None

    def is_ignored(self, path: bytes, is_dir: bool) -> bool:
        return self._rules.ignored(path, is_dir) or is_in_lost_and_found(self._root, path)

    def is_same(self, old: Entry, new: Entry) -> bool:
        """``old`` of a revert is how it lies here: a look found that it is not the local form of ``new``."""
        here = expected_local(old, self.local), expected_local(new, self.local)
        return self._header.why is not Why.DRIFT and same_but_for_times_of_directories(*here)

    def target_directory(self, path: bytes) -> Entry | None:
        entry = self._targets.lookup(self.target.root, path)
        return entry if entry is not None and entry.kind is Kind.DIR else None

    # --- moves ------------------------------------------------------------------------------------------------

    def _moves(self) -> Moves:
        if self.live_root is None:
            return Moves()
        moves = find_moves(self._changes())
        for path, source in list(moves.directories.items()):
            if self.children(path) is not None or not self._is_clean(source, path):
                del moves.directories[path]
        return moves

    def _changes(self) -> Iterator[Change]:
        """The difference, which is walked twice: few changes are kept meanwhile, many are found again."""
        few = self._few
        return iter(few) if len(few) < FEW_CHANGES else diff(self.live_root, self.target.root, self._get_page)

    def _is_clean(self, source: bytes, path: bytes) -> bool:
        """Whether the live directory holds exactly what the base says, by stat; its rows are kept for ``path``."""
        assert self.live_root is not None
        rows: list[RowRecord] = []
        if self.children(source) is None:
            return False
        entries = entries_below(self.live_root, source, self._get_page)
        for rest, found, entry in subtree_differences(
            walk_below(self._root, source), source, entries, source
        ):
            if found is None or entry is None or not is_like(found.stat, entry, self.local):
                return False
            if entry.kind is not Kind.FILE:
                continue
            row = self._live_row(found.path) if self._live_row is not None else None
            is_known = row is not None and is_same(row, found.stat) and row.digest == entry.digest
            if not is_known and not self._live.has(found.path, entry):
                return False
            rows.append(row_of(path + b"/" + rest, entry, found.stat, is_staged=False))
            if len(rows) > 4096:
                self._add_rows(rows)
        self._add_rows(rows)
        return True

    def _add_rows(self, rows: list[RowRecord]) -> None:
        for row in rows:
            self._rows.add(encode_record(row))
        rows.clear()

    # --- staging ------------------------------------------------------------------------------------------------

    def wants(self, limit_entries: int = 2000, limit_bytes: int = 8 << 20) -> list[Want]:
        """The next batch that must come from outside; contents that are here already were laid meanwhile. Empty:
        complete. The limits are reached, not kept: the last of a batch may be large."""
        batch: list[Want] = []
        size = 0
        while len(batch) < limit_entries and size < limit_bytes:
            with shortage_named(self.place, "compared"):
                planned = next(self._plan, None)
            if planned is None:
                self._is_planned = True
                break
            with shortage_named(self.place, "staged", planned.path):
                for want in self._prepare(planned):
                    self._unanswered[want.slot] = want
                    batch.append(want)
                    size += want.size_bytes
        return batch

    def unanswered(self) -> list[Want]:
        """Wants that were handed out and not laid yet, to ask for again elsewhere."""
        return list(self._unanswered.values())

    def _prepare(self, planned: PlannedSteps) -> Iterator[Want]:
        step, entry = planned.step, planned.entry
        if entry is None:
            assert step is not None
            self._steps.add(encode_record(step))
            if step.op is Op.META and step.new is not None:
                yield from self._attribute_wants(step.new, planned)
            return
        if step is not None and planned.old is not None and self._changes_in_place(planned.old, entry):
            self._steps.add(encode_record(msgspec.structs.replace(step, op=Op.META)))
            return
        if step is not None:
            self._steps.add(encode_record(step))
        if entry.kind is Kind.DIR:
            self._layer.directory(planned.slot)
            self._dirs.add(msgspec.msgpack.encode((planned.slot, entry)))
            yield from self._attribute_wants(entry, planned)
            return
        attributes = list(self._attribute_wants(entry, planned))
        yield from attributes
        if self._is_link(entry):
            self._has_links = True
            self._links.add(msgspec.msgpack.encode((planned.slot, entry)))
            return
        if attributes:
            self._late.append((planned.slot, entry))
            entry = without_large(entry)
        if not self._have(planned, entry):
            yield Want(planned.page, planned.index, entry, 0, planned.slot)

    def _attribute_wants(self, entry: Entry, planned: PlannedSteps) -> Iterator[Want]:
        if entry.extra is None or not entry.extra.large_xattrs:
            return
        for which, (name, digest, _) in enumerate(entry.extra.large_xattrs, 1):
            slot = attribute_slot(digest)
            if not self.local.carries(name) or slot in self._unanswered:
                continue
            if self._tree.stat_or_none(slot) is not None:
                if digest_bytes(self._attribute(digest)) == digest:
                    continue
                remove_object(*self._tree.open_parent(slot))
            yield Want(planned.page, planned.index, entry, which, slot)

    def _is_link(self, entry: Entry) -> bool:
        extra = entry.extra
        if extra is None or extra.link_group is None or extra.link_group == entry.path:
            return False
        return self.local.keeps(Preserve.HARDLINKS)

    def _changes_in_place(self, old: Entry, new: Entry) -> bool:
        if new.kind is not Kind.FILE or old.kind is not Kind.FILE or new.size <= IN_PLACE_OVER:
            return False
        if (old.digest, old.size, old.extra) != (new.digest, new.size, new.extra) or self._live_row is None:
            return False
        # The next tree of an exchange has a link of it; and a file that a program may hold open never gets set-id bits.
        if self._exchange is not None or new.mode & SETID:
            return False
        row, found = self._live_row(new.path), self._root.stat_or_none(new.path)
        if row is None or found is None or found.st_nlink != 1:
            return False
        return is_same(row, found) and row.digest == old.digest

    def _have(self, planned: PlannedSteps, entry: Entry) -> bool:
        """Whether the content lies at its slot now, from an earlier attempt or from this machine."""
        slot = planned.slot
        if self.is_resumed:
            found = self._layer.holds(slot, entry)
            if found is not None:
                self._keep_row(slot, entry, found)
                return True
            if entry.size <= SMALL_MAX or entry.kind is not Kind.FILE or not self._is_partial(slot):
                remove_object(*self._tree.open_parent(slot))
        for fd in self._candidates(planned, entry):
            with closing_fd(fd):
                if self._copy(fd, slot, entry):
                    return True
        return False

    def _is_partial(self, slot: bytes) -> bool:
        found = self._tree.stat_or_none(slot)
        return found is not None and kind_of(found) == 0 and found.st_nlink == 1

    def _candidates(self, planned: PlannedSteps, entry: Entry) -> Iterator[int]:
        if entry.kind is Kind.FILE:
            old = planned.old
            paths = []
            if (old is not None and old.digest == entry.digest) or self.live_root is None:
                paths.append(entry.path)
            if self._has_hints and (hint := self.moves.hints.get(entry.digest)) is not None:
                paths.append(hint)
            for path in paths:
                fd = self._live.opened(path, entry.size)
                if fd is not None:
                    yield fd
        for source in self._sources:
            fd = source(entry)
            if fd is not None:
                yield fd

    def _copy(self, fd: int, slot: bytes, entry: Entry) -> bool:
        """Lay a copy of what ``fd`` holds, if it is the entry's content; hashed on this side of the copy (P1)."""
        if entry.kind is Kind.SYMLINK or entry.size <= SMALL_MAX:
            data = os.pread(fd, entry.size + 1, 0)
            if len(data) != entry.size or digest_bytes(data) != entry.digest:
                return False
            self._lay_content(slot, entry, data)
            return True
        if os.fstat(fd).st_size != entry.size:
            return False
        remove_object(*self._tree.open_parent(slot))
        with closing_fd(self._tree.open(slot, _WRITE_LARGE, 0o600)) as to:
            copy_whole(fd, to, entry.size, is_sparse=self._layer.is_sparse(entry))
            if digest_of_fd(to) == entry.digest:
                self._large_done(slot, entry, to)
                return True
        remove_object(*self._tree.open_parent(slot))
        return False

    def lay(self, want: Want, data: bytes | memoryview) -> None:
        """Lay what came for a small want; ``DamagedError`` ``content_mismatch`` when it is something else (P1)."""
        assert not want.is_large, "a large file is laid through large()"
        with shortage_named(self.place, "staged", want.entry.path):
            if want.which:
                self._lay_attribute(want, data)
            else:
                self._lay_content(want.slot, want.entry, data)
        del self._unanswered[want.slot]

    def lay_many(self, wants: Sequence[Want], data: Sequence[bytes | memoryview]) -> None:
        """``lay`` for a batch, in order; stops at the first that is wrong, with those before it laid."""
        for want, piece in zip(wants, data, strict=True):
            self.lay(want, piece)

    def _lay_content(self, slot: bytes, entry: Entry, data: bytes | memoryview) -> None:
        if entry.kind is Kind.SYMLINK:
            self._layer.symlink(slot, entry, data)
        else:
            found = self._layer.small(slot, entry, data)
            self._keep_row(slot, entry, found)
        failpoint(_LAID)

    def _keep_row(self, slot: bytes, entry: Entry, found: os.stat_result) -> None:
        # A topmost file gets another ctime by its rename, so its row is taken after the switch.
        if entry.kind is Kind.FILE and slot.count(b"/") > 1:
            self._rows.add(encode_record(row_of(entry.path, entry, found, is_staged=True)))

    def _lay_attribute(self, want: Want, data: bytes | memoryview) -> None:
        if len(data) != want.size_bytes or digest_bytes(data) != want.digest:
            raise mismatch(want.entry)
        with closing_fd(self._tree.open(want.slot, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)) as fd:
            os.write(fd, data)
        self._layer.unsynced(want.slot)

    def _attribute(self, digest: Digest) -> bytes:
        return staged_attribute(self._tree, digest)

    def large(self, want: Want) -> LargeFile:
        """The large file of a want, with the old version of its path as a source of chunks."""
        assert want.is_large
        slot, entry = want.slot, want.entry
        named = partial(shortage_named, self.place, "staged", entry.path)
        with named():
            is_partial = self._is_partial(slot)
            fd = self._tree.open(slot, _WRITE_LARGE, 0o600)

        def done(fd: int) -> None:
            self._large_done(slot, entry, fd)
            self._unanswered.pop(slot, None)

        return LargeFile(
            fd,
            entry,
            done,
            old_fd=self._live.opened(entry.path, None),
            old_row=self._live_row(entry.path) if self._live_row is not None else None,
            recut=self._recut,
            is_sparse=self._layer.is_sparse(entry),
            is_resumed=is_partial,
            named=named,
        )

    def _large_done(self, slot: bytes, entry: Entry, fd: int) -> None:
        self._layer.metadata(slot, entry, fd)
        self._layer.unsynced(slot)
        self._keep_row(slot, entry, os.fstat(fd))
        failpoint(_LARGE_LAID)

    # --- sealing ------------------------------------------------------------------------------------------------

    @property
    def is_complete(self) -> bool:
        """Whether the plan was read to its end and every want was answered."""
        return self._is_planned and not self._unanswered

    def seal(self, now_ns: int) -> Journal:
        """Links, metadata of directories, journal, sync: afterwards the generation is staged. The journal that
        ``switch`` takes. ``now_ns`` is the wall clock."""
        assert self.is_complete, "seal needs everything that was wanted"
        failpoint(_SEALING)
        with shortage_named(self.place, "staged"):
            for slot, entry in self._late:
                self._dress(slot, entry)
            self._seal_links()
            closing = self._seal_directories()
            failpoint(_DIRECTORIES_SEALED)
            self._write_journal(now_ns, [*closing, *self._build_next()])
            failpoint(_JOURNAL_WRITTEN)
            self._layer.sync()
            sync_directory(self.place.stage)
        failpoint(_SEALED)
        name = b"stage/" + self.path.rpartition(b"/")[2] + b"/journal"
        journal = Journal.load(self.place, name)
        assert journal is not None
        self.close()
        return journal

    def _build_next(self) -> list[Step]:
        """The next tree of an exchange, in which the steps are then done; from here on its inodes count."""
        if self._exchange is None:
            return []
        refuse_obstacles(self.place)
        steps = build_next(self.place, self._root, self._tree, self._rules, self._exchange, self._live_row)
        self._steps_on = Root(self._tree.path + b"/" + NEXT)
        self._opened.callback(self._steps_on.close)
        return steps

    def _seal_links(self) -> None:
        self._links.close()
        if self._has_links:
            for slot, entry in self._kept(b"links"):
                with shortage_named(self.place, "linked", entry.path):
                    self._link(slot, entry)

    def _link(self, slot: bytes, entry: Entry) -> None:
        assert entry.extra is not None
        assert entry.extra.link_group is not None
        leader = entry.extra.link_group
        dir_fd, name = self._tree.open_parent(slot)
        remove_object(dir_fd, name)
        staged = staged_slot(self._tree, leader)
        if staged is not None:
            from_fd, from_name = self._tree.open_parent(staged)
        else:
            path = self.moves.live_path(leader) or leader
            found = self._root.stat_or_none(path)
            if found is None or not is_like(found, entry, self.local) or not self._live.has(path, entry):
                raise ContentionError(
                    f"{shown(path)} should be a hard link of {shown(entry.path)}, but was changed here",
                    hint="the change is archived and put back by the next drift scan, then this goes on",
                    code="link_source_drifted",
                    path=shown(path),
                )
            from_fd, from_name = self._root.open_parent(path)
        os.link(from_name, name, src_dir_fd=from_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
        self._keep_row(slot, entry, self._tree.stat(slot))
        self._layer.unsynced(slot)

    def _seal_directories(self) -> list[Step]:
        """Modes and times of staged directories; steps for those whose mode must wait until they were renamed."""
        self._dirs.close()
        closing: list[Step] = []
        closed: list[tuple[bytes, Entry]] = []
        is_free = ignores_modes()
        for slot, entry in self._kept(b"dirs"):
            if is_free or entry.mode & 0o300 == 0o300:
                self._dress(slot, entry)
            elif slot.count(b"/") == 1:
                # Renaming a directory elsewhere writes its "..", which needs its write bit.
                self._dress(slot, msgspec.structs.replace(entry, mode=entry.mode | 0o300))
                closing.append(Step(Op.META, entry.path, new=entry))
                closing.append(Step(Op.TIME, entry.path, mtime_ns=entry.mtime_ns))
            else:
                closed.append((slot, entry))
        for slot, entry in reversed(closed):
            self._dress(slot, entry)
        return closing

    def _dress(self, slot: bytes, entry: Entry) -> None:
        with shortage_named(self.place, METADATA, entry.path):
            self._layer.metadata(slot, entry, None)

    def _write_journal(self, now_ns: int, closing: list[Step]) -> None:
        self._steps.close()
        self._rows.close()
        batch = f"{now_ns // 1_000_000:014d}-{self.target.number}-{self.target.id.hex()[:8]}"
        next_ino, root_ino = self._exchanged()
        header = msgspec.structs.replace(
            self._header, batch=batch, sealed_at_ns=now_ns, next_ino=next_ino, root_ino=root_ino
        )
        with RecordWriter(b"journal", self._tree.fd) as writer:
            writer.add(encode_record(header))
            count = 0
            keys: set[bytes] = set()
            for step in self._numbered(closing):
                writer.add(encode_record(step))
                count += 1
                if self.is_resumed and step.op in (Op.NEW, Op.CHANGE):  # nothing was displaced yet
                    keys.add(step.key)
            writer.add(encode_record(EndRecord(count)))
            if self.is_resumed:
                self._purge(keys)
            writer.sync()

    def _exchanged(self) -> tuple[int, int]:
        """Inodes of the next tree and of the root; zeros where the switch is in place."""
        next_fd, root_fd = self._steps_on.fd, self._root.fd
        return (0, 0) if next_fd == root_fd else (os.fstat(next_fd).st_ino, os.fstat(root_fd).st_ino)

    def _numbered(self, closing: list[Step]) -> Iterator[Step]:
        """The steps with the inodes of both sides."""
        steps = in_package_order(lambda: self._read(b"steps"), self._definition)
        yield from map(self._with_inodes, steps)
        yield from closing

    def _with_inodes(self, step: Step) -> Step:
        if step.op in (Op.TIME, Op.CARRY):
            return step
        if step.op in (Op.NEW, Op.CHANGE):
            ino = self._tree.stat(b"o/" + step.key).st_ino
            old_ino = 0 if step.op is Op.NEW else self._live_ino(step.path)
            return msgspec.structs.replace(step, ino=ino, old_ino=old_ino)
        if step.op is Op.REMOVE:
            return msgspec.structs.replace(step, old_ino=self._live_ino(step.path))
        return msgspec.structs.replace(step, ino=self._live_ino(step.source or step.path))

    def _live_ino(self, path: bytes) -> int:
        found = self._steps_on.stat_or_none(path)
        return 0 if found is None else found.st_ino

    def _purge(self, keys: set[bytes]) -> None:
        """Remove what an earlier attempt staged and this one has no step for."""
        with closing_fd(self._tree.open_dir(b"o")) as dir_fd:
            for name in self._tree.names(b"o"):
                if name not in keys:
                    remove_object(dir_fd, name)

    def _kept(self, name: bytes) -> Iterator[tuple[bytes, Entry]]:
        return (msgspec.msgpack.decode(each, type=tuple[bytes, Entry]) for each in self._read(name))

    def _read(self, name: bytes) -> Iterator[bytes]:
        with closing_fd(self._tree.open(name, os.O_RDONLY)) as fd:
            yield from read_whole(fd)

    def close(self) -> None:
        """Close all descriptors; staged objects stay for the next attempt."""
        self._opened.close()
