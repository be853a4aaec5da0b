"""A file copied with its metadata while other programs may write it: the copy, or the word that it changed."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Kind
from instep.tree.objects.digest import SMALL_MAX, digest_bytes, same_stat
from instep.tree.objects.fidelity import Local, apply_metadata, has_holes, read_extra
from instep.tree.objects.large import copy_whole, digest_of_fd
from instep.tree.root.descriptors import CREATE, closing_fd
from instep.tree.root.records import write_all


def entry_of(
    path: bytes, kind: Kind, fd: int, found: os.stat_result, digest: Digest, local: Local,
    values: MutableMapping[Digest, bytes],
) -> Entry:  # fmt: skip
    """The kept metadata of an open object. ``values`` receives attributes that are too large to be inline."""
    extra = read_extra(fd, found, kind, local, keep_value=values.__setitem__)
    size = found.st_size if kind is Kind.FILE else 0
    return Entry(path, kind, found.st_mode & 0o7777, size, found.st_mtime_ns, digest, 0, extra)


def copied_file(
    source: int, dir_fd: int, name: bytes, path: bytes, local: Local, values: MutableMapping[Digest, bytes]
) -> Digest | None:
    """Make the new file ``name`` a copy of the open file ``source``. Its digest; None when it changed meanwhile, and
    the copy is some state of it."""
    before = os.fstat(source)
    is_sparse = has_holes(source, before)
    with closing_fd(os.open(name, CREATE, 0o600, dir_fd=dir_fd)) as copy:
        if before.st_size <= SMALL_MAX and not is_sparse:  # in one piece: half the system calls
            data = os.pread(source, before.st_size, 0)
            write_all(copy, data)
            digest = digest_bytes(data)
        else:
            copy_whole(source, copy, before.st_size, is_sparse=is_sparse)
            digest = digest_of_fd(source)
        entry = entry_of(path, Kind.FILE, source, before, digest, local, values)
        apply_metadata(dir_fd, name, entry, local, fd=copy, large_value=values.__getitem__)
        is_whole = os.fstat(copy).st_size == before.st_size
    return digest if is_whole and same_stat(before, os.fstat(source)) else None
