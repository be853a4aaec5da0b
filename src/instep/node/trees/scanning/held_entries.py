"""The paths of one scan that cannot be carried, and the old entries that they keep in the next manifest, whose
hard-link groups have to hold all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from instep.core.guards.held import DAMAGED, HELD_LISTED_MAX, OPEN, HeldPaths, ScanProblem, is_held
from instep.model.definition import Definition
from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Extra, Kind
from instep.model.manifest.manifest import edit, iterate
from instep.model.manifest.pages import GetPage, PutPage
from instep.model.manifest.walk import Reader
from instep.model.paths import is_below
from instep.tree.objects.fidelity import Local
from instep.tree.root.place import Place
from instep.tree.scan.cover import Cover
from instep.tree.scan.listing import Problem
from instep.tree.scan.rules import Rules
from instep.tree.scan.scan import scan

REFUSING_MAX = 200
REPORTED_MAX = 200


@dataclass(slots=True)
class _Kept:
    """A problem, and the entries that it keeps so far."""

    problem: Problem
    entries: int = 0
    size_bytes: int = 0

    def as_core(self) -> ScanProblem:
        problem = self.problem
        return ScanProblem(problem.path, problem.what, problem.detail, self.entries, self.size_bytes)


class Holding:
    """Takes problems as a scan meets them, and says of each old entry that was not found whether one of them keeps
    it."""

    def __init__(self, again: Sequence[ScanProblem] = (), lets_go: frozenset[bytes] = frozenset()) -> None:
        """``again`` are the problems of the scans before: entries that one of them keeps are not counted anew. Paths in
        ``lets_go`` keep nothing."""
        self._found: dict[bytes, _Kept] = {}
        self.lets_go = lets_go
        self._opened: list[ScanProblem] = []
        self._before = {each.path: each for each in again}

    def begin(self, problem: Problem, old: Entry | None) -> None:
        """A path cannot be carried; ``old`` is its last entry."""
        kept = self._found.setdefault(problem.path, _Kept(problem))
        if old is not None and problem.path not in self.lets_go:
            self._add(kept, old)

    def opened(self, path: bytes) -> None:
        """A file is carried although a program has it open for writing."""
        if len(self._opened) < REPORTED_MAX:
            self._opened.append(ScanProblem(path, OPEN, "a program has it open for writing"))

    def count_below(self, base: Digest, get: Callable[[Digest], bytes], path: bytes) -> None:
        """Count the old entries below a directory that the scan looked at alone."""
        if path in self.lets_go:
            return
        kept, before = self._found[path], self._before.get(path)
        if before is not None and before.entries > 1:
            kept.entries, kept.size_bytes = before.entries, before.size_bytes
            return
        for entry in iterate(base, get, after=path):
            if not is_below(entry.path, path):
                break
            self._add(kept, entry)

    def keeps(self, old: Entry) -> bool:
        """Whether the scan could not look where this old entry was: then the entry stays, and is counted."""
        if not self._found:
            return False
        above = old.path
        while above:
            above = above.rpartition(b"/")[0]
            kept = self._found.get(above)
            if kept is not None and above in self.lets_go:
                return False
            if kept is not None:
                self._add(kept, old)
                return True
        return False

    @staticmethod
    def _add(kept: _Kept, old: Entry) -> None:
        kept.entries += 1
        kept.size_bytes += old.size if old.kind is Kind.FILE else 0

    @property
    def has_any(self) -> bool:
        return bool(self._found)

    def refusing(self) -> tuple[ScanProblem, ...]:
        """The damaged files, and the root when it cannot be read."""
        found = [
            each for each in self._found.values() if each.problem.what == DAMAGED or not each.problem.path
        ]
        return tuple(each.as_core() for each in found[:REFUSING_MAX])

    def damaged(self) -> frozenset[bytes]:
        """All files whose bytes changed under the same stat."""
        return frozenset(path for path, each in self._found.items() if each.problem.what == DAMAGED)

    def held(self) -> HeldPaths:
        return self._some(HELD_LISTED_MAX, is_wanted=True)

    def reported(self) -> HeldPaths:
        """Paths that are never carried, and files that are open for writing: these keep nothing back."""
        found = self._some(REPORTED_MAX, is_wanted=False)
        listed = (*found.listed, *self._opened)
        return HeldPaths(listed, found.total + len(self._opened), found.entries, found.size_bytes)

    def _some(self, listed_max: int, *, is_wanted: bool) -> HeldPaths:
        refusing = {each.path for each in self.refusing()} | self.damaged()
        found = [each.as_core() for path, each in self._found.items() if path not in refusing]
        chosen = [each for each in found if is_held(each) is is_wanted]
        return HeldPaths(
            tuple(chosen[:listed_max]),
            len(chosen),
            sum(each.entries for each in chosen),
            sum(each.size_bytes for each in chosen),
        )


def probed(
    place: Place,
    definition: Definition,
    rules: Rules,
    local: Local,
    again: Sequence[ScanProblem],
    lets_go: frozenset[bytes] = frozenset(),
) -> tuple[list[bytes], list[bytes]]:
    """Which of these paths to look at with all below them, and which alone, because they still cannot be
    carried: a mount over 100,000 published files costs one look, not 100,000. A path that is let go of goes with all
    below."""
    large = tuple(each.path for each in again if each.entries > 1 and each.path not in lets_go)
    stuck: list[bytes] = []
    if large:
        alone = Cover((), large)
        found = scan(place, definition, _no_row, None, 0, covered=alone, local=local, rules=rules)
        stuck = [item.path for item in found if isinstance(item, Problem)]
    still = set(stuck)
    return [each.path for each in again if each.path not in still], stuck


def opened_among(problems: Sequence[ScanProblem]) -> Iterator[bytes]:
    """The files that were carried although a program had them open for writing."""
    return (each.path for each in problems if each.what == OPEN)


def _no_row(_: bytes) -> None:
    return None


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
