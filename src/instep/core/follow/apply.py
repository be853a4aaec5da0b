"""From a head to the switched tree: fetch, stage, gates, validate, permit, drain, switch, one job at a time."""

from __future__ import annotations

from instep.core.follow import vocabulary as f
from instep.core.follow.drift import FollowDrift
from instep.core.follow.floor import STATE_OLDER, is_above
from instep.core.follow.state import INTERRUPTIBLE, FollowJob, FollowPhase, Progress, named, named_paths
from instep.core.follow.vocabulary import DriftPolicy, Due
from instep.core.vocabulary import Cancel, HookKind, RunHook, Trouble
from instep.errors import Retry
from instep.model.ids import HeadRef

SUPERSEDES_MAX = 8
"""So often in a row a newer head interrupts the fetching or staging of an older one; then that one is finished first.
A writer may publish faster than a distant partner can fetch even the pages."""

RECOVERY_DUE = "recovery_due"
"""The code of a stage that finds an unfinished journal."""
_RESOURCES_EXIT = 8
_SOURCE_EXITS = (5, 7, 9, 10)
"""Failures of a fetch or stage with these exit codes are the source's, not this node's."""


class FollowApply(FollowDrift):
    """The newest head wins until the switch begins."""

    def _interrupt(self) -> None:
        """Leave what a newer head makes idle: fetching and staging an older one, looking for drift."""
        job = self._job
        if job is not None and job.phase is FollowPhase.CHECK and self._wanted() is not None:
            self._out.append(Cancel(job.req))
            self._drift.failed()
            self._job = None
            return
        if job is None or job.phase not in INTERRUPTIBLE:
            return
        wanted = self._facts.head if self._config.is_observing else self._wanted()
        if job.head == wanted:
            return
        if wanted is not None and not self._config.is_observing and self._supersedes >= SUPERSEDES_MAX:
            self._sticky = job.head
            return
        self._supersedes += 1
        self._out.append(Cancel(job.req))
        self._job = None

    def _begin_apply(self) -> bool:
        """Begin the next step of the apply of the wanted head; True when a job began."""
        target = self._wanted()
        if target is None or not self._backoff.is_ready("apply", self._now):
            return False
        if self._progress is None or self._progress.target != target:
            self._progress = Progress(target)
        progress, config, tree = self._progress, self._config, self._facts.tree
        if not progress.is_fetched or not progress.is_staged:
            source = self._choose(target)
            if source is None:
                return self._give_way(target) and self._begin_apply()
            if not progress.is_fetched:
                self._out.append(f.FetchPages(self._begin(FollowPhase.FETCH, target, source), source, target))
            else:
                self._out.append(
                    f.StageContents(self._begin(FollowPhase.STAGE, target, source), source, target, tree)
                )
            return True
        if self._facts.is_paused:
            return False
        if config.has_gates and not progress.is_gated:
            source = self._choose(target)
            if source is None:
                return self._give_way(target) and self._begin_apply()
            self._out.append(f.CheckGates(self._begin(FollowPhase.GATES, target, source), source, target))
        elif config.has_validate and not progress.is_validated:
            self._out.append(
                RunHook(self._begin(FollowPhase.VALIDATE, target), HookKind.VALIDATE, target, tree)
            )
        elif self._use_permit(progress):
            if self._facts.begun != target or not self._begin_drain(target):
                self._out.append(f.Switch(self._begin(FollowPhase.SWITCH, target), target, tree))
        else:
            return self._wanted() != target and self._begin_apply()
        return True

    def _give_way(self, target: HeadRef) -> bool:
        """An older generation that was to be finished first, but that no source offers any more, gives way."""
        if self._sticky is None or self._sources.next_try_ms(target.id) is not None:
            return False
        self._sticky = None
        return True

    def _apply_failed(self, job: FollowJob, trouble: Trouble) -> None:
        self._sticky = None
        if trouble.exit_code in _SOURCE_EXITS or trouble.retry is Retry.ELSEWHERE:
            self._troubles["apply"] = trouble
            self._penalize(job.source)
        else:
            self._fail("apply", trouble)
            self._get_stuck(job, trouble)

    def _recover_if_due(self, trouble: Trouble) -> None:
        """An unfinished journal lies in the way: it is brought to an end before anything else."""
        if trouble.code == RECOVERY_DUE:
            self._is_recovered = False

    def _get_stuck(self, job: FollowJob, trouble: Trouble) -> None:
        if trouble.retry is Retry.NEVER and trouble.exit_code != _RESOURCES_EXIT and job.head is not None:
            self._stuck = job.head.id

    def _switch_failed(self, job: FollowJob, trouble: Trouble) -> None:
        """The recovery follows at once: the switch in the journal is finished or undone, as after a crash. Only then
        does the apply begin anew, from the first step and later each time."""
        assert job.head is not None
        if self._failed_switch is None or self._failed_switch[0] != job.head.id:
            text = f"the switch to generation {job.head.number} failed: {trouble.reason}"
            self._note("switch_failed", text, generation=job.head.number, code=trouble.code)
        self._failed_switch = (job.head.id, trouble)
        self._progress, self._sticky = None, None
        self._is_recovered = False
        self._fail("apply", trouble)
        self._get_stuck(job, trouble)

    def _switched(self, job: FollowJob, drifted: tuple[bytes, ...]) -> None:
        assert job.head is not None
        self._failed_switch = None
        self._succeed("apply")
        self._succeed("due")
        self._progress, self._sticky, self._supersedes = None, None, 0
        if self._facts.tree is None and self._config.drift is not DriftPolicy.OFFER:
            self._drift.start_clean()  # An edit of the time of the first apply is found by the next full look.
        self._arrived(job.head)
        if drifted:
            said, paths = named_paths(drifted)
            self._note("drift_archived", f"local changes went to the archive: {said}", paths=paths)

    def _recovered(self, event: f.RecoveryEnded) -> None:
        self._is_recovered = True
        self._succeed("recover")
        self._progress = None
        self._drift.touch((), everything=True)
        target = event.target
        if event.holds is not None:
            self._rest_on(event.holds)
        facts = self._facts
        if event.is_doubtful:
            # Also where this node observes by now: nothing is recorded or offered before a look at the whole tree.
            self._set(is_doubted=True)
            facts = self._facts
        if event.kind is not f.RecoveryKind.FINISHED or target is None:
            return
        if target == facts.tree:
            # Local changes were reverted: the application saw them, so it needs a reload.
            if facts.due is Due.NOTHING and target == facts.live and self._config.has_reload:
                self._set(due=Due.RELOAD)
            return
        # A switch or a put-back that failed half way is over with this: its trouble has gone.
        self._failed_switch = None
        self._succeed("apply")
        self._succeed("due")
        if not event.is_known:
            self._rest_on(target)  # All of it was saved before it was switched to: the state is an older one.
            return
        if target == self._goes_back_to():
            self._came_back(target)
            return
        if facts.head is None or target.position > facts.head.position:
            self._set(head=target)
        self._arrived(target)
        self._note("recovered", f"the switch to generation {target.number} had been finished")

    def _rest_on(self, holds: HeadRef) -> None:
        """The tree says that it holds a newer generation than the saved state knows: leave it as it is until that
        generation or a newer one is offered, and take it up then as a tree that nothing is known of."""
        facts = self._facts
        if holds == facts.floor or not is_above(holds, facts.tree):
            return
        self._set(
            floor=holds, tree=None, live=None, due=Due.NOTHING, replaced=None, begun=None, unconfirmed=None
        )
        self._forget_refusal()
        saved = named(facts.tree)
        self._note(
            STATE_OLDER,
            f"the tree holds generation {holds.number}, and the state of this node says {saved}",
            generation=holds.number,
        )
