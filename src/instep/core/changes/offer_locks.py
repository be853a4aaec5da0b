"""The floor of the ``OfferMachine`` that asks the home for locks on behalf of programs here."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from instep.core import vocabulary as w
from instep.core.changes import offer_vocabulary as o
from instep.core.changes.offer_sets import OfferSets
from instep.core.changes.offer_vocabulary import Edit, EditState, HeldLock
from instep.errors import Retry
from instep.model.change import Fence, PathOutcome
from instep.model.ids import EMPTY_DIGEST, HeadRef
from instep.model.lock import (
    LockAnswer,
    LockEnd,
    LockEnded,
    LockGone,
    LockGranted,
    LockOutdated,
    LockRefused,
)
from instep.model.paths import shown

ASKS_MAX = 256
NEWS_MAX = 64


@dataclass(slots=True)
class AskedLock:
    """A lock that the home was asked for. ``at_ms``: when, so that its time is counted early rather than late."""

    wanted: o.LockWanted
    at_ms: int


class ReleasePhase(enum.Enum):
    LOOK = "look"
    SUBMIT = "submit"
    UNLOCK = "unlock"


@dataclass(slots=True)
class Release:
    """A program is done with its path: looked at, submitted if it was changed, unlocked."""

    wanted: o.ReleaseWanted
    held: HeldLock
    phase: ReleasePhase = ReleasePhase.LOOK
    req: int | None = None
    outcome: PathOutcome | None = None
    head: HeadRef | None = None


class OfferLocks(OfferSets):
    """A path is owned, durably, before its lock is answered."""

    _asked: dict[int, AskedLock]
    _releases: list[Release]

    _news: dict[Fence, LockGone]
    """Locks that ended lately: their grants may still be on the way."""

    def _forget_locks(self) -> None:
        self._asked, self._releases, self._news = {}, [], {}

    # --- acquire ----------------------------------------------------------------------------------------------

    def _lock_wanted(self, event: o.LockWanted) -> None:
        trouble = self._lock_trouble(event.path)
        if trouble is not None:
            self._give(event.request, None, trouble=trouble)
            return
        held = self._held_at(event.path)
        fence = held.fence if held is not None and held.owner == event.owner and not event.steals else None
        if event.fence is not None and event.fence != fence:
            self._give(event.request, self._how_lost(event.path, event.owner, event.fence))
            return
        if event.path not in self._owned:
            self._own(event.path, EditState.ASKED, None, None)
        req = self._next_req()
        self._asked[req] = AskedLock(event, self._now)
        self._out.append(o.AskLock(req, event, fence))

    def _lock_trouble(self, path: bytes) -> w.Trouble | None:
        if not self._is_up:
            return self._unreachable()
        if len(self._asked) >= ASKS_MAX or len(self._facts.held) >= self._config.locks_max:
            return w.Trouble("busy", "too many locks are asked for or held here", Retry.LATER, 7)
        owned = self._owned.get(path)
        if owned is not None and owned.state in (EditState.LOSING, EditState.BLOCKED):
            reason = f"an edit of {shown(path)} made here before is not settled yet ({owned.state.value})"
            return w.Trouble("edit_pending", reason, Retry.LATER, 6, f"instep status {self.line.fileset}")
        return None

    def _unreachable(self) -> w.Trouble:
        reason = f"the home of {self.line.fileset} cannot be asked, and only it grants locks"
        return w.Trouble("home_unreachable", reason, Retry.LATER, 7, "instep status")

    def _lock_answered(self, event: o.LockAnswered) -> None:
        request = self._asked.pop(event.req, None)
        if request is not None:
            self._took_lock(request, event.answer)
            return
        release = next((each for each in self._releases if each.req == event.req), None)
        if release is not None and release.phase is ReleasePhase.UNLOCK:
            self._unlocked(release, event.answer)

    def _took_lock(self, request: AskedLock, answer: LockAnswer) -> None:
        wanted = request.wanted
        held = self._held_at(wanted.path)
        if isinstance(answer, LockGranted):
            answer = self._hold_granted(request, answer, held)
        elif isinstance(answer, LockGone) and held is not None and held.owner == wanted.owner:
            self._lock_lost(held, answer)
        self._let_asked_go(wanted.path)
        self._give(wanted.request, answer)

    def _is_as_asked(self, edit: Edit) -> bool:
        """Whether the file is still the one whose lock was asked for, beside a generation that was not laid."""
        digest = EMPTY_DIGEST if edit.found is None else edit.found.digest
        return any(
            each.wanted.path == edit.path and each.wanted.base == digest for each in self._asked.values()
        )

    def _let_asked_go(self, path: bytes) -> None:
        """No lock came of it. A generation that was not laid meanwhile is laid now; an edit goes on without a lock."""
        owned = self._owned.get(path)
        if owned is None or owned.state is not EditState.ASKED:
            return
        if any(each.wanted.path == path for each in self._asked.values()):
            return
        if owned.is_stale:
            self._superseded(owned)
        elif self._is_edited(owned) and self._config.offers:
            self._turn(owned, EditState.WAITING)
        else:
            del self._owned[path]

    def _hold_granted(
        self, request: AskedLock, granted: LockGranted, held: HeldLock | None
    ) -> LockGranted | LockGone | LockOutdated:
        """A grant whose answer comes when its time is over, or behind the news of its end, is none: the file may have
        been replaced here since it was asked for."""
        wanted, until_ms = request.wanted, request.at_ms + granted.left_ms
        ended = self._news.get(granted.fence)
        if held is not None and held.fence == granted.fence:
            until_ms = max(until_ms, held.until_ms)
        elif held is not None and held.fence.counter > granted.fence.counter:
            ended = ended or LockGone(LockEnd.STOLEN, str(held.owner))
        if ended is not None or until_ms <= self._now:
            return ended or LockGone(LockEnd.LAPSED)
        is_refresh = held is not None and held.fence == granted.fence
        owned = self._owned.get(wanted.path)
        if not is_refresh and (owned is None or owned.state in (EditState.LOSING, EditState.BLOCKED)):
            # The file whose lock was asked for was set aside meanwhile, or is about to be.
            self._out.append(o.AskRelease(self._next_req(), wanted.path, granted.fence))
            return LockOutdated(granted.base, self._reached)
        if held is not None and not is_refresh:
            self._lock_lost(held, LockGone(LockEnd.STOLEN, str(wanted.owner), wanted.reason))
        self._hold(
            HeldLock(wanted.path, wanted.owner, granted.fence, granted.left_ms, until_ms, granted.base)
        )
        self._edit_under(granted, wanted.path)
        return granted

    def _edit_under(self, granted: LockGranted, path: bytes) -> None:
        """The granted lock stands for the file as it is here: the asker named its digest."""
        owned = self._owned[path]
        if owned.state is EditState.ASKED:
            found = owned.found if self._is_edited(owned) else granted.base
            self._own(
                path, EditState.EDITING, granted.base, found, token=granted.fence, is_stale=owned.is_stale
            )
        elif owned.state is EditState.ACCEPTED:
            self._own(
                path, EditState.EDITING, granted.base, granted.base, head=owned.head, token=granted.fence,
                is_on_its_way=not owned.is_stale, above=owned.above,
            )  # fmt: skip
        elif owned.state is EditState.WAITING:
            self._turn(owned, EditState.EDITING, base=granted.base, here=granted.base, token=granted.fence)
        else:
            self._turn(owned, owned.state, token=granted.fence)

    def _lock_ask_failed(self, event: o.LockAskFailed) -> None:
        """A lock that the home granted all the same ends by its time."""
        request = self._asked.pop(event.req, None)
        if request is not None:
            self._let_asked_go(request.wanted.path)
            self._give(request.wanted.request, None, trouble=event.trouble)
            return
        release = next((each for each in self._releases if each.req == event.req), None)
        if release is not None:
            self._releases.remove(release)
            self._give_release(release, None, event.trouble)

    def _lock_news(self, event: o.LockNews) -> None:
        held = self._held_at(event.path)
        self._news[event.fence] = event.gone
        if len(self._news) > NEWS_MAX:
            del self._news[next(iter(self._news))]
        if held is not None and held.fence == event.fence:
            self._lock_lost(held, event.gone)

    # --- release ----------------------------------------------------------------------------------------------

    def _release_wanted(self, event: o.ReleaseWanted) -> None:
        held = self._held_at(event.path)
        if held is None or (event.fence is not None and event.fence != held.fence):
            self._give(event.request, self._how_lost(event.path, event.owner, event.fence))
        elif held.owner != event.owner and event.fence is None:
            reason = f"the lock of {shown(event.path)} is of {held.owner}"
            self._give(event.request, LockRefused("not_allowed", reason, exit_code=5))
        elif not self._is_up:
            self._give(event.request, None, trouble=self._unreachable())
        elif any(each.held.path == event.path for each in self._releases) or len(self._releases) >= ASKS_MAX:
            trouble = w.Trouble("busy", "this lock is being released already", Retry.LATER, 7)
            self._give(event.request, None, trouble=trouble)
        else:
            self._releases.append(Release(event, held))

    def _go_on_releasing(self) -> None:
        """A set that is under way for the path is waited for: the look comes after it."""
        for release in tuple(self._releases):
            owned = self._owned.get(release.held.path)
            is_offered = owned is not None and owned.state is EditState.OFFERED
            is_ready = release.req is None and self._backoff.is_ready("look", self._now)
            if release.phase is ReleasePhase.LOOK and is_ready and not is_offered:
                release.req = self._order_look((release.held.path,))
            elif release.phase is ReleasePhase.SUBMIT and not is_offered:
                self._submit_to_release(release)

    def _submit_to_release(self, release: Release) -> None:
        """The edit goes first, and the lock ends in the same act."""
        owned = self._owned.get(release.held.path)
        if owned is None or owned.state is not EditState.EDITING or not self._is_edited(owned):
            self._unlock(release)
        elif self._facts.submitting is None and self._job is None:
            self._make_set((owned,), release.held.fence, release.wanted)

    def _unlock(self, release: Release) -> None:
        release.phase, release.req = ReleasePhase.UNLOCK, self._next_req()
        self._out.append(o.AskRelease(release.req, release.held.path, release.held.fence))

    def _release_looked(self, event: o.PathsLooked) -> None:
        release = next((each for each in self._releases if each.req == event.req), None)
        if release is not None and release.phase is ReleasePhase.LOOK:
            release.req = None
            if not self._is_old(event.head):
                release.phase = ReleasePhase.SUBMIT

    def _release_not_looked(self, event: o.LookFailed) -> None:
        release = next((each for each in self._releases if each.req == event.req), None)
        if release is not None and release.phase is ReleasePhase.LOOK:
            self._releases.remove(release)
            self._give_release(release, None, event.trouble)

    def _submitted_to_release(self, outcome: PathOutcome, head: HeadRef | None) -> None:
        """The answer to the set of a release. The lock ended with it, unless the home did not make the change. The
        program may have gone meanwhile: the lock ends all the same."""
        release = next((each for each in self._releases if each.held.path == outcome.path), None)
        held = self._held_at(outcome.path)
        if release is not None and release.phase is ReleasePhase.SUBMIT:
            release.outcome, release.head = outcome, head
            if outcome.is_made:
                self._unlocked(release, LockEnded(outcome.path, LockEnd.RELEASED))
            else:
                self._unlock(release)
        elif held is not None:
            if not outcome.is_made:
                self._out.append(o.AskRelease(self._next_req(), held.path, held.fence))
            self._let_go(held)

    def _fail_releases(self, trouble: w.Trouble, *, of: bytes | None = None) -> None:
        """Answer the programs that wait. A set that was made for one goes on by itself, and ends the lock."""
        for release in tuple(self._releases):
            if of is None or (release.held.path == of and release.phase is ReleasePhase.SUBMIT):
                self._releases.remove(release)
                self._give_release(release, None, trouble)

    def _unlocked(self, release: Release, answer: LockAnswer) -> None:
        self._releases.remove(release)
        held = self._held_at(release.held.path)
        if held is not None and held.fence == release.held.fence:
            self._let_go(held)
        self._give_release(release, answer, None)

    def _give_release(self, release: Release, answer: LockAnswer | None, trouble: w.Trouble | None) -> None:
        self._out.append(
            o.GiveLockAnswer(release.wanted.request, answer, release.outcome, release.head, trouble)
        )

    def _give(self, request: int, answer: LockAnswer | None, *, trouble: w.Trouble | None = None) -> None:
        self._out.append(o.GiveLockAnswer(request, answer, trouble=trouble))
