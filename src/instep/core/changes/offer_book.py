"""The shared state of the ``OfferMachine``'s floors: owned paths, held locks, the set under way, and one save."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from blake3 import blake3

from instep.core import vocabulary as w
from instep.core.backoff import Backoff
from instep.core.changes import offer_vocabulary as o
from instep.core.changes.offer_vocabulary import EditState, HeldLock, OfferEffect, OfferFacts, OwnedPath
from instep.core.facts_book import FactsBook
from instep.model.change import NONCE_BYTES, Fence, is_alike
from instep.model.ids import HeadRef, LineId
from instep.model.lock import LockEnd, LockGone, LockOwner
from instep.model.manifest.entry import Entry
from instep.model.paths import shown, sort_key

LOST_MAX = 64
"""So many locks that ended are remembered with their reason."""
OWNED_MAX = 20_000
"""So many paths are owned at once; further edits are found by the next look at the whole tree."""


class DrawnValues:
    """Nonces and jitter out of one random seed that was handed in."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._count = 0

    def bytes_of(self, size: int) -> bytes:
        self._count += 1
        return blake3(self._seed + self._count.to_bytes(8, "big")).digest(length=size)

    def random(self) -> float:
        return int.from_bytes(self.bytes_of(6), "big") / (1 << 48)


@dataclass(slots=True)
class SubmitJob:
    """The one submission under way."""

    req: int


class OfferBook(FactsBook[OfferFacts, OfferEffect]):
    """``facts`` are what ``SaveOffers`` carried last."""

    _unseen: set[bytes]
    """Paths that must be looked at: the newest look is older than the newest word of the home about them."""

    def __init__(self, line: LineId, config: o.OfferConfig, facts: OfferFacts | None = None) -> None:
        super().__init__(facts or OfferFacts())
        self.line = line
        self._config = config
        self._owned = {each.path: each for each in self._facts.owned}
        self._told: tuple[OwnedPath, ...] | None = None
        """The owned paths that the follower was sent last."""
        self._draws = DrawnValues(b"")
        self._backoff = Backoff(self._draws)
        self._now = 0
        self._wall_ms = 0
        self._is_started = False
        self._is_up = False
        self._job: SubmitJob | None = None
        self._refused: w.Trouble | None = None
        """Why the home takes nothing from here, until something is changed."""
        self._failed: w.Trouble | None = None
        """Why the last attempt failed, while it is retried."""
        self._reached: HeadRef | None = None
        self._entries = 0
        self._reported: o.ReportOffers | None = None
        self._timer_ms: int | None = None

    def _nonce(self) -> bytes:
        return self._draws.bytes_of(NONCE_BYTES)

    def _ordered(self) -> tuple[OfferEffect, ...]:
        """The effects of this step: first the save, then the owned paths, then all that depends on both."""
        owned = tuple(sorted(self._owned.values(), key=_key))
        if owned != self._facts.owned:
            self._set(owned=owned)
        first: list[OfferEffect] = []
        if self._facts != self._saved:
            self._saved = self._facts
            first.append(o.SaveOffers(self._facts))
        if self._is_started and owned != self._told:
            self._told = owned
            first.append(o.OwnPaths(owned))
        return (*first, *self._out)

    # --- owned paths ------------------------------------------------------------------------------------------

    def _own(
        self, path: bytes, state: EditState, base: Entry | None, found: Entry | None, **more: object
    ) -> None:
        """``base`` looks here as it does at the home, unless ``here`` says otherwise."""
        self._owned[path] = OwnedPath(path, state, base, found, **{"here": base, **more})  # type: ignore[arg-type]

    def _turn(self, owned: OwnedPath, state: EditState, **changes: object) -> None:
        self._owned[owned.path] = msgspec.structs.replace(owned, state=state, **changes)

    def _is_edited(self, owned: OwnedPath) -> bool:
        return not is_alike(owned.here, owned.found)

    def _has_arrived(self, owned: OwnedPath) -> bool:
        """Whether the tree's generation is one that has an accepted edit, unless the path was changed again."""
        if owned.head is not None or self._reached is None:
            return self._has_reached(owned.head)
        return owned.above is None or self._reached.position > owned.above.position

    def _has_reached(self, head: HeadRef | None) -> bool:
        """Whether the tree holds this generation, or a newer one."""
        return head is not None and self._reached is not None and self._reached.position >= head.position

    # --- locks that programs here hold ------------------------------------------------------------------------

    def _held_at(self, path: bytes) -> HeldLock | None:
        return next((held for held in self._facts.held if held.path == path), None)

    def _hold(self, held: HeldLock) -> None:
        others = (each for each in self._facts.held if each.path != held.path)
        self._set(held=tuple(sorted((*others, held), key=_key)))

    def _let_go(self, held: HeldLock) -> None:
        """The lock is over, for whichever reason. Its edit goes on as one without a lock, under the token that says
        when it was made. A save that no look has seen yet may be there: the path is let go only after a look."""
        self._set(held=tuple(each for each in self._facts.held if each is not held))
        owned = self._owned.get(held.path)
        if owned is None or owned.state is not EditState.EDITING:
            return
        if self._is_edited(owned):
            self._turn(owned, EditState.WAITING)
        elif owned.is_on_its_way:
            self._turn(owned, EditState.ACCEPTED)
        else:
            self._turn(owned, EditState.ACCEPTED, is_stale=True)
            self._unseen.add(held.path)

    def _lock_lost(self, held: HeldLock, gone: LockGone) -> None:
        """The lock ended without its owner's asking."""
        self._let_go(held)
        if gone.why is LockEnd.RELEASED:
            return
        lost = o.LostLock(held.path, held.owner, held.fence, gone)
        self._set(lost=(*self._facts.lost, lost)[-LOST_MAX:])
        by = f" by {gone.by}" if gone.by else ""
        reason = f": {gone.reason}" if gone.reason else ""
        said = f"{shown(held.path)}: the lock of {held.owner} is over ({gone.why.value}{by}{reason})"
        self._note("lock_lost", said, path=shown(held.path), owner=str(held.owner), why=gone.why.value)

    def _how_lost(self, path: bytes, owner: LockOwner, fence: Fence | None) -> LockGone:
        """Why the owner's last lock of the path, or the one of the token, is not in force."""
        for lost in reversed(self._facts.lost):
            if lost.path == path and lost.owner == owner and fence in (None, lost.fence):
                return lost.gone
        return LockGone(LockEnd.UNKNOWN)

    def _lapse(self) -> None:
        for held in self._facts.held:
            if held.until_ms <= self._now:
                self._lock_lost(held, LockGone(LockEnd.LAPSED))

    def _arm(self) -> None:
        first = min((held.until_ms for held in self._facts.held), default=None)
        if first != self._timer_ms:
            self._timer_ms = first
            self._out.append(w.SetTimer("lock-end", first))


def _key(each: OwnedPath | HeldLock) -> bytes:
    return sort_key(each.path)
