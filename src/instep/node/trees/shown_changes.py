"""Differences as ``diff`` shows them: a moved directory or file is one change, not a removal beside an addition."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator

from msgspec import UNSET, UnsetType

from instep.api.looking import ChangeDocument
from instep.model.ids import EMPTY_DIGEST, Digest
from instep.model.manifest.diff import Change
from instep.model.manifest.entry import Entry, Kind, same_but_for_times_of_directories
from instep.model.paths import parent_of, path_fields, shown
from instep.tree.journal.plan import find_moves
from instep.tree.scan.compare import Difference

_Likeness = tuple[Kind, int, Digest]
_RENAMES_MAX = 100_000


def changes_shown(look: Callable[[], Iterable[Difference]], limit: int) -> tuple[ChangeDocument, ...]:
    """``look`` is called three times, so that a moved directory of any size takes no memory. The renames of more than
    100,000 files are shown as removals and additions."""
    moves = find_moves(_changes(look())).directories
    tops = frozenset((*moves, *moves.values()))

    def loose() -> Iterator[Difference]:
        return (one for one in look() if one.path in moves or not _is_in(one.path, tops))

    moves |= renamed_files(_changes(loose()))
    gone = frozenset(moves.values())
    changes: list[ChangeDocument] = []
    for one in loose():
        change = _change(one)
        if change is None or one.path in gone:
            continue
        if len(changes) >= limit:
            break
        source: str | UnsetType = UNSET
        if one.path in moves:
            change, source = "renamed", shown(moves[one.path])
        problem = one.problem.what if one.problem is not None else UNSET
        changes.append(ChangeDocument(change=change, source=source, problem=problem, **path_fields(one.path)))
    return tuple(changes)


def _change(one: Difference) -> str | None:
    """What happened at the path; None for no news."""
    if one.expected is None:
        return "added" if one.problem is None else None
    if one.problem is None and one.found is None:
        return "removed"
    is_same = one.found is not None and same_but_for_times_of_directories(one.expected, one.found)
    return None if is_same else "changed"


def _changes(differences: Iterable[Difference]) -> Iterator[Change]:
    return (
        Change(one.path, one.expected, one.found, EMPTY_DIGEST, 0)
        for one in differences
        if one.problem is None
    )


def _is_in(path: bytes, tops: Container[bytes]) -> bool:
    """Whether the path is one of these or below one."""
    while path:
        if path in tops:
            return True
        path = parent_of(path)
    return False


def renamed_files(changes: Iterable[Change]) -> dict[bytes, bytes]:
    """Each new file or symlink that has the bytes and mode of one that is gone, and that one. One of the same name goes
    before others; an empty file was renamed only when it kept its name."""
    gone: dict[_Likeness, list[bytes]] = {}
    new: list[Entry] = []
    for change in changes:
        old, entry = change.old, change.new
        if old is not None and entry is None and old.kind is not Kind.DIR:
            gone.setdefault(_likeness(old), []).append(change.path)
        elif entry is not None and old is None and entry.kind is not Kind.DIR:
            new.append(entry)
        if len(gone) + len(new) > _RENAMES_MAX:
            return {}
    found: dict[bytes, bytes] = {}
    for is_by_name in (True, False):
        for entry in new:
            sources = gone.get(_likeness(entry), [])
            if entry.path in found or not sources:
                continue
            same = [source for source in sources if _name(source) == _name(entry.path)]
            if same or (not is_by_name and entry.size):
                found[entry.path] = source = (same or sources)[0]
                sources.remove(source)
    return found


def _likeness(entry: Entry) -> _Likeness:
    return entry.kind, entry.mode, entry.digest


def _name(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]
