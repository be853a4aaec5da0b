"""Edits of other homes' paths in this tree: each is offered to its home, and put back where the home refuses it.

One ``Offering`` for each kept line does that, in the terms of that line; here they are divided by home and collected.
A path that the union shows under another name than its line has, or that several lines have, is not offered: it is
archived and restored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from instep.core.changes.offer_vocabulary import OwnedPath
from instep.core.follow.vocabulary import OffersChanged
from instep.core.union.divide import ForeignChange
from instep.core.vocabulary import Trouble
from instep.model.ids import HeadRef, NodeName
from instep.node.following.offering import Offering
from instep.node.replica.own_scan import TreeDivided
from instep.node.replica.port import OfferPort
from instep.node.trees.drift_look import DRIFT_PATHS_MAX, DriftFound
from instep.tree.scan.compare import Difference


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
        for change in looked.divided.foreign:
            source = offered_source(change)
            if source is not None:
                by_home.setdefault(source.origin, []).append(
                    Difference(source.path, source.entry, change.found)
                )
        for origin, offering in list(self._offerings.items()):
            base, found = looked.laid.part_of(origin), by_home.get(origin, [])
            if base is not None and (found or offering.owned):
                await offering.looked(base, _as_found(found, looked))
        self.tell()

    def tell(self) -> None:
        """Say which paths stay as they are, and which are put back."""
        pending = [path for told in self._of.values() for path in told.pending]
        lost = [path for told in self._of.values() for path in told.lost]
        lost += [
            path for path, change in self._port.foreign_changes().items() if offered_source(change) is None
        ]
        trouble = next((told.trouble for told in self._of.values() if told.trouble is not None), None)
        told = OffersChanged(tuple(sorted(set(pending))), tuple(sorted(set(lost) - set(pending))), trouble)
        if told != self._told:
            self._told = told
            self._port.offers_changed(told)

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

    def set_aside(self, paths: tuple[bytes, ...]) -> None:
        """These paths were archived and restored."""
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
