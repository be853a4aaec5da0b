"""The shared state of the ``HomeMachine``'s floors: facts, the locks in force, and one save before all that needs
it."""

from __future__ import annotations

from bisect import bisect_left

from instep.core import vocabulary as w
from instep.core.backoff import Backoff, Chance
from instep.core.changes import home_vocabulary as h
from instep.core.changes.home_facts import EndedLock, HomeConfig, HomeFacts, Lock
from instep.core.changes.home_vocabulary import HomeEffect
from instep.core.facts_book import FactsBook
from instep.errors import Retry
from instep.model.change import Fence
from instep.model.ids import HeadRef, LineId, NodeName
from instep.model.lock import LockEnd, LockGone
from instep.model.paths import is_below, shown, sort_key

GRACE_MAX_MS = 10_000
ENDED_MAX = 200
"""So many ended locks are remembered with their reason."""
_EARLY = (h.KeepChange, h.KeepAnswer)
"""They come before the save that says what they are for, so that no facts name a row that is not durable."""


class HomeBook(FactsBook[HomeFacts, HomeEffect]):
    """``rng`` is for jitter; ``facts`` are what ``SaveHome`` carried last."""

    def __init__(self, line: LineId, config: HomeConfig, rng: Chance, facts: HomeFacts | None = None) -> None:
        super().__init__(facts or HomeFacts())
        self.line = line
        self._config = config
        self._backoff = Backoff(rng)
        self._now = 0
        self._wall_ms = 0
        self._is_started = False
        self._lost_to: h.HomeLost | None = None
        self._head: HeadRef | None = None
        self._entries = 0
        self._timer_ms: int | None = None

    def _ordered(self) -> tuple[HomeEffect, ...]:
        """The effects of this step, with a save before all that depends on it."""
        if self._facts == self._saved:
            return tuple(self._out)
        self._saved = self._facts
        early = [effect for effect in self._out if isinstance(effect, _EARLY)]
        late = [effect for effect in self._out if not isinstance(effect, _EARLY)]
        return (*early, h.SaveHome(self._facts), *late)

    def _may_ask(self, source: NodeName) -> bool:
        return source == self._config.node or source in self._config.offers_from

    def _not_taken(self, source: NodeName) -> w.Trouble | None:
        """Why nothing of this node is taken now."""
        fileset = self.line.fileset
        if not self._may_ask(source):
            return w.Trouble(
                "not_allowed",
                f"{self._config.node} takes no changes of {fileset} from {source}",
                Retry.NEVER,
                5,
                f"on {self._config.node}: instep fileset set {fileset} offers_from={source}",
                (("node", self._config.node), ("source", source)),
            )
        if self._lost_to is not None:
            writer = self._lost_to.writer
            is_known = f": {writer} does" if writer is not None else ""
            reason = f"{self._config.node} does not write {fileset} any more{is_known}"
            return w.Trouble("not_the_writer", reason, Retry.LATER, 6, None, (("writer", writer),))
        return None

    # --- locks in force ---------------------------------------------------------------------------------------

    def _lock_of(self, path: bytes) -> Lock | None:
        index = self._place_of(path)
        locks = self._facts.locks
        return locks[index] if index < len(locks) and locks[index].path == path else None

    def _place_of(self, path: bytes) -> int:
        return bisect_left(self._facts.locks, sort_key(path), key=lambda lock: sort_key(lock.path))

    def _locks_below(self, directory: bytes) -> tuple[Lock, ...]:
        index, found = self._place_of(directory), []
        for lock in self._facts.locks[index:]:
            if is_below(lock.path, directory):
                found.append(lock)
            elif lock.path != directory:
                break
        return tuple(found)

    def _put_lock(self, lock: Lock) -> None:
        """Add the lock, or replace the one of its path."""
        index, locks = self._place_of(lock.path), self._facts.locks
        is_there = index < len(locks) and locks[index].path == lock.path
        self._set(locks=(*locks[:index], lock, *locks[index + is_there :]))

    def _end_lock(self, lock: Lock, why: LockEnd, by: str = "", reason: str = "") -> None:
        ended = EndedLock(lock.path, lock.owner, lock.fence, why, by, reason)
        self._set(
            locks=tuple(each for each in self._facts.locks if each is not lock),
            ended=(*self._facts.ended, ended)[-ENDED_MAX:],
        )
        if why is LockEnd.RELEASED:
            return
        self._out.append(h.TellHolder(ended))
        said = f"{shown(lock.path)}: the lock of {lock.owner} ended, {_WORDS[why]}"
        said += f" by {by}" if by else ""
        said += f": {reason}" if reason else ""
        self._note("lock_ended", said, path=shown(lock.path), owner=str(lock.owner), why=why.value)

    def _gone(self, fence: Fence) -> LockGone:
        """Why the lock of this token is not in force."""
        ended = self._ended_of(fence)
        if ended is not None:
            return LockGone(ended.why, ended.by, ended.reason)
        why = LockEnd.WRITER_CHANGED if fence.epoch != self._facts.epoch else LockEnd.UNKNOWN
        return LockGone(why)

    def _ended_of(self, fence: Fence) -> EndedLock | None:
        return next((each for each in reversed(self._facts.ended) if each.fence == fence), None)

    def _left_ms(self, lock: Lock) -> int:
        """How long others are kept out at most, when the lock is not refreshed."""
        return max(0, _end_of(lock) - self._now)

    def _lapse(self) -> None:
        for lock in self._facts.locks:
            if _end_of(lock) <= self._now:
                self._end_lock(lock, LockEnd.LAPSED)

    def _arm(self) -> None:
        """Wake when the next lock lapses."""
        ends = min(map(_end_of, self._facts.locks), default=None)
        if ends != self._timer_ms:
            self._timer_ms = ends
            self._out.append(w.SetTimer("lock-end", ends))


def _end_of(lock: Lock) -> int:
    """From when on others may have the path: the deadline, and a grace in which only its owner may go on."""
    return lock.deadline_ms + min(lock.ttl_ms // 2, GRACE_MAX_MS)


_WORDS = {
    LockEnd.RELEASED: "released",
    LockEnd.LAPSED: "its time was over",
    LockEnd.BROKEN: "broken",
    LockEnd.STOLEN: "taken",
    LockEnd.HOME_EDIT: "the file was changed at the home itself",
    LockEnd.WRITER_CHANGED: "another node or epoch writes the line",
    LockEnd.UNKNOWN: "nothing is known of it",
}
