"""Which entry of a contested component keeps its name, and what the others are called.

Implements the sections "Winners and losers" and "The name of a loser" of ``docs/spec/replication.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
from blake3 import blake3

from instep.model.ids import NodeName
from instep.model.limits import COMPONENT_MAX as NAME_MAX
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import is_below

_DOMAIN = b"instep collision 1\0"
TAG_BYTES = 4
EXTENSION_MAX = 16
"""A longer tail behind the last dot is no extension, but part of the name."""
MARK = b".collision-"
"""Every name of a loser has it: a path without it has no part in a name that was given."""


class Displaced(NamedTuple):
    """Everything of ``origin`` at and below ``component`` loses its name; the fields are those of ``Collision``."""

    component: bytes
    origin: NodeName
    born_ms: int | None
    winner: NodeName
    entries: int


class _Contender(NamedTuple):
    """Sorted as it stands: the smaller one wins. A directory without entries comes behind every file, for nothing is
    lost with its name."""

    is_directory: bool
    born_ms: int
    origin: NodeName
    path: bytes


def contenders(origin: NodeName, entries: Sequence[Entry]) -> Iterator[_Contender]:
    """The entries that stand for themselves: files, symlinks, and directories in which this line has nothing."""
    for at, entry in enumerate(entries):
        if entry.kind is not Kind.DIR:
            yield _Contender(False, entry.born_ms, origin, entry.path)
        elif at + 1 == len(entries) or not is_below(entries[at + 1].path, entry.path):
            yield _Contender(True, 0, origin, entry.path)


def losers_of(top: bytes, sides: Iterable[tuple[NodeName, Sequence[Entry]]]) -> list[Displaced]:
    """The losers of the component that begins at ``top``. Each side has all entries of one line at and below it, in
    order."""
    files: dict[bytes, NodeName] = {}
    directories: dict[bytes, NodeName] = {}
    covers: dict[bytes, bytes | None] = {}
    lost: dict[tuple[bytes, NodeName], Displaced] = {}
    for each in sorted(one for origin, entries in sides for one in contenders(origin, entries)):
        path, origin = each.path, each.origin
        at = _file_above(path, top, files, covers)
        if at is None and (path in files or (path in directories and not each.is_directory)):
            at = path
        if at is None:
            (directories if each.is_directory else files).setdefault(path, origin)
            for parent in _above(path, top):
                if parent in directories:
                    break  # and so are those above it
                directories[parent] = origin
            continue
        before = lost.get((at, origin))
        born_ms = None if each.is_directory or at != path else each.born_ms
        winner = files.get(at) or directories[at]
        lost[at, origin] = Displaced(at, origin, born_ms, winner, 1 + (before.entries if before else 0))
    return list(lost.values())


def _above(path: bytes, top: bytes) -> Iterator[bytes]:
    """The directories above ``path``, up to ``top``."""
    while len(path) > len(top):
        path = path[: max(path.rfind(b"/"), len(top))]
        yield path


def _file_above(
    path: bytes, top: bytes, files: Mapping[bytes, NodeName], covers: dict[bytes, bytes | None]
) -> bytes | None:
    """The winning file above ``path``: at most one, for below a file no file wins. ``covers`` has the answer of each
    directory that was asked about. It holds: the directories above a path without a file above it belong to a winner
    from then on."""
    asked, found = [], None
    for parent in _above(path, top):
        if parent in covers:
            found = covers[parent]
            break
        asked.append(parent)
        if parent in files:
            found = parent
            break
    covers.update(dict.fromkeys(asked, found))
    return found


def names_of(component: bytes, origin: NodeName, born_ms: int | None) -> Iterator[tuple[bytes, str]]:
    """The names that a loser may get, each with its tag, in the order in which they are tried. Without end: each is
    another, so that lines with so many entries can take so many names at most."""
    hasher = blake3(_DOMAIN + msgspec.msgpack.encode((component, origin, born_ms)))
    directory, slash, name = component.rpartition(b"/")
    stem, dot, extension = name.rpartition(b".")
    if not stem or len(extension) > EXTENSION_MAX:
        stem, dot, extension = name, b"", b""
    seek = 0
    while True:
        tag = hasher.digest(length=TAG_BYTES, seek=seek).hex()
        seek += TAG_BYTES
        tail = MARK + origin.encode() + b"-" + tag.encode() + dot + extension
        yield directory + slash + _cut(stem, NAME_MAX - len(tail)) + tail, tag


def _cut(stem: bytes, most: int) -> bytes:
    """At most so many bytes of the name; no character of UTF-8 is cut in two."""
    if len(stem) <= most:
        return stem
    at = most
    while at > most - 3 and stem[at] & 0xC0 == 0x80:
        at -= 1
    return stem[:at]
