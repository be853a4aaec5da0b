"""The plan of a restore before anything is staged: its counts, and the obstacles: names that nothing has, mounts and
immutable files, contents that no node has. Plain functions.

A dry run makes these checks as the command does. An obstacle that shows only later is undone (``tree/switch/undo.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from instep.core.publish import restore_vocabulary as s
from instep.errors import InstepError, UnavailableError, UsageError
from instep.model.ids import Digest, HeadRef
from instep.model.manifest.entry import Entry, Kind, same_but_for_times_of_directories
from instep.model.manifest.manifest import Change, diff
from instep.model.manifest.walk import Reader
from instep.model.paths import is_below, shown
from instep.node.lines.partner_contents import PartnerContents
from instep.node.trees.scanning.scan_tally import ScanTally
from instep.tree.journal.journal import Op, Step
from instep.tree.root.beneath import Root
from instep.tree.root.kernel import mounts_in
from instep.tree.root.marker import open_marked
from instep.tree.root.os_errors import goes_on
from instep.tree.root.place import Place
from instep.tree.stage.probes import mount_in_the_way, refuse_stuck_changes
from instep.tree.stage.shortage import resource_error
from instep.tree.stage.stage import Want

MISSING_NAMED_MAX = 20


def counted(old: Digest | None, new: Digest, get: Callable[[Digest], bytes]) -> s.TreeCounts:
    """The difference in numbers."""
    tally = ScanTally()
    for change in diff(old, new, get):
        tally.saw(change.path, change.old, change.new)
    return s.TreeCounts(tally.added, tally.changed, tally.removed, tally.changed_bytes)


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
        hint=f"see which generations can be restored, and from where: instep log {fileset}",
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


def refuse_unknown_paths(
    fileset: str, number: int, paths: Sequence[bytes], roots: Sequence[Digest], get: Callable[[Digest], bytes]
) -> None:
    """``UsageError`` ``no_such_path`` for the first path that neither the generation nor the tree has."""
    reader = Reader(get)
    for path in paths:
        if all(reader.lookup(root, path) is None for root in roots):
            raise UsageError(
                f"neither generation {number} nor the tree has {shown(path)}; paths are relative to the root",
                hint=f"see what the tree lacks: instep diff {fileset}; and the generations: instep log {fileset}",
                code="no_such_path",
                path=shown(path),
            )


def refuse_stuck_restore(place: Place, changes: Iterable[Change], published: Iterable[Change]) -> None:
    """``ResourceError`` for a path that cannot be brought back. ``changes`` lead from the present tree to the wanted
    one, ``published`` from the newest generation to the next one.

    A mount hides the paths below it: they are taken for those of the newest generation. A restore that changes it would
    be undone by the next scan after the umount.
    """
    try:
        with open_marked(place.root, place.fileset) as root:
            _refuse_hidden(place, root, published)
            refuse_stuck_changes(place, _steps(changes), root)
    except OSError as error:
        raise resource_error(error, place, "brought back") from error
    except InstepError as error:
        raise to_be_repeated(error, place.fileset) from None


def to_be_repeated(error: InstepError, fileset: str) -> InstepError:
    """With a hint for an operator: a command that was refused is not retried by itself."""
    if error.hint:
        error.hint = error.hint.replace(goes_on(fileset), "then repeat the command")
    return error


def _refuse_hidden(place: Place, root: Root, published: Iterable[Change]) -> None:
    mounts = mounts_in(root)
    if not mounts:
        return
    for change in published:
        if _is_time_only(change.old, change.new):
            continue
        for mount in mounts:
            if change.path == mount or is_below(change.path, mount):
                raise mount_in_the_way(place, change.path, mount)


def _steps(changes: Iterable[Change]) -> Iterator[Step]:
    """The steps of the changes. A directory that goes, goes as one: paths in it are not touched."""
    gone: bytes | None = None
    for change in changes:
        path, old, new = change.path, change.old, change.new
        if (gone is not None and is_below(path, gone)) or _is_time_only(old, new):
            continue
        if old is not None and old.kind is Kind.DIR and (new is None or new.kind is not Kind.DIR):
            gone = path
        if old is None:
            yield Step(Op.NEW, path)
        else:
            yield Step(Op.REMOVE if new is None else Op.CHANGE, path)


def _is_time_only(old: Entry | None, new: Entry | None) -> bool:
    return old is not None and new is not None and same_but_for_times_of_directories(old, new)
