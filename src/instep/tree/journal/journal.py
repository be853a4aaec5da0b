"""The journal of a switch: its steps, and the marks of those that are done. Implements ``docs/spec/journal.md``.

It is written in the stage, synced, and renamed to ``control/journal``; that rename begins the switch. Marks are
appended as the apply goes on. It lives until live was recorded, or until the next switch replaces it.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import msgspec

from instep.errors import DamagedError
from instep.model.decoding import DECODE_ERRORS
from instep.model.ids import Digest, HeadRef
from instep.model.manifest.entry import Entry
from instep.tree.root.control_folder import open_control
from instep.tree.root.descriptors import READ, closing_fd
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.place import Place
from instep.tree.root.records import Damage, OnDamage, append_records, read_records

_MARKING = register("journal.marking")
_MARKED = register("journal.marked")
_OUTDATED = register("journal.outdated")
_REMOVING = register("journal.removing")
_REMOVED = register("journal.removed")

VERSION = 1


class Op(enum.IntEnum):
    """Section 3 of the specification."""

    NEW = 1
    CHANGE = 2
    MOVE = 3
    META = 4
    REMOVE = 5
    TIME = 6
    MODE = 7
    CARRY = 8


class Phase(enum.Enum):
    """How far an apply came; ``SWITCHED`` implies reload due and probe due until they are marked. A mark of
    ``SWITCHING`` says that the steps are being undone; a node that does not know that goes forward."""

    SWITCHING = "switching"
    SWITCHED = "switched"
    RELOADED = "reloaded"
    PROBED = "probed"


class Why(enum.Enum):
    """Why an object is in the archive."""

    REPLACED = "replaced"
    REMOVED = "removed"
    DRIFT = "drift"
    LOST = "lost"
    MOVED = "moved"
    """Laid by the same switch under another name: the object goes once the generation is recorded."""


class Compare(enum.Enum):
    """Whether a switch takes a step whatever it displaces (``NOTHING``), each one only where the tree still holds the
    base (``EACH``), or all of them only where it does so everywhere (``WHOLE``): section 9 of the specification."""

    NOTHING = "nothing"
    EACH = "each"
    WHOLE = "whole"


class Header(msgspec.Struct, frozen=True, array_like=True, tag=0):
    version: int
    fileset: str
    target: HeadRef
    previous: HeadRef | None
    base_root: Digest
    definition: bytes
    batch: str
    sealed_at_ns: int
    why: Why | None = None
    next_ino: int = 0
    """Of the next tree, where the whole root is exchanged; 0 where the switch is in place."""
    root_ino: int = 0
    """Of the root to exchange."""
    compare: Compare = Compare.NOTHING
    union: bytes = b""
    """The record of the union that ``target`` is, where it is one."""


class Step(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """``ino`` is the staged object's (new, change) or the live one's (move, meta); ``old_ino`` what the seal
    found at ``path`` (0: nothing). ``mtime_ns`` belongs to ``TIME``. Of ``CARRY``, ``ino`` is the stand-in's."""

    op: Op
    path: bytes
    key: bytes = b""
    ino: int = 0
    new: Entry | None = None
    old: Entry | None = None
    old_ino: int = 0
    source: bytes = b""
    mtime_ns: int = 0


class EndRecord(msgspec.Struct, frozen=True, array_like=True, tag=2):
    steps: int


class MarkRecord(msgspec.Struct, frozen=True, array_like=True, tag=3):
    phase: Phase
    at_ms: int


class RowRecord(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A stat row; ``is_staged`` when only this process could write the file when the row was taken."""

    path: bytes
    ino: int
    dev: int
    ctime_ns: int
    mtime_ns: int
    size: int
    digest: bytes
    chunks: bytes
    read_at_ns: int
    is_staged: bool


class ItemRecord(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """One object of an archive batch; ``kind`` is 0 file, 1 directory, 2 symlink, 3 anything else."""

    path: bytes
    object: bytes
    why: Why
    generation: int
    at_ms: int
    size_bytes: int
    digest: bytes
    kind: int
    entries: int = 1


class OutdatedRecord(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Keys of the paths whose steps a compared switch did not take; the last of these records counts."""

    keys: tuple[bytes, ...]


class LinkedRecord(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """A name of the next tree that is a link of the live object ``ino``; or a stand-in for a path of ``carry``."""

    path: bytes
    ino: int
    is_stand_in: bool = False


Record = Header | Step | EndRecord | MarkRecord | RowRecord | ItemRecord | OutdatedRecord | LinkedRecord

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


def encode_record(record: Record) -> bytes:
    return _encoder.encode(record)


def decode_record(payload: bytes) -> Record:
    """The record, or ``DamagedError``: its checksum was right, so another program or version wrote it."""
    try:
        return _decoder.decode(payload)
    except DECODE_ERRORS as error:
        raise DamagedError(f"a journal record cannot be read: {error}", code="journal_damaged") from error


_Kind = TypeVar("_Kind", Step, RowRecord, ItemRecord, LinkedRecord)


def records_of(kind: type[_Kind], fd: int, on_damage: OnDamage | None = None) -> Iterator[_Kind]:
    """The records of this kind in an open file; errors as ``read_records`` and ``decode_record``."""
    for payload in read_records(fd, on_damage):
        record = decode_record(payload)
        if isinstance(record, kind):
            yield record


@dataclass(frozen=True, slots=True)
class Journal:
    """A sealed journal at ``name`` below the control folder; steps are streamed from the file."""

    place: Place
    name: bytes
    header: Header
    marks: tuple[MarkRecord, ...]
    outdated: frozenset[bytes] = frozenset()
    """``object_key`` of each path that a compared switch left as it was."""

    @classmethod
    def load(cls, place: Place, name: bytes = b"journal") -> Journal | None:
        """The journal, None when there is none; ``DamagedError`` ``journal_damaged`` when it is not whole."""
        try:
            fd = _open(place, name)
        except FileNotFoundError:
            return None
        with closing_fd(fd):
            return cls._read(place, name, fd)

    @classmethod
    def _read(cls, place: Place, name: bytes, fd: int) -> Journal:
        header: Header | None = None
        steps, end = 0, -1
        marks: list[MarkRecord] = []
        outdated: frozenset[bytes] = frozenset()

        def judge(damage: Damage) -> None:
            # Steps must be whole. A mark that is lost is implied by a later one, or its step is done again.
            if end < 0 and not damage.is_tail:
                raise _not_whole(place, name, f"{damage.length} bytes at {damage.offset} are no record")

        for payload in read_records(fd, judge):
            match decode_record(payload):
                case Header() as found:
                    if found.version != VERSION:
                        break
                    header = found
                case Step():
                    steps += 1
                case EndRecord(count):
                    end = count
                case MarkRecord() as mark:
                    marks.append(mark)
                case OutdatedRecord(keys):
                    outdated = frozenset(keys)
                case _:
                    break
        if header is None or end != steps:
            raise _not_whole(place, name, f"it has {steps} steps, and its end says {end}")
        return cls(place, name, header, tuple(marks), outdated)

    @property
    def stage_name(self) -> bytes:
        """The stage's directory below ``control/stage``."""
        return stage_name(self.header.target)

    @property
    def is_exchange(self) -> bool:
        """Whether the whole root is exchanged."""
        return self.header.next_ino != 0

    @property
    def is_compared(self) -> bool:
        """Whether a step is taken only where the tree still holds the base."""
        return self.header.compare is not Compare.NOTHING

    @property
    def phase(self) -> Phase:
        return self.marks[-1].phase if self.marks else Phase.SWITCHING

    def has(self, phase: Phase) -> bool:
        if phase is Phase.SWITCHED:
            # The others are marked behind it; a mark of switching says that it is being undone.
            return any(mark.phase is not Phase.SWITCHING for mark in self.marks)
        return phase is Phase.SWITCHING or any(mark.phase is phase for mark in self.marks)

    @property
    def is_switched(self) -> bool:
        return self.has(Phase.SWITCHED)

    @property
    def is_undoing(self) -> bool:
        """Whether it was begun to take the steps back: then it is not tried to go forward any more."""
        return not self.is_switched and bool(self.marks)

    def steps(self) -> Iterator[Step]:
        """All steps in path order, in constant memory."""
        with closing_fd(_open(self.place, self.name)) as fd:
            for payload in read_records(fd):  # strict: loading it found the steps whole
                record = decode_record(payload)
                if isinstance(record, Step):
                    yield record
                elif isinstance(record, EndRecord):
                    return

    def mark(self, phase: Phase, at_ms: int) -> Journal:
        """Append a mark durably; the journal with it. Marking twice is harmless."""
        record = MarkRecord(phase, at_ms)
        failpoint(_MARKING)
        self._append(record)
        failpoint(_MARKED)
        return replace(self, marks=(*self.marks, record))

    def keep_outdated(self, keys: Iterable[bytes]) -> Journal:
        """Append durably which paths a compared switch left as they were; the journal with it."""
        record = OutdatedRecord(tuple(sorted(keys)))
        self._append(record)
        failpoint(_OUTDATED)
        return replace(self, outdated=frozenset(record.keys))

    def _append(self, record: MarkRecord | OutdatedRecord) -> None:
        with closing_fd(open_control(self.place)) as control:
            append_records(self.name, control, (encode_record(record),))

    def remove(self) -> None:
        """Remove the journal durably: its facts are recorded elsewhere now."""
        failpoint(_REMOVING)
        with closing_fd(open_control(self.place)) as control:
            os.unlink(self.name, dir_fd=control)
            os.fsync(control)
        failpoint(_REMOVED)


def _not_whole(place: Place, name: bytes, why: str) -> DamagedError:
    return DamagedError(
        f"the journal of {place.fileset} is not whole",
        hint="the disk lost synced bytes; nothing was changed, archive and stage are kept",
        code="journal_damaged",
        journal=os.fsdecode(os.fsencode(place.control) + b"/" + name),
        why=why,
    )


def stage_name(target: HeadRef) -> bytes:
    return target.id.hex()[:16].encode()


def _open(place: Place, name: bytes) -> int:
    with closing_fd(open_control(place)) as control:
        return os.open(name, READ, dir_fd=control)
