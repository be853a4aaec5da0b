"""The union of lines, made from all of them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from instep.core.union.lines import KnownLines
from instep.core.union.merge import Merge, entries_of, named
from instep.model.ids import Digest
from instep.model.manifest.edit import edit
from instep.model.manifest.entry import Entry
from instep.model.manifest.manifest import build
from instep.model.manifest.pages import GetPage, PutPage
from instep.model.paths import sort_key
from instep.model.replication.union import Collision

EDITED_AT_ONCE = 50_000
"""So many shown entries of losers are held in memory at once."""


class United(msgspec.Struct, frozen=True):
    """What the lines make together: the root of the manifest, and the collisions in order."""

    root: Digest
    collisions: tuple[Collision, ...] = ()


def unite(lines: KnownLines, get: GetPage, put: PutPage) -> United:
    """The union of the lines. A pure function of them: the order in which they came does not matter. Streams all but
    the losers."""
    merge = Merge(lines)
    root = build(merge.entries(), put)
    collisions = named(merge.losers, lines)
    changes: dict[bytes, Entry | None] = {}
    for collision in collisions:
        changes.update((entry.path, entry) for entry in entries_of(collision, lines))
        if len(changes) >= EDITED_AT_ONCE:
            root = edited_in_order(root, changes, get, put)
            changes.clear()
    return United(edited_in_order(root, changes, get, put), tuple(collisions))


def edited_in_order(
    root: Digest, changes: Mapping[bytes, Entry | None], get: GetPage, put: PutPage
) -> Digest:
    """The manifest with some paths replaced or, where they say nothing, removed."""
    return edit(root, sorted(changes.items(), key=lambda change: sort_key(change[0])), get, put)
