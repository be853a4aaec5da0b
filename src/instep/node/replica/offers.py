"""Edits of other homes' paths in this tree: each is offered to its home, and put back where the home refuses it.

One ``Offering`` for each kept line does that, in the terms of that line; here they are divided by home and collected.
A path that the union shows under another name than its line has, or that several lines have, is not offered: it is
archived and restored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from instep.core.changes.offer_vocabulary import OwnedPath
from instep.core.follow.vocabulary import OffersChanged
from instep.core.union.divide import ForeignChange, Waiting
from instep.core.vocabulary import Trouble
from instep.model.ids import HeadRef, LineId, NodeName
from instep.model.paths import parent_of, shown
from instep.node.following.offering import Offering
from instep.node.replica.own_scan import TreeDivided
from instep.node.replica.port import OfferPort
from instep.node.runtime.runtime import Runtime
from instep.node.trees.drift_look import DRIFT_PATHS_MAX, DriftFound
from instep.tree.scan.compare import Difference


class ForeignPaths:
    """Paths of other homes that were changed here, as the own line's looks found them, until they are as laid. On the
    event loop. A look at some paths says nothing of the others."""

    def __init__(self) -> None:
        self.changes: dict[bytes, ForeignChange] = {}
        self.waiting: dict[bytes, Waiting] = {}
        """New paths that are not published before the change of another path is answered."""
        self.chmodded: tuple[bytes, ...] = ()

    def take(self, looked: TreeDivided) -> tuple[Waiting, ...]:
        """What a look found replaces what was known of the paths that it looked at. The renamed files that wait no
        more although their home kept the file under its old name: they are copies of this node's own now."""
        waited = tuple(self.waiting.values())
        if looked.is_full:
            self.changes.clear()
            self.waiting.clear()
        else:
            alone, trees = set(looked.alone), set(looked.trees)
            for known in (self.changes, self.waiting):
                for path in [
                    each for each in known if each in alone or any(up in trees for up in _upwards(each))
                ]:
                    del known[path]
        divided = looked.divided
        self.changes.update((change.path, change) for change in divided.foreign)
        self.waiting.update((each.path, each) for each in divided.waiting)
        self.chmodded = divided.chmodded
        published = {path for path, new in divided.own if new is not None}
        ownership = looked.laid.ownership
        return tuple(each for each in waited if each.path in published and ownership.of(each.behind))

    def of(self, origin: NodeName) -> tuple[list[bytes], list[bytes]]:
        """The changed paths of one home, and the new paths that wait for the answer to one of them."""
        changed = [c.path for c in self.changes.values() if any(each.origin == origin for each in c.sources)]
        return changed, [each.path for each in self.waiting.values() if each.behind in changed]

    @property
    def paths(self) -> tuple[bytes, ...]:
        return tuple(self.changes)


class RottenPaths:
    """Paths of other homes whose bytes changed here under an unchanged time and size: damage by the disk, and no edit
    that its home would want. Kept in the state before their stats are forgotten, so that no restart makes edits of
    them. ``touched`` has the tree looked at there; ``homes_of`` names the nodes that can send such a path."""

    def __init__(
        self,
        runtime: Runtime,
        line: LineId,
        touched: Callable[[tuple[bytes, ...], bool], None],
        homes_of: Callable[[bytes], Iterable[NodeName]],
    ) -> None:
        self._runtime = runtime
        self._line = line
        self._touched = touched
        self._homes_of = homes_of
        self._key = f"rotten/{line.fileset}"
        raw = runtime.store.get(self._key)
        self.paths: frozenset[bytes] = (
            frozenset() if raw is None else msgspec.msgpack.decode(raw, type=frozenset[bytes])
        )

    def doubt(self, paths: Iterable[bytes]) -> None:
        """These are restored, and offered to no home."""
        found = tuple(paths)
        self._save(self.paths | frozenset(found))
        self._runtime.store.delete_stat_rows(self._line.fileset, found)
        self._touched(found, False)

    def drop(self, paths: Iterable[bytes]) -> None:
        """These were looked at, and are as laid."""
        self._save(self.paths - frozenset(paths))

    def restored(self, paths: Iterable[bytes]) -> None:
        """These paths of the tree were archived and restored."""
        mended = self.paths & frozenset(paths)
        for path in sorted(mended):
            name, nodes = shown(path), " or ".join(self._homes_of(path)) or "this node's own files"
            text = f"{name} had other bytes under an unchanged time and size; it was restored from {nodes}"
            self._runtime.note("file_mended", text, self._line, path=name)
        self._save(self.paths - mended)

    def _save(self, paths: frozenset[bytes]) -> None:
        if paths != self.paths:
            self._runtime.store.put(self._key, msgspec.msgpack.encode(sorted(paths)))
            self.paths = paths


class ReplicaOffers:
    """As the union's service knows the offers of one line."""

    def __init__(self, port: OfferPort) -> None:
        self._port = port
        self._told = OffersChanged()
        self._of: dict[NodeName, OffersChanged] = {}

    @property
    def _offerings(self) -> dict[NodeName, Offering]:
        return self._port.offerings

    async def looked(self, looked: TreeDivided) -> None:
        """The own line looked at the tree."""
        by_home: dict[NodeName, list[Difference]] = {}
        seen = {*looked.alone, *(self._port.rotten.paths if looked.is_full else ())}
        self._port.rotten.drop(seen - self._port.foreign_changes().keys())
        for change in looked.divided.foreign:
            source = self._source_of(change)
            if source is not None:
                by_home.setdefault(source.origin, []).append(
                    Difference(source.path, source.entry, change.found)
                )
        offered = {path: origin for origin, offering in self._offerings.items() for path in offering.kept()}
        for change in looked.divided.foreign:
            if not change.sources and change.path in offered:
                gone = Difference(change.path, None, change.found)
                by_home.setdefault(offered[change.path], []).append(gone)
        for origin, offering in list(self._offerings.items()):
            base, found = looked.laid.part_of(origin), by_home.get(origin, [])
            if base is not None and (found or offering.owned):
                await offering.looked(base, _as_found(found, looked))
        self.tell()

    def tell(self) -> None:
        """Say which paths stay as they are, and which are put back."""
        pending = [path for told in self._of.values() for path in told.pending]
        lost = [path for told in self._of.values() for path in told.lost]
        changes = self._port.foreign_changes()
        lost += [path for path, change in changes.items() if self._source_of(change) is None]
        trouble = next((told.trouble for told in self._of.values() if told.trouble is not None), None)
        told = OffersChanged(tuple(sorted(set(pending))), tuple(sorted(set(lost) - set(pending))), trouble)
        if told != self._told:
            self._told = told
            self._port.offers_changed(told)

    def _source_of(self, change: ForeignChange) -> Any:
        """The line that a changed path is offered to; None for what is put back, damage too."""
        return None if change.path in self._port.rotten.paths else offered_source(change)

    def owns(self, origin: NodeName, told: OffersChanged) -> None:
        """The paths of one line that its offering owns."""
        self._of[origin] = told
        self.tell()

    def kept(self) -> tuple[bytes, ...]:
        """The paths that no switch touches; asked in the tree's thread."""
        return tuple(path for offering in list(self._offerings.values()) for path in offering.kept())

    def reached(self, _: HeadRef | None) -> None:
        """The tree holds another union: each line's part says more, once it is live."""

    def reached_all(self) -> None:
        for origin, offering in self._offerings.items():
            offering.reached(self._port.live_of(origin))

    def forget(self, origin: NodeName) -> None:
        """The line of this home is let go: no path waits for its answer."""
        self._of.pop(origin, None)
        self.tell()

    def set_aside(self, paths: tuple[bytes, ...]) -> None:
        """These paths were archived and restored."""
        self._port.rotten.restored(paths)
        for offering in self._offerings.values():
            offering.set_aside(paths)

    def home_changed(self) -> None:
        """Of a union no node is the home."""

    def retry(self) -> None:
        for offering in self._offerings.values():
            offering.retry()

    def reconfigure(self, _: Any) -> None:
        """Each offering gets the settings of its own line."""

    def offered_edits(self) -> tuple[tuple[OwnedPath, ...], Trouble | None]:
        found = [offering.offered_edits() for offering in self._offerings.values()]
        owned = tuple(each for edits, _ in found for each in edits)
        return owned, next((trouble for _, trouble in found if trouble is not None), None)

    def judge_removals(self, *, are_accepted: bool) -> None:
        for offering in self._offerings.values():
            offering.judge_removals(are_accepted=are_accepted)


def offered_source(change: ForeignChange) -> Any:
    """The one line that a changed path is offered to, None where it is not offered to any."""
    if len(change.sources) != 1:
        return None
    (source,) = change.sources
    return source if source.path == change.path else None


def _as_found(differences: Iterable[Difference], looked: TreeDivided) -> DriftFound:
    found = tuple(differences)
    first = found[:DRIFT_PATHS_MAX]
    return DriftFound(tuple(each.path for each in first), len(found), None, first, looked.alone, looked.trees)


def _upwards(path: bytes) -> Iterator[bytes]:
    while path:
        yield path
        path = parent_of(path)
