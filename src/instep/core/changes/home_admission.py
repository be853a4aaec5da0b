"""The floor of the ``HomeMachine`` that decides which changes of a set may be tried: age, losses, locks.

Implements the sections "What a home takes" and "Locks" of ``docs/spec/changes.md``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from instep.core.changes.home_facts import TOO_OLD_MS, Lock, RemovalCount, Submission
from instep.core.changes.home_locks import HomeLocks
from instep.core.guards.losses import is_git
from instep.model.change import ChangeSet, Fence, OutcomeKind, PathChange, PathOutcome
from instep.model.counts import counted, which
from instep.model.ids import Digest, NodeName
from instep.model.lock import LockGone
from instep.model.manifest.entry import Kind

TOO_NEW_MS = 86_400_000
WINDOW_MS = 3_600_000
"""For so long the removals of a partner are added up."""
BUCKET_MS = 60_000


@dataclass(frozen=True, slots=True)
class Admission:
    """Which paths of a set may be tried, and what became of the others already."""

    admitted: tuple[bytes, ...]
    decided: tuple[PathOutcome, ...]


class HomeAdmission(HomeLocks):
    """Asked twice for each set: before its contents are fetched, and when it is to be applied."""

    def _admit(self, submission: Submission) -> Admission:
        change_set = submission.change_set
        why = self._refused_as_a_whole(submission)
        if why is not None:
            return Admission((), refuse_all(change_set.changes, *why))
        token = self._honoured(submission)
        decided = tuple(
            PathOutcome(
                change.path, OutcomeKind.LOCKED, None, str(lock.owner), self._left_ms(lock), "", lock.reason
            )
            for change in change_set.changes
            if (lock := self._in_the_way(change, token)) is not None
        )
        locked = {outcome.path for outcome in decided}
        free = tuple(change for change in change_set.changes if change.path not in locked)
        if change_set.whole and decided:
            return Admission((), (*decided, *not_whole(free)))
        return Admission(tuple(change.path for change in free), decided)

    def _refused_as_a_whole(self, submission: Submission) -> tuple[str, str] | None:
        """The code and the reason for which every change of the set is refused."""
        change_set = submission.change_set
        age_ms = self._wall_ms - change_set.made_at_ms
        if age_ms > TOO_OLD_MS:
            return "too_old", f"it was made {age_ms // 3_600_000} hours ago, by the clocks of both nodes"
        if age_ms < -TOO_NEW_MS:
            return "too_new", f"it was made in {-age_ms // 3_600_000} hours, by the clocks of both nodes"
        removed = removals_of(change_set)
        if not removed or submission.source == self._config.node or submission.accepts_deletions:
            return None
        before = self._removed_by(submission.source)
        allowed = self._config.deletions.allowed(self._entries)
        if removed + before <= allowed:
            return None
        within = f", after {before} within an hour" if before else ""
        reason = (
            f"{removed} of {counted(self._entries, 'path')} would be removed by {submission.source}{within}, "
            f"{allowed} {which(allowed, 'is', 'are')} allowed without being asked; nothing was changed: "
            f"when that is meant, remove them on {self._config.node}"
        )
        return "max_deletions", reason

    def _removed_by(self, source: NodeName) -> int:
        return sum(each.removed for each in self._recent_removals() if each.source == source)

    def _recent_removals(self) -> list[RemovalCount]:
        """A clock that jumped far in either direction ends the hour."""
        return [each for each in self._facts.removals if abs(self._wall_ms - each.at_ms) < WINDOW_MS]

    def _count_removals(self, source: NodeName, removed: int) -> None:
        """One count a minute and partner."""
        kept = self._recent_removals()
        if removed and source != self._config.node:
            at_ms = self._wall_ms - self._wall_ms % BUCKET_MS
            same = next((each for each in kept if (each.source, each.at_ms) == (source, at_ms)), None)
            if same is not None:
                kept.remove(same)
                removed += same.removed
            kept.append(RemovalCount(source, at_ms, removed))
        if tuple(kept) != self._facts.removals:
            self._set(removals=tuple(kept))

    def _honoured(self, submission: Submission) -> Fence | None:
        """The token of the set, when its lock is in force and is of the submitting node."""
        token = submission.change_set.token
        return token if token is not None and self._is_in_force(token, submission.source) else None

    def _is_in_force(self, token: Fence, source: NodeName) -> bool:
        return any(lock.fence == token and lock.owner.node == source for lock in self._facts.locks)

    def _in_the_way(self, change: PathChange, token: Fence | None) -> Lock | None:
        """The lock of another owner that this change would go against."""
        lock = self._lock_of(change.path)
        if lock is not None and lock.fence != token:
            return lock
        if change.new is not None and change.new.kind is Kind.DIR:
            return None
        below = self._locks_below(change.path)
        return next((each for each in below if each.fence != token), None)

    def _expiry(self, change_set: ChangeSet, path: bytes) -> LockGone | None:
        """Why the lock under which this path was changed had ended; None where the token is of another path."""
        token = change_set.token
        if token is None:
            return None
        ended = self._ended_of(token)
        return self._gone(token) if ended is None or ended.path == path else None


def removals_of(change_set: ChangeSet) -> int:
    """How many paths the set removes. A path that moved is not one, and what a repository packs and prunes is none."""
    gone: Counter[Digest] = Counter()
    for change in change_set.changes:
        if change.new is None and change.base is not None and not is_git(change.path):
            gone[change.base.digest] += 1
        elif change.base is None and change.new is not None:
            gone[change.new.digest] -= 1
    return sum(max(0, count) for count in gone.values())


def refuse_all(changes: Iterable[PathChange], code: str, reason: str) -> tuple[PathOutcome, ...]:
    return tuple(
        PathOutcome(change.path, OutcomeKind.REFUSED, code=code, reason=reason) for change in changes
    )


def not_whole(changes: Iterable[PathChange]) -> tuple[PathOutcome, ...]:
    """The outcomes of paths that might have been changed, in a set of which all or nothing is made."""
    return refuse_all(changes, "not_whole", "another path of the change set could not be changed")
