"""Hard-link groups of a manifest in which held paths keep old entries."""

from __future__ import annotations

import msgspec

from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Extra
from instep.model.manifest.manifest import edit, iterate
from instep.model.manifest.pages import GetPage, PutPage
from instep.model.manifest.walk import Reader

_NOTHING = Extra()


def with_whole_groups(root: Digest, get: GetPage, put: PutPage) -> Digest:
    """The manifest without the links that no longer hold: a held path keeps the entry of a file that was linked with
    others, and these have changed since. Every receiver refuses a group whose paths are not the same."""
    reader = Reader(get)
    loose = [entry for entry in iterate(root, get) if not _is_whole(entry, root, reader)]
    return edit(root, [(entry.path, _alone(entry)) for entry in loose], get, put)


def _is_whole(entry: Entry, root: Digest, reader: Reader) -> bool:
    group = entry.extra.link_group if entry.extra is not None else None
    if group is None or group == entry.path:
        return True
    leader = reader.lookup(root, group)
    return leader is not None and (
        msgspec.structs.replace(leader, path=entry.path, born_ms=entry.born_ms) == entry
    )


def _alone(entry: Entry) -> Entry:
    assert entry.extra is not None
    rest = msgspec.structs.replace(entry.extra, link_group=None)
    return msgspec.structs.replace(entry, extra=None if rest == _NOTHING else rest)
