"""The rules of an entry: the section "Entries" of ``docs/spec/manifest.md``.

A first pass over a whole page works in bulk at the speed of C; only a page that fails it, or an entry
that has an ``Extra`` or is large, is looked at field by field.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import islice, pairwise

import msgspec

from instep.errors import PeerError
from instep.model.ids import DIGEST_BYTES
from instep.model.limits import (
    COMPONENT_MAX,
    ENTRY_MAX_BYTES,
    INLINE_XATTR_MAX,
    OWNER_NAME_MAX,
    PATH_MAX,
    SYMLINK_TARGET_MAX,
    XATTR_MAX,
    XATTR_NAME_MAX,
)
from instep.model.manifest.entry import CHUNKED_OVER, Entry, Extra, Kind
from instep.model.paths import shown, sort_key, validated

_NAMESPACES = (b"user.", b"trusted.", b"security.", b"system.")


def rising_keys(keys: Sequence[bytes]) -> bool:
    """Whether sort keys rise strictly, which also says that there are no duplicates."""
    return all(map(operator.lt, keys, islice(keys, 1, None)))


def check_entries(entries: Sequence[Entry]) -> None:
    """Refuse a leaf whose entries break a rule of their own or stand out of order (``PeerError``)."""
    if not entries:
        return
    paths = [entry.path for entry in entries]
    if not _plain_paths(paths):
        for path in paths:
            validated(path)
    for entry in entries:
        kind = entry.kind
        if kind is Kind.FILE:
            if len(entry.digest) != DIGEST_BYTES or entry.size > CHUNKED_OVER or entry.extra is not None:
                check_entry(entry)
        elif kind is not Kind.DIR or entry.digest or entry.size or entry.extra is not None:
            check_entry(entry)
    # "//" joins what cannot contain it, so one replace and one split make all keys at once.
    if not rising_keys(b"//".join(paths).replace(b"/", b"\0").split(b"\0\0")):
        raise not_in_order(next(b for a, b in pairwise(paths) if sort_key(a) >= sort_key(b)))


def not_in_order(path: bytes) -> PeerError:
    return PeerError(f"entry {shown(path)} is not in order", code="bad_order", path=shown(path))


def _plain_paths(paths: Sequence[bytes]) -> bool:
    """A quick yes for paths that are all valid; a no means: look at each."""
    joined = b"/" + b"/".join(paths) + b"/"
    return (
        max(map(len, paths)) <= COMPONENT_MAX < PATH_MAX
        and b"//" not in joined
        and b"/./" not in joined
        and b"/../" not in joined
        and b"\0" not in joined
        and b"/.instep" not in joined.lower()
    )


def check_entry(entry: Entry) -> None:
    """Refuse one entry that breaks a rule (``PeerError`` with code ``bad_entry`` or ``bad_path``)."""
    validated(entry.path)
    why = why_unfit(entry)
    if why is not None:
        raise PeerError(f"entry {shown(entry.path)} {why}", code="bad_entry", path=shown(entry.path), why=why)


def why_unfit(entry: Entry) -> str | None:
    """Which rule of its own an entry with a valid path breaks."""
    extra = entry.extra
    if entry.kind is Kind.DIR:
        if entry.digest or entry.size:
            return "is a directory with a size or digest"
    elif len(entry.digest) != DIGEST_BYTES:
        return f"has a digest of {len(entry.digest)} bytes"
    if entry.kind is Kind.SYMLINK and not 1 <= entry.size <= SYMLINK_TARGET_MAX:
        return f"is a symlink with a target of {entry.size} bytes"
    if (entry.kind is Kind.FILE and entry.size > CHUNKED_OVER) != (
        extra is not None and extra.chunks is not None
    ):
        return "must have a chunk list exactly when it is a file over 1 MiB"
    return None if extra is None else _why_not_extra(entry, extra)


def _why_not_extra(entry: Entry, extra: Extra) -> str | None:
    if extra == Extra():
        return "has an extra without anything in it"
    if extra.chunks is not None and len(extra.chunks) != DIGEST_BYTES:
        return f"has a chunk list digest of {len(extra.chunks)} bytes"
    if extra.sparse and (entry.kind is not Kind.FILE or not entry.size):
        return "is sparse but not a file with bytes"
    if extra.link_group is not None:
        if entry.kind is Kind.DIR:
            return "is a directory in a hard-link group"
        validated(extra.link_group)
        if sort_key(extra.link_group) > sort_key(entry.path):
            return "stands before the first path of its hard-link group"
    for name in (extra.owner, extra.group):
        if name is not None and (
            not 1 <= len(name.encode("utf-8", "surrogatepass")) <= OWNER_NAME_MAX
            or not name.isprintable()
            or ":" in name
        ):
            return "has an impossible owner or group name"
    return _why_not_xattrs(extra) or _why_too_large(entry)


def _why_not_xattrs(extra: Extra) -> str | None:
    inline = [name for name, _ in extra.xattrs]
    large = [name for name, _, _ in extra.large_xattrs]
    for names in (inline, large):
        if not rising_keys(names):
            return "has extended attributes out of order"
        for name in names:
            if (
                not name.startswith(_NAMESPACES)
                or name[-1:] == b"."
                or b"\0" in name
                or len(name) > XATTR_NAME_MAX
            ):
                return f"has an impossible extended attribute name {shown(name)}"
    if not set(inline).isdisjoint(large):
        return "has one extended attribute twice"
    if any(len(value) > INLINE_XATTR_MAX for _, value in extra.xattrs):
        return "has an inline extended attribute over 4 KiB"
    for _, digest, size in extra.large_xattrs:
        if len(digest) != DIGEST_BYTES or not INLINE_XATTR_MAX < size <= XATTR_MAX:
            return "has a large extended attribute outside 4 KiB to 64 KiB"
    return None


def _why_too_large(entry: Entry) -> str | None:
    encoded = len(msgspec.msgpack.encode(entry))
    return f"takes {encoded} bytes, the limit is {ENTRY_MAX_BYTES}" if encoded > ENTRY_MAX_BYTES else None
