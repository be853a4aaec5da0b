"""The generation of a followed tree, written beside it: evidence that outlives the node's database.

A file ``holds`` in the control folder, made of one record. It is written before the journal of a switch goes, and
before any result of a put-back is saved; so it is never newer than the tree, and older than the state only for a
moment. Implements section 8 of ``docs/spec/journal.md``.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from shlex import quote

import msgspec

from instep.errors import DamagedError
from instep.model.decoding import DECODE_ERRORS
from instep.model.ids import FilesetName, HeadRef, LineId, NodeName
from instep.tree.root.control_folder import open_control
from instep.tree.root.descriptors import READ, closing_fd
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.place import Place
from instep.tree.root.records import RecordWriter, read_records, sync_dir

_NAME = b"holds"
_NOTED = register("holds.noted")


class _Holds(msgspec.Struct, frozen=True, array_like=True, tag=8):
    fileset: FilesetName
    origin: NodeName
    marker: str
    """The random part of the root's marker: a root that was accepted anew has no past."""
    tree: HeadRef
    union: bytes = b""
    """The record of a union that the tree holds; empty where it holds a generation."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Holds).decode


def path_of_record(place: Place) -> Path:
    """The file that the record is in."""
    return place.control / os.fsdecode(_NAME)


def note_held(
    place: Place, line: LineId, marker: str, tree: HeadRef, *, is_synced: bool, union: bytes = b""
) -> None:
    """Write down what the tree holds. Without ``is_synced`` the caller syncs the control folder."""
    holds = _Holds(line.fileset, line.origin, marker, tree, union)
    with closing_fd(open_control(place)) as control:
        with contextlib.suppress(
            DamagedError
        ):  # a damaged one is written anew by a node that knows what its tree holds
            if _read(control, place) == holds:
                return
        new = _NAME + b".new"
        with RecordWriter(new, control) as writer:
            writer.add(_encode(holds))
            writer.sync()
        os.rename(new, _NAME, src_dir_fd=control, dst_dir_fd=control)
        if is_synced:
            sync_dir(control)
    failpoint(_NOTED)


def held_by_tree(place: Place, line: LineId, marker: str) -> HeadRef | None:
    """The generation in the tree's own record; None when it has none of this line. ``DamagedError``
    ``holds_damaged``: the tree's generation is unknown then, and a state that is older than the tree would take it
    back."""
    with closing_fd(open_control(place)) as control:
        found = _read(control, place)
    if found is None or (found.fileset, found.origin, found.marker) != (line.fileset, line.origin, marker):
        return None
    return found.tree


def union_held_by_tree(place: Place, line: LineId, marker: str) -> bytes:
    """The record of the union in the tree's own record; empty when it has none of this line."""
    with closing_fd(open_control(place)) as control:
        found = _read(control, place)
    if found is None or (found.fileset, found.origin, found.marker) != (line.fileset, line.origin, marker):
        return b""
    return found.union


def _read(control: int, place: Place) -> _Holds | None:
    """The record, None when there is none; ``DamagedError`` when there is one and it cannot be read."""
    try:
        fd = os.open(_NAME, READ, dir_fd=control)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _damaged(place, error.strerror or str(error)) from error
    try:
        for payload in read_records(fd):
            return _decode(payload)
    except (*DECODE_ERRORS, DamagedError, OSError) as error:
        raise _damaged(place, str(error)) from error
    finally:
        os.close(fd)
    raise _damaged(place, "it holds no whole record")


def _damaged(place: Place, why: str) -> DamagedError:
    path, fileset = path_of_record(place), place.fileset
    return DamagedError(
        f"{path}, the record of the tree's generation, cannot be read: {why}",
        hint=f"see that the writer has its newest generation (instep status), then: rm {quote(str(path))} && "
        f"instep retry {fileset}",
        code="holds_damaged",
        path=str(path),
    )
