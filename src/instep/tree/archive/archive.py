"""The archive: objects that applies replaced, removed or found drifted, one batch a switch. Promise P5.

A batch is the stage after its switch: the displaced objects lie in ``o/`` under the keys of their paths, and
``index`` describes them. Batches are removed only whole and only by ``prune``.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import msgspec

from instep.core.retention import Batch, Version
from instep.errors import UsageError
from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.manifest import GetPage, PageMissing
from instep.model.manifest.walk import entries_below
from instep.model.paths import is_below, shown
from instep.tree.archive.index import object_slots, read_index, stream_index, summed_up, write_index
from instep.tree.archive.lookup import ArchiveLookup, batch_names
from instep.tree.archive.moved import laid_files, may_be_moved
from instep.tree.archive.outlet import MakeObject, copy_object, copy_opened, open_outlet, put_out
from instep.tree.archive.source import ArchiveSource, opened_batch
from instep.tree.journal.journal import ItemRecord, Journal, Op, Step, Why
from instep.tree.journal.renames import displaced_names, inode_at
from instep.tree.objects.fidelity import Local
from instep.tree.objects.inode import SETID
from instep.tree.objects.large import digest_of_fd
from instep.tree.objects.laying import remove_object, sync_directory
from instep.tree.root.beneath import Root
from instep.tree.root.control_folder import on_opened, opened
from instep.tree.root.descriptors import LIST, READ, closing_fd
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.place import Place
from instep.tree.root.records import named_damage
from instep.tree.scan.subtree import is_like, kind_of, subtree_differences, walk_below
from instep.tree.stage.next_tree import NEXT
from instep.tree.stage.stage import Source

_INDEXED = register("archive.indexed")
_RENAMED = register("archive.renamed")
_PRUNING = register("archive.pruning")

DRIFT_NAMED_MAX = 1000
_OF_GENERATIONS = frozenset({Why.REPLACED, Why.REMOVED})
_HIDDEN = b".pruned-"


@dataclass(frozen=True, slots=True)
class Item:
    """One archived object, or a drifted path inside one. ``generation`` is the number of the generation that it
    belonged to (0: none known); ``entries`` counts what lies in a directory, itself included."""

    batch: str
    path: bytes
    why: Why
    generation: int
    at_ms: int
    size_bytes: int
    digest: Digest
    kind: int
    entries: int
    object: bytes

    @classmethod
    def of(cls, batch: str, record: ItemRecord) -> Item:
        return cls(batch, **{**msgspec.structs.asdict(record), "digest": Digest(record.digest)})


# --- closing a batch -------------------------------------------------------------------------------------------


@on_opened
def close_batch(
    place: Place,
    journal: Journal,
    stage: bytes,
    *,
    local: Local,
    get_page: GetPage | None,
    at_ms: int,
    drifted: list[bytes],
) -> None:
    """Examine what the steps displaced, write the index, and turn the stage into the batch, durably.

    ``drifted`` gets the paths whose displaced object is not what the base said.
    """
    with Root(stage) as staged:
        write_index(staged.fd, _naming(drifted, _examined(staged, journal, local, get_page, at_ms)), at_ms)
    sync_directory(stage)
    failpoint(_INDEXED)
    archive = os.fsencode(place.archive)
    is_first = not os.path.lexists(archive)
    os.makedirs(archive, 0o700, exist_ok=True)
    if is_first:
        sync_directory(place.archive.parent)
    os.rename(stage, archive + b"/" + journal.header.batch.encode())
    failpoint(_RENAMED)
    sync_directory(archive)
    sync_directory(place.stage)


def _naming(drifted: list[bytes], items: Iterable[ItemRecord]) -> Iterator[ItemRecord]:
    for item in items:
        if item.why is Why.DRIFT and item.path not in drifted and len(drifted) < DRIFT_NAMED_MAX:
            drifted.append(item.path)
        yield item


def _examined(
    staged: Root, journal: Journal, local: Local, get_page: GetPage | None, at_ms: int
) -> Iterator[ItemRecord]:
    laid = laid_files(staged, journal)
    olds = {name for name in map(os.fsencode, os.listdir(staged.path + b"/o")) if b".old" in name}
    for step in journal.steps():
        if not step.key:
            continue
        inodes = {step.ino}
        for name in (step.key, *(slot for slot in displaced_names(step.key) if slot in olds)):
            found = staged.stat_or_none(b"o/" + name)
            if found is not None and found.st_ino not in inodes:
                inodes.add(found.st_ino)
                for item in _items(staged, journal, step, name, found, local, get_page, at_ms):
                    is_moved = item.why in _OF_GENERATIONS and item.kind == 0 and may_be_moved(step, laid)
                    yield msgspec.structs.replace(item, why=Why.MOVED) if is_moved else item


def _items(
    staged: Root,
    journal: Journal,
    step: Step,
    name: bytes,
    found: os.stat_result,
    local: Local,
    get_page: GetPage | None,
    at_ms: int,
) -> Iterator[ItemRecord]:
    header = journal.header
    why = _why(journal, step, found, local)
    generation = header.previous.number if header.previous is not None else 0
    digest = step.old.digest if step.old is not None and why is not Why.DRIFT else b""
    kind = kind_of(found)
    size, entries = found.st_size, 1
    inner: list[ItemRecord] = []
    if kind == 1:
        size = 0
        for rest, below, drift in _inside(staged, b"o/" + name, step, header.base_root, local, get_page):
            size += below.st_size if stat.S_ISREG(below.st_mode) else 0
            entries += 1
            if drift and len(inner) < DRIFT_NAMED_MAX:
                where = step.path + b"/" + rest, name + b"/" + rest
                inner.append(
                    ItemRecord(*where, Why.DRIFT, generation, at_ms, below.st_size, b"", kind_of(below))
                )
    yield ItemRecord(step.path, name, why, generation, at_ms, size, digest, kind, entries)
    yield from inner


def _why(journal: Journal, step: Step, found: os.stat_result, local: Local) -> Why:
    if journal.header.why is not None:
        return journal.header.why
    usual = Why.REMOVED if step.op is Op.REMOVE else Why.REPLACED
    if step.old is None:
        return Why.DRIFT if journal.header.base_root else usual
    if is_like(found, step.old, local) or _is_opened(found, step.old):
        return usual
    return Why.DRIFT


def _is_opened(found: os.stat_result, old: Entry) -> bool:
    """A directory whose write bit the switch itself set, to be able to move it."""
    return (
        stat.S_ISDIR(found.st_mode)
        and old.kind is Kind.DIR
        and stat.S_IMODE(found.st_mode) in (old.mode | 0o200, old.mode & ~SETID | 0o200)
    )


def _inside(
    staged: Root, slot: bytes, step: Step, base_root: Digest, local: Local, get_page: GetPage | None
) -> Iterator[tuple[bytes, os.stat_result, bool]]:
    """``(relative path, stat, whether it drifted)`` of all in a displaced directory."""
    known: Iterator[Entry] = iter(())
    is_known = False
    if get_page is not None and base_root and step.old is not None:
        try:
            next(entries_below(base_root, step.path, get_page), None)
            known, is_known = entries_below(base_root, step.path, get_page), True
        except (
            PageMissing
        ):  # the base's pages went meanwhile: everything is archived, only drift is not named
            is_known = False
    for rest, found, entry in subtree_differences(walk_below(staged, slot), slot, known, step.path):
        if found is not None:
            yield rest, found.stat, is_known and (entry is None or not is_like(found.stat, entry, local))


# --- reading ---------------------------------------------------------------------------------------------------

SET_ASIDE = frozenset({Why.DRIFT, Why.LOST})
"""Local changes that lost against a generation."""


class Archive:
    """The batches of one place."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def batches(self) -> list[Batch]:
        """All, oldest first. A batch of a switch that is not recorded yet is among them."""
        return [summed_up(name, self._index(name)) for name in batch_names(self.place)]

    def _index(self, name: bytes) -> Iterator[ItemRecord]:
        with contextlib.suppress(FileNotFoundError), opened_batch(self.place, name) as batch:
            yield from stream_index(batch.fd, named_damage(b"index of the archive's batch " + name))

    def list_items(self) -> Iterator[Item]:
        """All items, oldest batch first; streams."""
        for name in batch_names(self.place):
            for record in self._index(name):
                if record.path:
                    yield Item.of(name.decode(), record)

    def versions(self) -> Iterator[Version]:
        """Every object, for thinning. A directory stays: another version of it may lack what is in it. So does the last
        version of a renamed file, which is archived when the file under its new name is replaced."""
        moved: dict[bytes, bytes] = {}
        for each in self.list_items():
            moved.pop(each.path, None)
            if each.why is Why.MOVED:
                moved[each.path] = each.digest
        last = frozenset(moved.values())
        for name in batch_names(self.place):
            with contextlib.suppress(FileNotFoundError), opened_batch(self.place, name) as batch:
                index = read_index(batch.fd)
                for item in index.items:
                    stays = item.why is not Why.MOVED and (
                        item.why not in _OF_GENERATIONS or item.digest in last
                    )
                    yield Version(name.decode(), item.path, stays or index.is_damaged or item.kind == 1)

    def total_bytes(self) -> int:
        return sum(batch.size_bytes for batch in self.batches())

    def restore(
        self,
        path: bytes,
        to_dir: str | os.PathLike[str],
        generation: int | None = None,
        on_changed: Callable[[ItemRecord], None] = lambda _: None,
        contents: Source = lambda _: None,
        *,
        set_aside: bool = False,
    ) -> bytes:
        """Copy the newest archived ``path`` (of ``generation``, if given; of local changes that lost, with
        ``set_aside``) to the same path below ``to_dir``; where it lies now. Never overwrites: ``RefusedError``
        ``exists``. ``UsageError`` ``not_archived``. ``on_changed`` receives the item of a file that is given out with
        other bytes than its generation had. ``contents`` finds those of a renamed file, wherever on this node they are
        now."""
        for name in reversed(batch_names(self.place)):
            best: ItemRecord | None = None
            for record in self._index(name):
                if not record.path or (generation is not None and record.generation != generation):
                    continue
                if set_aside and record.why not in SET_ASIDE:
                    continue
                if record.path == path or (record.kind == 1 and is_below(path, record.path)):
                    best = record if best is None or len(record.path) >= len(best.path) else best
            with opened_batch(self.place, name) as batch:
                if best is not None:
                    slots = iter((b"o/" + best.object + path[len(best.path) :],))
                elif generation is None and not set_aside and read_index(batch.fd).is_damaged:
                    slots = object_slots(path)
                else:
                    continue
                for slot in slots:
                    if batch.stat_or_none(slot) is not None:
                        if best is not None and best.path == path and _is_changed(batch, slot, best):
                            on_changed(best)
                        return _put_out(path, to_dir, _copy_of(batch, slot))
                if (
                    best is not None
                    and best.why is Why.MOVED
                    and (fd := contents(_entry_of(best))) is not None
                ):
                    with closing_fd(fd):
                        return _put_out(path, to_dir, partial(copy_opened, fd))
        raise UsageError(
            f"{shown(path)} is not in the archive",
            hint=f"see its contents: instep archive list {self.place.fileset}",
            code="not_archived",
            path=shown(path),
        )

    def source(self) -> ArchiveSource:
        """A source of contents for ``Stage``: by path and by digest, from the newest batches."""
        return ArchiveLookup(self.place).newest()

    def prune(self, names: Iterable[str], *, dry_run: bool = False) -> int:
        """Remove these batches (chosen by the retention policy); the bytes that are (or would be) freed.

        The batch of a switch that is not recorded yet stays whatever the policy said, and one in which the tree from
        before an exchange lingers.
        """
        journal = Journal.load(self.place)
        busy = journal.header.batch if journal is not None else None
        sizes = {batch.name: batch.size_bytes for batch in self.batches()}
        if not sizes:
            return 0
        with opened(self.place) as place:
            fd = os.open(place.archive, LIST)
        with closing_fd(fd):
            chosen = [n for n in names if n in sizes and n != busy and not _has_tree(fd, n)]
            if chosen and not dry_run:
                _prune(fd, chosen)
            return sum(sizes[name] for name in chosen)


def _has_tree(archive: int, name: str) -> bool:
    return inode_at(archive, name.encode() + b"/" + NEXT) is not None


def _prune(archive: int, names: Iterable[str]) -> None:
    for name in names:
        failpoint(_PRUNING)
        # Hidden first, and durably, so that a batch is listed whole or not at all.
        os.rename(name.encode(), _HIDDEN + name.encode(), src_dir_fd=archive, dst_dir_fd=archive)
    os.fsync(archive)
    for left in map(os.fsencode, os.listdir(archive)):
        if left.startswith(_HIDDEN):
            remove_object(archive, left)


def _is_changed(batch: Root, slot: bytes, item: ItemRecord) -> bool:
    """Whether an archived file is known to have held other bytes than it holds now."""
    if item.kind != 0 or not item.digest:
        return False
    with closing_fd(batch.open(slot, READ)) as fd:
        return digest_of_fd(fd) != item.digest


def _entry_of(item: ItemRecord) -> Entry:
    return Entry(item.path, Kind.FILE, 0, item.size_bytes, 0, Digest(item.digest), 0)


def _copy_of(batch: Root, slot: bytes) -> MakeObject:
    def copy(to_fd: int, name: bytes) -> None:
        from_fd, from_name = batch.open_parent(slot)
        copy_object(from_fd, from_name, to_fd, name)

    return copy


def _put_out(path: bytes, to_dir: str | os.PathLike[str], make: MakeObject) -> bytes:
    shown_as = os.fsencode(os.path.abspath(to_dir))
    with open_outlet(shown_as) as outlet:
        put_out(outlet, path, make, shown_as=shown_as)
    return shown_as + b"/" + path
