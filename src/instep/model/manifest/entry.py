"""One path of a manifest. Implements the section "Entries" of ``docs/spec/manifest.md``."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta

from instep.model.ids import Digest
from instep.model.limits import SIZE_MAX, TIME_MAX_NS, TIME_MIN_NS

CHUNKED_OVER = 1 << 20
"""Files larger than this many bytes carry the root of their chunk list."""


class Kind(enum.IntEnum):
    """The kind of a path. Sockets, pipes, devices and nested mounts are reported, not carried."""

    FILE = 0
    DIR = 1
    SYMLINK = 2


class Extra(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The metadata that only some entries have, and only where the definition preserves it.

    ``xattrs`` is sorted by name and holds inline values (ACLs are the ``system.posix_acl_*`` ones);
    ``large_xattrs`` are values above 4 KiB, as ``(name, digest, size)``, fetched like contents.
    ``link_group`` is equal for the paths that are hard links of one inode: the sort-first of their paths.
    """

    owner: str | None = None
    group: str | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    large_xattrs: tuple[tuple[bytes, Digest, Annotated[int, Meta(ge=0, le=SIZE_MAX)]], ...] = ()
    link_group: bytes | None = None
    sparse: bool = False
    chunks: Digest | None = None


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """``mode`` is the 12 permission bits, ``size`` bytes (0 for a directory, the target's length for a
    symlink), ``digest`` BLAKE3-256 of the contents (of a symlink its target, empty for a directory),
    ``born_ms`` the wall clock at first publish, kept until removal."""

    path: bytes
    kind: Kind
    mode: Annotated[int, Meta(ge=0, le=0o7777)]
    size: Annotated[int, Meta(ge=0, le=SIZE_MAX)]
    mtime_ns: Annotated[int, Meta(ge=TIME_MIN_NS, le=TIME_MAX_NS)]
    digest: Annotated[Digest, Meta(max_length=32)]
    born_ms: Annotated[int, Meta(ge=0, le=SIZE_MAX)]
    extra: Extra | None = None


def has_same_contents(one: Entry, other: Entry) -> bool:
    """Whether two entries have the same contents, whatever their modes, times and names."""
    return (one.kind, one.size, one.digest) == (other.kind, other.size, other.digest)


def same_but_for_times_of_directories(a: Entry, b: Entry) -> bool:
    """Whether two entries of one path are alike for publish and drift: ``born`` and directory times
    never count."""
    if a is b or a == b:
        return True
    return (
        a.kind == b.kind
        and a.mode == b.mode
        and a.size == b.size
        and a.digest == b.digest
        and a.extra == b.extra
        and (a.kind is Kind.DIR or a.mtime_ns == b.mtime_ns)
    )


def without_chunks(entry: Entry) -> Entry:
    """``entry`` less its chunk list: a function of the contents, so that comparing digests says it all."""
    extra = entry.extra
    if extra is None or extra.chunks is None:
        return entry
    rest = msgspec.structs.replace(extra, chunks=None)
    return msgspec.structs.replace(entry, extra=None if rest == _NOTHING else rest)


_NOTHING = Extra()
