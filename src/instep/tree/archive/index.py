"""The index of an archive batch: which object is which path. A bad record costs one line of it, never the rest.

A path that the index lost is found again: an object's key is made of its path, so a caller that knows the path finds
the object, and a summary is summed up anew. ``mended`` writes an index in which nothing is missing that can be named.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from instep.core.retention import Batch
from instep.errors import DamagedError
from instep.tree.journal.journal import ItemRecord, Why, decode_record, encode_record
from instep.tree.journal.plan import object_key
from instep.tree.root.beneath import Root
from instep.tree.root.descriptors import LIST, READ, closing_fd
from instep.tree.root.records import Damage, RecordWriter, file_beside, read_records, sync_dir
from instep.tree.scan.subtree import kind_of

INDEX = b"index"
UNNAMED = b"instep-unnamed"
"""Objects of which no path is known are listed as files of this directory, by their keys."""


@dataclass(slots=True)
class BatchIndex:
    """``items`` in their order, the summary apart; ``damage`` says which bytes could not be read."""

    items: list[ItemRecord] = field(default_factory=list)
    summary: ItemRecord | None = None
    damage: list[Damage] = field(default_factory=list)
    gone: list[ItemRecord] = field(default_factory=list)
    """Items of which the object is not there any more, where that was looked at."""

    @property
    def is_damaged(self) -> bool:
        """Whether lines may be missing: a batch is closed only after its whole index was synced."""
        return bool(self.damage) or self.summary is None


def read_index(batch_fd: int) -> BatchIndex:
    """The index of an open batch; an empty one when there is none."""
    found = BatchIndex()
    with contextlib.suppress(FileNotFoundError):
        for record in stream_index(batch_fd, found.damage.append):
            if record.path:
                found.items.append(record)
            else:
                found.summary = record
    return found


def stream_index(batch_fd: int, on_damage: Callable[[Damage], None]) -> Iterator[ItemRecord]:
    """Every item that can be read, in constant memory. ``FileNotFoundError`` without an index."""
    with closing_fd(os.open(INDEX, READ, dir_fd=batch_fd)) as fd:
        for payload in read_records(fd, on_damage):
            try:
                record = decode_record(payload)
            except DamagedError:
                on_damage(Damage(0, len(payload), False))
                continue
            if isinstance(record, ItemRecord):
                yield record


def is_object(item: ItemRecord) -> bool:
    """True for an item that the batch holds by itself: not one inside a directory, nor one whose contents are live."""
    return b"/" not in item.object and item.why is not Why.MOVED


def summed_up(name: bytes, items: Iterator[ItemRecord]) -> Batch:
    """The batch ``name`` by its last summary, or by its items where the summary was lost."""
    at_ms, size, summary = made_at_ms(name), 0, None
    for item in items:
        if not item.path:
            summary = item
        elif is_object(item):
            at_ms, size = max(at_ms, item.at_ms), size + item.size_bytes
    if summary is not None:
        at_ms, size = summary.at_ms, summary.size_bytes
    return Batch(name.decode(), at_ms, size)


def made_at_ms(batch: bytes) -> int:
    """When a batch was made: its name begins with that time."""
    digits = batch.partition(b"-")[0]
    return int(digits) if digits.isdigit() else 0


def damaged_batches(archive: str | os.PathLike[str]) -> Iterator[tuple[bytes, BatchIndex]]:
    """``(path, index)`` of the batches whose index has lost lines, or names objects that are gone; oldest first."""
    path = os.fsencode(archive)
    names = sorted(os.listdir(path)) if os.path.isdir(path) else []
    for name in names:
        if not name.startswith(b".") and os.path.isdir(path + b"/" + name):
            with Root(path + b"/" + name) as batch:
                index = read_index(batch.fd)
                index.gone = _gone(batch.fd, index.items)
            if index.is_damaged or index.gone:
                yield path + b"/" + name, index


def _gone(batch_fd: int, items: list[ItemRecord]) -> list[ItemRecord]:
    names: frozenset[bytes] = frozenset()
    with (
        contextlib.suppress(FileNotFoundError),
        closing_fd(os.open(b"o", LIST, dir_fd=batch_fd)) as objects,
    ):
        names = frozenset(map(os.fsencode, os.listdir(objects)))
    return [item for item in items if is_object(item) and item.object not in names]


def object_slots(path: bytes) -> Iterator[bytes]:
    """Where a batch would have ``path``: as an object, or inside the object of a directory above it."""
    at = path
    while at:
        yield b"o/" + object_key(at) + path[len(at) :]
        at = at.rpartition(b"/")[0]


def mend_index(path: bytes, paths_of: Callable[[frozenset[bytes]], Mapping[bytes, bytes]]) -> BatchIndex:
    """Write the whole index of the batch at ``path`` anew; the damaged one is kept beside it. ``paths_of`` finds
    paths by their object keys."""
    with Root(path) as batch:
        return _mended(batch.fd, made_at_ms(os.path.basename(path)), paths_of)


def _mended(
    batch_fd: int, at_ms: int, paths_of: Callable[[frozenset[bytes]], Mapping[bytes, bytes]]
) -> BatchIndex:
    found = read_index(batch_fd)
    with closing_fd(os.open(b"o", LIST, dir_fd=batch_fd)) as objects:
        named = {item.object for item in found.items}
        unnamed = sorted(name for name in map(os.fsencode, os.listdir(objects)) if name not in named)
        paths = paths_of(frozenset(_key(name) for name in unnamed)) if unnamed else {}
        generation = max((item.generation for item in found.items), default=0)
        for name in unnamed:
            status = os.stat(name, dir_fd=objects, follow_symlinks=False)
            path = paths.get(_key(name), UNNAMED + b"/" + name)
            kind = kind_of(status)
            size = 0 if kind == 1 else status.st_size
            found.items.append(ItemRecord(path, name, Why.REPLACED, generation, at_ms, size, b"", kind))
    newest_ms, new = max((item.at_ms for item in found.items), default=at_ms), INDEX + b".new"
    found.summary = write_index(batch_fd, found.items, newest_ms, new)
    with contextlib.suppress(FileNotFoundError):
        file_beside(INDEX, b".damaged", batch_fd)
    os.rename(new, INDEX, src_dir_fd=batch_fd, dst_dir_fd=batch_fd)
    sync_dir(batch_fd)
    return found


def _key(name: bytes) -> bytes:
    return name.partition(b".")[0]


def write_index(batch_fd: int, items: Iterable[ItemRecord], at_ms: int, name: bytes = INDEX) -> ItemRecord:
    """Write the file ``name`` durably: ``items``, and their summary, which is returned."""
    with RecordWriter(name, batch_fd) as writer:
        size = count = 0
        for item in items:
            if is_object(item):
                size, count = size + item.size_bytes, count + 1
            writer.add(encode_record(item))
        summary = summary_of(at_ms, size, count)
        writer.add(encode_record(summary))
        writer.sync()
    return summary


def summary_of(at_ms: int, size_bytes: int, entries: int) -> ItemRecord:
    """Of a batch with so many objects."""
    return ItemRecord(b"", b"", Why.REPLACED, 0, at_ms, size_bytes, b"", 1, entries)
