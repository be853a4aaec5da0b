"""Entries that a scan finds and that must not be published."""

from __future__ import annotations

from instep.model.limits import INLINE_XATTR_MAX, broken_by_stat
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.entry_rules import why_unfit
from instep.model.paths import shown
from instep.tree.scan.listing import Problem


def unfit(entry: Entry, *, is_own: bool = False) -> Problem | None:
    """An entry that no receiver would take: its time breaks a limit, or its other metadata breaks a rule. ``is_own``:
    it is about to be published, so that its partners must be able to fetch all of it."""
    broken = broken_by_stat(entry.size, entry.mtime_ns)
    if broken is not None:
        return Problem(entry.path, *broken)
    if entry.extra is None and entry.kind is not Kind.SYMLINK:
        return None
    why = why_unfit(entry)
    if why is not None:
        return Problem(entry.path, "unfit", f"it {why}")
    return _large_attribute(entry) if is_own else None


def _large_attribute(entry: Entry) -> Problem | None:
    """No history keeps the value and no partner fetches it, so it is refused before it is signed."""
    if entry.extra is None or not entry.extra.large_xattrs:
        return None
    name, _, size = entry.extra.large_xattrs[0]
    reason = f"its attribute {shown(name)} has {size} bytes; at most {INLINE_XATTR_MAX} are carried"
    return Problem(entry.path, "unfit", reason)
