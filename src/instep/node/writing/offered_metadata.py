"""Metadata that a change from elsewhere may set at the home: rights of programs and owners only where
``allow_preserve`` says so (P7)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from instep.model.change import OutcomeKind, PathChange, PathOutcome, is_alike
from instep.model.manifest.entry import Entry, Extra
from instep.model.paths import parent_of
from instep.tree.objects.fidelity import Allow, Local, expected_local
from instep.tree.objects.inode import SETID
from instep.tree.scan.listing import unfit

_RIGHTS = (b"security.", b"trusted.")
_NOTHING = Extra()


def not_allowed(change: PathChange, allow: frozenset[Allow]) -> PathOutcome | None:
    """The refusal of a change that would give a program rights which it did not have."""
    new = change.new
    if new is None:
        return None
    if new.mode & SETID & ~_mode(change.base) and Allow.SETUID not in allow:
        return _refused(change, "it would set setuid or setgid bits")
    if Allow.SECURITY not in allow and _rights(new) - _rights(change.base):
        return _refused(change, "it would set security attributes")
    return None


def not_carried(change: PathChange, local: Local) -> PathOutcome | None:
    """The refusal of a change that the home could make and never publish, because no entry carries it."""
    problem = unfit(expected_local(change.new, local), is_own=True) if change.new is not None else None
    if problem is None:
        return None
    return PathOutcome(change.path, OutcomeKind.REFUSED, code="not_carried", reason=problem.detail)


def is_only_owner(
    change: PathChange, live: Mapping[bytes, Entry], allow: frozenset[Allow]
) -> PathOutcome | None:
    """The refusal of a change of which nothing is left but an owner that a partner may not set."""
    entry, new = live.get(change.path), change.new
    if entry is None or new is None or is_alike(entry, new):
        return None
    if is_alike(entry, as_allowed(new, live, allow)):
        return _refused(change, "it would set another owner")
    return None


def _refused(change: PathChange, reason: str) -> PathOutcome:
    return PathOutcome(change.path, OutcomeKind.REFUSED, code="metadata_not_allowed", reason=reason)


def _mode(entry: Entry | None) -> int:
    return 0 if entry is None else entry.mode


def _rights(entry: Entry | None) -> frozenset[tuple[bytes, bytes]]:
    extra = entry.extra if entry is not None else None
    if extra is None:
        return frozenset()
    small = {(name, value) for name, value in extra.xattrs if name.startswith(_RIGHTS)}
    large = {(name, bytes(digest)) for name, digest, _ in extra.large_xattrs if name.startswith(_RIGHTS)}
    return frozenset(small | large)


def as_allowed(new: Entry, live: Mapping[bytes, Entry], allow: frozenset[Allow]) -> Entry:
    """The entry that is laid for ``new``: a file of its own, and without the right to give owners away it keeps the
    owner of the live path, or gets the one of the directory that holds it."""
    extra = new.extra or _NOTHING
    owner, group = extra.owner, extra.group
    if Allow.OWNER not in allow and (owner is not None or group is not None):
        before = live.get(new.path) or live.get(parent_of(new.path))
        kept = before.extra if before is not None and before.extra is not None else _NOTHING
        owner, group = kept.owner, kept.group
    extra = msgspec.structs.replace(extra, owner=owner, group=group, link_group=None)
    return msgspec.structs.replace(new, extra=None if extra == _NOTHING else extra)
