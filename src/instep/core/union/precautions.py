"""The checks before a head of another organisation goes into the union: it may say anything about its age.

Implements the section "Precautions of a receiver" of ``docs/spec/replication.md``.
"""

from __future__ import annotations

from typing import NamedTuple

from instep.core.union.unite import United
from instep.model.ids import Digest, NodeName
from instep.model.manifest.diff import diff
from instep.model.manifest.entry import Kind
from instep.model.manifest.pages import GetPage
from instep.model.manifest.walk import totals
from instep.model.replication.union import Collision

DISPLACED_MAX = 20
DISPLACED_SHARE = 100
"""A head may take ``DISPLACED_MAX`` names, or one in ``DISPLACED_SHARE`` of all that are shown, if that is more."""
AHEAD_MAX_MS = 300_000
AHEAD_LISTED_MAX = 20


def names_taken(before: United, after: United, origin: NodeName) -> tuple[Collision, ...]:
    """The losers that ``after`` has and ``before`` does not, because of an entry of the line of ``origin``."""
    known = {(each.component, each.origin) for each in before.collisions}
    return tuple(
        each
        for each in after.collisions
        if each.winner == origin != each.origin and (each.component, each.origin) not in known
    )


def takes_names(before: United, after: United, origin: NodeName, get: GetPage) -> tuple[Collision, ...]:
    """What a head of ``origin`` would displace, when that is too much to be taken unasked; else nothing."""
    taken = names_taken(before, after, origin)
    most = max(DISPLACED_MAX, totals(before.root, get).entries // DISPLACED_SHARE)
    return taken if sum(each.entries for each in taken) > most else ()


class BornAhead(NamedTuple):
    """Entries of a new head that were born ahead of this node's clock: how many, the latest birth, some paths."""

    total: int
    latest_ms: int
    paths: tuple[bytes, ...]


def born_ahead(old: Digest | None, new: Digest, get: GetPage, now_ms: int) -> BornAhead | None:
    """The entries that came with the root ``new`` of a line and are ahead of the clock; None when there is none."""
    total, latest_ms = 0, 0
    paths: list[bytes] = []
    for change in diff(old, new, get):
        entry = change.new
        if entry is None or entry.kind is Kind.DIR or entry.born_ms <= now_ms + AHEAD_MAX_MS:
            continue
        if change.old is not None and change.old.born_ms == entry.born_ms:
            continue
        total, latest_ms = total + 1, max(latest_ms, entry.born_ms)
        if len(paths) < AHEAD_LISTED_MAX:
            paths.append(entry.path)
    return BornAhead(total, latest_ms, tuple(paths)) if total else None
