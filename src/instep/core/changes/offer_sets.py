"""The floor of the ``OfferMachine`` that follows edits: from a look at the tree to a change set, its answer, the
archive."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from instep.core import vocabulary as w
from instep.core.changes import offer_vocabulary as o
from instep.core.changes.offer_book import SubmitJob
from instep.core.changes.offer_edits import OfferEdits
from instep.core.changes.offer_vocabulary import EditState, HeldLock, OwnedPath
from instep.errors import Retry
from instep.model.change import (
    CHANGE_SET_VERSION,
    ChangeAnswer,
    ChangeSet,
    Fence,
    OutcomeKind,
    PathChange,
    PathOutcome,
    is_alike,
)
from instep.model.counts import counted, which
from instep.model.ids import HeadRef
from instep.model.lock import LockEnd, LockGone
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import shown, sort_key

CHANGES_PER_SET = 1_000
WINDOW_MS = 3_600_000
"""For so long removals that were offered are added to the next."""
STALE_MS = 86_400_000
"""A set that is older by this node's own clock may be refused for its age alone, and is made anew."""
_AGES = ("too_old", "too_new")
_NAMED_MAX = 5


class OfferSets(OfferEdits):
    """The newest look says which edits are offered."""

    _removed: list[tuple[int, int]]
    """When removals were offered, and how many."""
    _judged: set[bytes]
    """Removals that an operator accepted."""

    def _forget_offers(self) -> None:
        self._removed, self._judged = [], set()

    # --- what is submitted ------------------------------------------------------------------------------------

    def _submit_next(self) -> None:
        """One set at a time; one that has no answer yet is sent again before anything new is made."""
        if self._job is not None or not self._is_up or self._refused is not None:
            return
        if not self._backoff.is_ready("submit", self._now):
            return
        if self._facts.submitting is None and not (self._submit_under_lock() or self._submit_free()):
            return
        change_set = self._facts.submitting
        assert change_set is not None
        self._job = SubmitJob(self._next_req())
        self._out.append(o.SubmitOffer(self._job.req, change_set.id, change_set, self._facts.releases))

    def _submit_under_lock(self) -> bool:
        """Each lock has a set of its own, because a set has one token."""
        for owned in self._in_order():
            is_locked = owned.state is EditState.EDITING and self._is_edited(owned)
            if is_locked or (owned.state is EditState.WAITING and owned.token is not None):
                self._make_set((owned,), owned.token)
                return True
        return False

    def _submit_free(self) -> bool:
        waiting = [each for each in self._in_order() if each.state is EditState.WAITING]
        if waiting:
            self._block_removals(waiting)
            waiting = [each for each in self._in_order() if each.state is EditState.WAITING]
        if not waiting:
            return False
        chosen = _first_of(waiting)
        removed = sum(each.found is None for each in chosen)
        if removed:
            self._removed.append((self._now, removed))
        self._make_set(sorted(chosen, key=_path_key), None)
        return True

    def _block_removals(self, waiting: list[OwnedPath]) -> None:
        """More removals than go unasked wait for an operator; moved files are no removals."""
        self._removed = [each for each in self._removed if self._now - each[0] < WINDOW_MS]
        new = {each.found.digest for each in waiting if each.base is None and each.found is not None}
        gone = [
            each
            for each in waiting
            if each.found is None
            and each.path not in self._judged
            and each.base is not None
            and each.base.digest not in new
        ]
        before = sum(count for _, count in self._removed)
        allowed = self._config.deletions.allowed(self._entries)
        if not gone or len(gone) + before <= allowed:
            return
        for each in gone:
            self._turn(each, EditState.BLOCKED)
        within = f", after {before} within an hour" if before else ""
        self._note(
            "removals_blocked",
            f"{counted(len(gone), 'path')} removed here would be removed everywhere{within}; {allowed} "
            f"{which(allowed, 'is', 'are')} allowed without being asked",
            paths=[shown(each.path) for each in gone[:_NAMED_MAX]], removed=len(gone), allowed=allowed,
        )  # fmt: skip

    def _make_set(
        self, chosen: Iterable[OwnedPath], token: Fence | None, release: o.ReleaseWanted | None = None
    ) -> None:
        """``release``: the request whose lock ends with the answer."""
        chosen = tuple(chosen)
        held = self._held_at(chosen[0].path) if token is not None else None
        author = str(held.owner) if held is not None else self._config.author
        changes = tuple(PathChange(each.path, each.base, each.found) for each in chosen)
        for each in chosen:
            self._turn(each, EditState.OFFERED)
        change_set = ChangeSet(
            CHANGE_SET_VERSION, self.line.fileset, self.line.origin, self._nonce(), author,
            release.message if release is not None else "", self._wall_ms,
            changes, token,
        )  # fmt: skip
        self._set(submitting=change_set, releases=release is not None)

    def _in_order(self) -> list[OwnedPath]:
        return sorted(self._owned.values(), key=_path_key)

    # --- the answer -------------------------------------------------------------------------------------------

    def _answered(self, event: o.OfferAnswered) -> None:
        releases = self._facts.releases
        change_set = self._end_submission(event.req)
        if change_set is None:
            return
        self._backoff.clear("submit")
        self._failed = None
        lost: list[PathOutcome] = []
        for change, outcome in zip(change_set.changes, event.answer.outcomes, strict=True):
            owned = self._owned[change.path]
            if outcome.code not in _AGES:
                self._judged.discard(change.path)  # The operator judged this removal, and not the next one.
            if outcome.is_made:
                base = change.new if outcome.entry is None else outcome.entry
                self._made(owned, change, base, event.answer)
            elif outcome.code in _AGES:
                self._grew_old(change_set, owned, outcome)
            else:
                self._turn(owned, EditState.LOSING, outcome=outcome)
                lost.append(outcome)
            if releases:
                self._submitted_to_release(outcome, event.answer.head)
            elif owned.path in {each.path for each in lost}:
                self._give_up_lock(outcome)
        if lost:
            self._say_lost(lost)

    def _submitted_to_release(self, outcome: PathOutcome, head: HeadRef | None) -> None:
        """Overridden above."""
        raise AssertionError(outcome, head)

    def _end_submission(self, req: int) -> ChangeSet | None:
        """The set that this answers; None where the answer is to an older request."""
        if self._job is None or self._job.req != req:
            return None
        change_set = self._facts.submitting
        assert change_set is not None
        self._job = None
        self._set(submitting=None, releases=False)
        return change_set

    def _made(self, owned: OwnedPath, change: PathChange, base: Entry | None, answer: ChangeAnswer) -> None:
        """``base`` is the home's entry now."""
        owned = msgspec.structs.replace(
            owned, base=base, here=change.new, head=answer.head, above=answer.above
        )
        held = self._held_at(change.path)
        is_newer = not is_alike(owned.found, change.new)
        if held is not None:
            self._hold(HeldLock(held.path, held.owner, held.fence, held.ttl_ms, held.until_ms, base))
            self._turn(owned, EditState.EDITING, is_on_its_way=not self._has_arrived(owned))
        elif is_newer:
            self._own(change.path, EditState.WAITING, base, owned.found, here=change.new)
        else:
            self._turn(owned, EditState.ACCEPTED)
            if self._has_arrived(owned):
                self._unseen.add(change.path)

    def _give_up_lock(self, outcome: PathOutcome) -> None:
        """The home has another file, or a rule against this one: the lock of it is of no use any more."""
        held = self._held_at(outcome.path)
        if held is None:
            return
        is_over = outcome.kind is OutcomeKind.EXPIRED
        if not is_over:
            self._out.append(o.AskRelease(self._next_req(), held.path, held.fence))
        why = LockEnd(outcome.code) if is_over else LockEnd.UNKNOWN
        self._lock_lost(held, LockGone(why, outcome.owner, outcome.reason))

    def _grew_old(self, change_set: ChangeSet, owned: OwnedPath, outcome: PathOutcome) -> None:
        """A set that grew old while the home was away is made anew. One that was made just now shows that the clocks of
        both nodes are days apart."""
        self._back_to_waiting(owned)
        if abs(self._wall_ms - change_set.made_at_ms) < STALE_MS:
            self._refused = w.Trouble(
                "clocks_apart", f"the home refuses changes from here: {outcome.reason}", Retry.NEVER, 4,
                f"set the clocks of both nodes, then: instep retry {self.line.fileset}",
            )  # fmt: skip

    def _back_to_waiting(self, owned: OwnedPath) -> None:
        is_locked = self._held_at(owned.path) is not None
        if not self._is_edited(owned) and not is_locked:
            self._undone(owned)
        else:
            self._turn(owned, EditState.EDITING if is_locked else EditState.WAITING)

    def _submit_failed(self, event: o.OfferFailed) -> None:
        """Without an answer nothing is known: the same set is sent again. Only when the home asked for contents that
        are gone here, it cannot have made the set, nor ever will."""
        if self._job is None or self._job.req != event.req:
            return
        trouble, change_set = event.trouble, self._facts.submitting
        assert change_set is not None
        is_gone = trouble.code == "contents_gone"
        if self._facts.releases:
            self._fail_releases(trouble, of=change_set.changes[0].path)
        if not is_gone and trouble.retry is not Retry.NEVER:
            self._job, self._failed = None, trouble
            self._pause("submit")
            return
        self._end_submission(event.req)
        for change in change_set.changes:
            self._back_to_waiting(self._owned[change.path])
        if is_gone:
            self._unseen.update(change.path for change in change_set.changes)
            self._pause("submit")
        else:
            self._refused = trouble

    def _fail_releases(self, trouble: w.Trouble, *, of: bytes | None = None) -> None:
        """Overridden above."""
        raise AssertionError(trouble, of)

    def _say_lost(self, lost: list[PathOutcome]) -> None:
        for kind in OutcomeKind:
            of_kind = [outcome for outcome in lost if outcome.kind is kind]
            if not of_kind:
                continue
            paths = [shown(outcome.path) for outcome in of_kind]
            first = of_kind[0]
            why = first.owner or first.reason or first.code
            named = ", ".join(paths[:_NAMED_MAX]) + (" ..." if len(paths) > _NAMED_MAX else "")
            self._note(
                "edit_set_aside",
                f"edits made here are in the archive, and the home's files come back: {named} ({kind.value}"
                + (f": {why})" if why else ")"),
                paths=paths[:_NAMED_MAX], total=len(paths), outcome=kind.value, code=first.code,
            )  # fmt: skip

    def _judge_removals(self, *, are_accepted: bool) -> None:
        for owned in tuple(self._owned.values()):
            if owned.state is not EditState.BLOCKED:
                continue
            if are_accepted:
                self._judged.add(owned.path)
                self._turn(owned, EditState.WAITING)
            else:
                outcome = PathOutcome(owned.path, OutcomeKind.REFUSED, code="max_deletions")
                self._turn(owned, EditState.LOSING, outcome=outcome)


def _first_of(waiting: Iterable[OwnedPath]) -> list[OwnedPath]:
    """Where not everything fits into one set: new paths before removed ones, parents before their children, and where
    something goes its children first."""
    comes: list[OwnedPath] = []
    goes: list[OwnedPath] = []
    for each in sorted(waiting, key=_path_key):
        was_dir = each.base is not None and each.base.kind is Kind.DIR
        is_dir = each.found is not None and each.found.kind is Kind.DIR
        (goes if each.found is None or (was_dir and not is_dir) else comes).append(each)
    return [*comes, *reversed(goes)][:CHANGES_PER_SET]


def _path_key(owned: OwnedPath) -> bytes:
    return sort_key(owned.path)
