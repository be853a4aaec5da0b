"""Paths that this daemon may not read because the generation itself says so: files and directories of mode 0000.

Nothing can be hashed there without the capability to ignore modes, so only a stat can show a change. One that is as the
manifest says is no local change: a revert would lay the same again, for ever.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from instep.model.manifest.entry import Entry, Kind
from instep.tree.objects.fidelity import Local
from instep.tree.root.beneath import Root
from instep.tree.root.own_rights import ignores_modes
from instep.tree.root.place import Place
from instep.tree.scan.compare import Difference
from instep.tree.scan.subtree import is_like

__all__ = ["readable"]

_OWNER_READS = {Kind.FILE: 0o400, Kind.DIR: 0o500}


def readable(found: Iterable[Difference], place: Place, local: Local) -> Iterator[Difference]:
    """``found`` without the paths that the base itself keeps this daemon out of."""
    for difference in found:
        entry, problem = difference.expected, difference.problem
        is_closed = problem is not None and problem.what == "unreadable" and entry is not None
        if not (is_closed and entry is not None and _is_as_expected(place, entry, local)):
            yield difference


def _is_as_expected(place: Place, entry: Entry, local: Local) -> bool:
    """Whether the entry's own mode keeps this daemon out, and all that a stat shows is as the entry says."""
    needed = _OWNER_READS.get(entry.kind, 0)
    if entry.mode & needed == needed or ignores_modes():
        return False
    with Root(place.root) as root:
        found = root.stat_or_none(entry.path)
    return found is not None and found.st_uid == os.geteuid() and is_like(found, entry, local)
