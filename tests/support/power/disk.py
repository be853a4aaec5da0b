"""A disk that may lose writes that were not synced: operations in order, which of them are durable, and the state left.

The model is section "The model of the disk" of ``docs/power-cuts.md``. An inode is a number; ``0`` is the top
directory.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

__all__ = [
    "Inode",
    "Kept",
    "Note",
    "Op",
    "Slot",
    "State",
    "Sync",
    "depends_on",
    "dropped_with",
    "volatile_before",
    "replayed",
]

Slot = tuple[int, bytes]
"""A name in a directory: the directory's inode, and the name."""
TOP = 0


class Kind(enum.Enum):
    FILE = "file"
    DIR = "dir"
    SYMLINK = "symlink"


@dataclass(slots=True)
class Inode:
    """The state of one object. ``mtime_ns`` is None where nothing set it: then any time may be found."""

    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int | None = None
    data: bytes = b""
    """Contents of a file, or the target of a symlink."""
    names: dict[bytes, int] = field(default_factory=dict)
    xattrs: dict[str, bytes] = field(default_factory=dict)

    def copy(self) -> Inode:
        return dataclasses.replace(self, names=dict(self.names), xattrs=dict(self.xattrs))


class Kept(enum.Enum):
    """How much of a write that was not synced is found afterwards."""

    ALL = "all"
    NONE = "none"
    HALF = "half"
    ZEROS = "zeros"


@dataclass(frozen=True, slots=True)
class Op:
    """One change that was asked for.

    ``what`` is ``name`` (``sets`` gives each slot its new inode, or None), ``write``, ``size`` or ``meta``. ``new`` is
    the object that the operation makes. ``where`` is the code that asked.
    """

    what: str
    where: str
    sets: tuple[tuple[Slot, int | None], ...] = ()
    new: tuple[int, Inode] | None = None
    inode: int = -1
    offset: int = 0
    data: bytes = b""
    size: int = 0
    meta: tuple[tuple[str, object], ...] = ()
    emptied: int = -1
    """The directory that ``rmdir`` removed: it was empty by then."""
    home: int = -1
    """Of metadata of a symlink, which cannot be synced itself: the directory that names it."""

    @property
    def slots(self) -> tuple[Slot, ...]:
        return tuple(slot for slot, _ in self.sets)


@dataclass(frozen=True, slots=True)
class Sync:
    """``fsync`` of one inode, or of everything (``inode`` None)."""

    inode: int | None
    where: str
    path: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """Something became durable elsewhere, such as live in the node's store; it was ordered after all before it."""

    text: str


Event = Op | Sync | Note
"""In the order in which a run asked for them."""
State = dict[int, Inode]


def depends_on(initial: State, events: Sequence[Event]) -> list[tuple[int, ...]]:
    """For each event the earlier operations without which it cannot be on the disk: the last ones of the same names;
    the ones that emptied a directory that is removed; and the ones that gave an object its other names, where one is
    taken away."""
    last: dict[Slot, int] = {}
    holds = {(at, name): ino for at, inode in initial.items() for name, ino in inode.names.items()}
    found: list[tuple[int, ...]] = []
    for at, event in enumerate(events):
        if not isinstance(event, Op) or event.what != "name":
            found.append(())
            continue
        slots = {*event.slots, *(slot for slot in last if slot[0] == event.emptied)}
        named = {inode for _, inode in event.sets}
        left = {holds.get(slot) for slot in event.slots} - named - {None}
        slots |= {slot for slot in last if holds.get(slot) in left}
        found.append(tuple(sorted({last[slot] for slot in slots if slot in last})))
        for slot, inode in event.sets:
            last[slot] = at
            if inode is None:
                holds.pop(slot, None)
            else:
                holds[slot] = inode
    return found


def made_before(events: Sequence[Event]) -> list[tuple[int, ...]]:
    """For each event the making of the directories that it changes: lost together, while nothing was synced."""
    made: dict[int, int] = {}
    found: list[tuple[int, ...]] = []
    for at, event in enumerate(events):
        if not isinstance(event, Op):
            found.append(())
            continue
        found.append(tuple(sorted({made[slot[0]] for slot in event.slots if slot[0] in made})))
        if event.new is not None:
            made[event.new[0]] = at
    return found


def volatile_before(events: Sequence[Event], needs: Sequence[tuple[int, ...]]) -> Iterator[frozenset[int]]:
    """Before each event, and after the last: the operations so far that are not durable."""
    volatile: set[int] = set()
    half: dict[int, set[int]] = {}
    """Directories whose sync a name operation still waits for."""
    yield frozenset()
    for at, event in enumerate(events):
        match event:
            case Op():
                volatile.add(at)
                if event.what == "name":
                    half[at] = {directory for directory, _ in event.slots}
            case Sync(inode=None):
                volatile.clear()
                half.clear()
            case Sync(inode=inode):
                _make_durable(events, needs, volatile, half, inode)
            case Note():
                pass
        yield frozenset(volatile)


def _make_durable(
    events: Sequence[Event],
    needs: Sequence[tuple[int, ...]],
    volatile: set[int],
    half: dict[int, set[int]],
    inode: int | None,
) -> None:
    done: list[int] = []
    for at in volatile:
        op = events[at]
        assert isinstance(op, Op)
        if op.what == "name":
            half[at].discard(inode)
            if not half[at]:
                done.append(at)
        elif inode in (op.inode, op.home):
            done.append(at)
    while done:
        at = done.pop()
        if at in volatile:
            volatile.discard(at)
            half.pop(at, None)
            done.extend(needs[at])


def dropped_with(
    drop: Iterable[int], volatile: Iterable[int], needs: Sequence[tuple[int, ...]]
) -> frozenset[int]:
    """``drop`` and all that cannot have happened without it."""
    gone = set(drop)
    for at in sorted(volatile):
        if any(need in gone for need in needs[at]):
            gone.add(at)
    return frozenset(gone)


def replayed(
    initial: State, events: Sequence[Event], end: int, dropped: frozenset[int], kept: Kept = Kept.NONE
) -> State:
    """The state of the disk after the first ``end`` events, less those in ``dropped``, of which writes leave
    ``kept``."""
    state = {number: inode.copy() for number, inode in initial.items()}
    for at in range(end):
        event = events[at]
        if not isinstance(event, Op):
            continue
        if event.new is not None and event.new[0] not in state:
            state[event.new[0]] = event.new[1].copy()
        if at in dropped and (event.what != "write" or kept is Kept.NONE):
            continue
        _apply(state, event, kept if at in dropped else Kept.ALL)
    return state


def _apply(state: State, op: Op, kept: Kept) -> None:
    match op.what:
        case "name":
            for (directory, name), inode in op.sets:
                names = state[directory].names
                if inode is None:
                    names.pop(name, None)
                else:
                    names[name] = inode
                state[directory].mtime_ns = None
        case "write":
            file = state[op.inode]
            data = op.data if kept is Kept.ALL else op.data[: len(op.data) // 2]
            if kept is Kept.ZEROS:
                data = bytes(len(op.data))
            base = file.data.ljust(op.offset, b"\0")
            file.data = base[: op.offset] + data + base[op.offset + len(data) :]
            file.mtime_ns = None
        case "size":
            file = state[op.inode]
            file.data = file.data[: op.size].ljust(op.size, b"\0")
            file.mtime_ns = None
        case "meta":
            for what, value in op.meta:
                if what.startswith("xattr:"):
                    _set_xattr(state[op.inode].xattrs, what.removeprefix("xattr:"), value)
                else:
                    setattr(state[op.inode], what, value)
        case other:
            raise AssertionError(f"an operation {other!r}")


def _set_xattr(xattrs: dict[str, bytes], name: str, value: object) -> None:
    if isinstance(value, bytes):
        xattrs[name] = value
    else:
        xattrs.pop(name, None)
