"""The counts of a restore, and the errors for contents that no node has. Plain functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from instep.core.publish import restore_vocabulary as s
from instep.errors import UnavailableError
from instep.model.ids import Digest, HeadRef
from instep.model.manifest.entry import Entry, Kind, same_but_for_times_of_directories
from instep.model.manifest.manifest import Change, diff
from instep.model.paths import shown
from instep.node.lines.partner_contents import PartnerContents
from instep.tree.stage.stage import Want

MISSING_NAMED_MAX = 20


def counted(old: Digest | None, new: Digest, get: Callable[[Digest], bytes]) -> s.TreeCounts:
    """The difference in numbers."""
    added = changed = removed = size = 0
    for change in diff(old, new, get):
        if change.old is None and change.new is not None:
            added += 1
            size += change.new.size if change.new.kind is Kind.FILE else 0
        elif change.new is None and change.old is not None:
            removed += 1
        elif (
            change.old is not None
            and change.new is not None
            and not same_but_for_times_of_directories(change.old, change.new)
        ):
            changed += 1
            size += change.new.size if change.old.digest != change.new.digest else 0
    return s.TreeCounts(added, changed, removed, size)


def nowhere(
    fileset: str, target: HeadRef, entries: Sequence[Entry], partners: PartnerContents
) -> UnavailableError:
    paths = [shown(entry.path) for entry in entries[:MISSING_NAMED_MAX]]
    more = f" and {len(entries) - 1} more" if len(entries) > 1 else ""
    asked = ", ".join(partners.asked) or "no partner"
    left_out = "".join(f"; {who}: {reason}" for who, reason in sorted(partners.failures.items()))
    return UnavailableError(
        f"the contents of {paths[0]}{more} are neither in the tree, the history nor the archive of this node; asked: "
        f"{asked}{left_out}",
        hint=f"instep log {fileset} shows which generations can be restored, and from where",
        code="contents_missing",
        generation=target.number,
        total=len(entries),
        paths=paths,
    )


def no_attribute(want: Want) -> UnavailableError:
    path = shown(want.entry.path)
    return UnavailableError(
        f"{path} had an attribute over 4 KiB, and this version neither keeps such in a history nor fetches them",
        hint="restore the other paths by name, or leave the attribute out of preserve",
        code="contents_missing",
        paths=[path],
    )


def is_same_content(change: Change) -> bool:
    old, new = change.old, change.new
    return old is not None and new is not None and old.kind is new.kind and old.digest == new.digest
