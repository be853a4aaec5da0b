"""One object of a tree read whole, bytes and metadata, and held against an entry: whatever its stat says.

For switches that take a step only where the tree still holds the base. A write through a descriptor that was open
before is found here, for the displaced object itself is read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

import msgspec

from instep.model.ids import EMPTY_DIGEST
from instep.model.manifest.entry import Entry, Extra, Kind, same_but_for_times_of_directories
from instep.tree.objects.digest import digest_bytes, digest_fd
from instep.tree.objects.fidelity import Local, expected_local, read_extra
from instep.tree.root.beneath import NOT_BENEATH, Root
from instep.tree.root.descriptors import READ, Tolerated, closing_fd
from instep.tree.scan.subtree import subtree_differences, walk_below

_OWNER_WRITES = 0o200
_KINDS = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIR, stat.S_IFLNK: Kind.SYMLINK}
_NOTHING = Extra()


def is_same_object(a: Entry | None, b: Entry | None, local: Local) -> bool:
    """Whether two entries of a path, or its absence, say the same of the object there: kind, bytes, mode, owner,
    attributes, and of a file or symlink its time. ``born``, chunk lists, holes and other names of the inode do not
    count."""
    if a is None or b is None:
        return a is b
    return same_but_for_times_of_directories(_comparable(a, local), _comparable(b, local))


def _comparable(entry: Entry, local: Local) -> Entry:
    entry = expected_local(entry, local)
    if entry.extra is None:
        return entry
    extra = msgspec.structs.replace(entry.extra, chunks=None, link_group=None, sparse=False)
    return msgspec.structs.replace(entry, extra=None if extra == _NOTHING else extra)


def read_object(tree: Root, at: bytes, path: bytes, local: Local) -> Entry | None:
    """The object ``at`` of ``tree`` as the entry of ``path``, its bytes read now; without what is below a directory.
    None where nothing lies there, or nothing that is carried. ``OSError``."""
    with Tolerated(*NOT_BENEATH, errno.ENXIO):
        found = tree.stat(at)
        kind = _KINDS.get(stat.S_IFMT(found.st_mode))
        if kind is None:
            return None
        digest, mode, size = EMPTY_DIGEST, stat.S_IMODE(found.st_mode), 0
        if kind is Kind.SYMLINK:
            target = tree.readlink(at)
            digest, mode, size = digest_bytes(target), 0o777, len(target)
        elif kind is Kind.FILE:
            with closing_fd(tree.open(at, READ)) as fd:
                digest, size = digest_fd(fd)
                found = os.fstat(fd)  # after the bytes: a write meanwhile shows in its time
        parent, name = tree.open_parent(at)
        extra = read_extra(b"/proc/self/fd/%d/%b" % (parent, name), found, kind, local)
        return Entry(path, kind, mode, size, found.st_mtime_ns, digest, 0, extra)
    return None


def holds_entry(tree: Root, at: bytes, entry: Entry, below: Iterator[Entry], local: Local) -> bool:
    """Whether the object ``at`` of ``tree`` is as ``entry`` says, and holds exactly ``below``. ``OSError``."""
    if not _is_entry(read_object(tree, at, entry.path, local), entry, local):
        return False
    if entry.kind is not Kind.DIR:
        return True
    for rest, found, expected in subtree_differences(walk_below(tree, at), at, below, entry.path):
        if found is None or expected is None:
            return False
        if not _is_entry(read_object(tree, at + b"/" + rest, expected.path, local), expected, local):
            return False
    return True


def _is_entry(found: Entry | None, entry: Entry, local: Local) -> bool:
    if is_same_object(found, entry, local):
        return True
    # A switch gives the directory that it moves the right to be moved.
    return (
        found is not None
        and found.kind is Kind.DIR
        and entry.kind is Kind.DIR
        and is_same_object(found, msgspec.structs.replace(entry, mode=entry.mode | _OWNER_WRITES), local)
    )
