"""Planted bugs: each breaks one rule of the design, and the simulator must find it within a set number of
seeds.

Some are switches in the simulated driver (looked up by name in ``World.plant``), the others machines whose
one rule is broken here. A simulator that cannot find them is the bug.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from instep.core.follow import vocabulary as f
from instep.core.follow.machine import FollowMachine
from instep.core.follow.state import FollowJob, FollowPhase, Progress
from instep.core.guards.losses import Checkpoint
from instep.core.lines.accept import AcceptedHead
from instep.core.publish import restore_vocabulary as s
from instep.core.publish import vocabulary as p
from instep.core.publish.machine import PublishMachine
from instep.core.publish.state import Run
from instep.core.rollout import vocabulary as v
from instep.core.rollout.machine import RolloutMachine
from instep.core.vocabulary import KeepGeneration, SignerVerdict, Trouble
from instep.model.ids import HeadRef, NodeName
from instep.model.rollout import Absent, RolloutPolicy, Strategy, Verdict


class _AnswersWithoutNumber(FollowMachine):
    """Takes any answer for the answer to its question."""

    def _take(self, event: Any) -> None:
        if self._job is not None and isinstance(event, _ANSWERS):
            event = replace(event, req=self._job.req)
        super()._take(event)


_ANSWERS = (
    f.PagesFetched,
    f.Staged,
    f.HeadSuperseded,
    f.GatesChecked,
    f.TreeSwitched,
    f.LiveRecorded,
    f.PutBackDone,
)


class _ForgetsTheHook(FollowMachine):
    """Believes that a switch which a crash interrupted needs no reload any more."""

    def _recovered(self, event: f.RecoveryEnded) -> None:
        super()._recovered(event)
        if self._facts.due in (f.Due.RELOAD, f.Due.PROBE):
            self._set(due=f.Due.RECORD)


class _HeadMayFall(FollowMachine):
    """Takes whatever generation comes, newer or not."""

    def _head_seen(self, event: f.HeadSeen) -> None:
        body = event.signed.body()
        if (
            event.verdict.is_valid
            and self._facts.head is not None
            and event.verdict.signer == self.line.origin
        ):
            ref = HeadRef(body.epoch, body.number, event.signed.id, body.root)
            self._accept(AcceptedHead(ref, body), event, self._sources.get(event.source))
        else:
            super()._head_seen(event)


class _AnybodyMayWrite(FollowMachine):
    """Does not look at the signer."""

    def _head_seen(self, event: f.HeadSeen) -> None:
        super()._head_seen(replace(event, verdict=SignerVerdict(True, self.line.origin)))


class _GoesPastItsHead(FollowMachine):
    """Does not look whether a higher generation descends from the one that it has."""

    def _head_seen(self, event: f.HeadSeen) -> None:
        super()._head_seen(replace(event, beside=None))


class _NoGuards(PublishMachine):
    """Publishes whatever the scan found."""

    def _scanned(self, summary: p.ScanSummary) -> None:
        super()._scanned(replace(summary, losses=(), removed=0, changed=1))


class _EachGenerationAlone(PublishMachine):
    """Judges what a generation loses by itself, whatever the ones before it lost."""

    def _checkpoints(self, run: Run, summary: p.ScanSummary) -> tuple[Checkpoint, ...]:
        return ()


class _ForgetsItsPast(PublishMachine):
    """Does not listen to partners that hold newer heads of its own line."""

    def _head_of_ours(self, event: p.HeadOfOursSeen) -> None:
        """Not adopted."""


class _AdoptsLower(PublishMachine):
    """Takes any own head that it hears of as its parent, and counts on from there."""

    def _head_of_ours(self, event: p.HeadOfOursSeen) -> None:
        if event.verdict.is_valid and event.verdict.signer == self._config.node:
            ref = event.signed.ref()
            if ref != self._facts.head:
                self._out.append(KeepGeneration(event.signed))
                self._set(head=ref, highest=ref.number, has_pages=False)
                self._pages_from = {event.source: None}


class _PublishesOverAnAdoptedHead(PublishMachine):
    """Believes that its tree is newer than the head that it adopted."""

    def _held_as_restored(self, run: Run, summary: p.ScanSummary) -> Trouble | None:
        self._set(is_adopted=False)
        return None


class _ScansAnUnfinishedTree(PublishMachine):
    """Takes a restore that stopped half way for one that never began."""

    def _restore_failed(self, event: s.RestoreFailed) -> None:
        super()._restore_failed(s.RestoreFailed(event.req, event.trouble))


class _PublishesWhatItFinds(PublishMachine):
    """Scans after a restore, and publishes that."""

    def _tree_is_there(self, run: Run, plan: s.RestorePlan) -> None:
        run.is_restored = True


class _HotFilesStarveTheRest(PublishMachine):
    """Publishes whatever lies there, also what changes before a partner can have it."""

    def _content_missed(self, path: bytes) -> None:
        """Not noticed."""


class _ReturnsBeforeTheProbe(FollowMachine):
    """Offers the node again as soon as the tree is switched."""

    def _begin_due(self) -> bool:
        if self._facts.due is f.Due.PROBE and self._begin_return():
            return True
        return super()._begin_due()


class _ConfirmsLate(FollowMachine):
    """Takes a ``keep`` that came after the time to confirm was over."""

    def _take_order(self, event: f.OrderGiven) -> None:
        super()._take_order(event)
        if event.order.verdict is Verdict.KEEP and self._facts.refused_code == "not_confirmed":
            self._forgive()


class _GoesWithoutPermit(FollowMachine):
    """Does not wait for its turn."""

    def _use_permit(self, progress: Progress) -> bool:
        return True


class _CountsWhatOtherSettingsSaid(FollowMachine):
    """Takes the answer of a validate hook that ran before the settings changed, for an apply that it forgot."""

    def _hook_ended(self, job: FollowJob, trouble: Trouble | None) -> None:
        if job.phase is FollowPhase.VALIDATE and trouble is None:
            self._passed("is_validated")
        else:
            super()._hook_ended(job, trouble)


class _LeavesARevertHalfDone(FollowMachine):
    """Does not ask what became of the tree when a revert failed."""

    def _revert_failed(self, trouble: Trouble) -> None:
        super()._revert_failed(trouble)
        self._is_recovered = True


class _BelievesTheJournal(FollowMachine):
    """Takes a tree for switched because its journal could be finished."""

    def _recovered(self, event: f.RecoveryEnded) -> None:
        super()._recovered(event)
        self._set(is_doubted=False)


class _BelievesTheRecord(FollowMachine):
    """Takes a generation for recorded although that failed."""

    def _take_answer(self, job: FollowJob, event: Any) -> None:
        super()._take_answer(job, f.LiveRecorded(event.req) if isinstance(event, f.RecordFailed) else event)


class _BelievesItsState(FollowMachine):
    """Does not listen to a tree that says it holds more than the saved state knows."""

    def _rest_on(self, holds: HeadRef) -> None:
        """The state is right."""


class _UsesAPermitTwice(FollowMachine):
    """Tries a refused generation again with the permit that the refusal ended."""

    def _spend_permit(self, head: HeadRef) -> None:
        """The permit stays."""


class _ForgetsASwitchedNode(RolloutMachine):
    """Puts back the node that failed, and leaves out the first that had switched."""

    def _verdict(self, name: NodeName) -> Verdict:
        verdict = super()._verdict(name)
        return Verdict.KEEP if verdict is Verdict.PUT_BACK and self._is_left_out(name) else verdict

    def _is_back(self, name: NodeName) -> bool:
        return self._is_left_out(name) or super()._is_back(name)

    def _is_left_out(self, name: NodeName) -> bool:
        return self._facts.granted[:1] == (name,) and self._facts.failed_node != name


class _ResumesTwice(RolloutMachine):
    """Begins the waves again after a restart of the writer."""

    def _start(self, head: HeadRef | None, author: str) -> None:
        if not v.ended(self._facts.state):
            self._set(granted=(), state=v.RolloutState.BARRIER)
        super()._start(head, author)


class _ConfirmsWhatIsPutBack(RolloutMachine):
    """Lets an operator confirm after the time is over."""

    def _do(self, ask: v.Ask) -> Trouble | None:
        if isinstance(ask, v.ConfirmAsked) and self._facts.state is v.RolloutState.PUTTING_BACK:
            self._set(state=v.RolloutState.CONFIRMING)
        return super()._do(ask)


class _WaitsForWhoLeft(RolloutMachine):
    """Goes on to count a partner that is not listed any more."""

    def _take(self, event: v.RolloutEvent) -> None:
        if isinstance(event, v.PartnersChanged):
            event = v.PartnersChanged(tuple(dict.fromkeys((*self._partners, *event.partners))))
        super()._take(event)


FOLLOW_PLANTS: dict[str, type[FollowMachine]] = {
    "answers_without_number": _AnswersWithoutNumber,
    "hook_forgotten": _ForgetsTheHook,
    "head_may_fall": _HeadMayFall,
    "anybody_may_write": _AnybodyMayWrite,
    "return_before_probe": _ReturnsBeforeTheProbe,
    "confirm_after_expiry": _ConfirmsLate,
    "no_permit": _GoesWithoutPermit,
    "other_settings_count": _CountsWhatOtherSettingsSaid,
    "revert_half_done": _LeavesARevertHalfDone,
    "journal_believed": _BelievesTheJournal,
    "state_believed": _BelievesItsState,
    "record_believed": _BelievesTheRecord,
    "goes_past_its_head": _GoesPastItsHead,
    "permit_used_twice": _UsesAPermitTwice,
}
ROLLOUT_PLANTS: dict[str, type[RolloutMachine]] = {
    "forgets_a_switched_node": _ForgetsASwitchedNode,
    "resumes_twice": _ResumesTwice,
    "confirms_what_is_put_back": _ConfirmsWhatIsPutBack,
    "waits_for_who_left": _WaitsForWhoLeft,
}
PUBLISH_PLANTS: dict[str, type[PublishMachine]] = {
    "no_guards": _NoGuards,
    "each_generation_alone": _EachGenerationAlone,
    "forgets_its_past": _ForgetsItsPast,
    "adopts_lower": _AdoptsLower,
    "publishes_over_adopted": _PublishesOverAnAdoptedHead,
    "scans_unfinished": _ScansAnUnfinishedTree,
    "publishes_what_it_finds": _PublishesWhatItFinds,
    "hot_files_starve": _HotFilesStarveTheRest,
}


def _no(*faults: str) -> dict[str, Any]:
    return dict.fromkeys((f"{fault}_every_ms" for fault in faults), 0)


NEEDED: dict[str, dict[str, Any]] = {
    "unverified": {"corrupt": 0.3},
    "hot_files_starve": {"hot_every_ms": 25, "delay_ms": 50, "has_rollouts": False, "bound_ms": 120_000},
    "publishes_over_adopted": {"snapshot_every_ms": 15_000},
    "adopts_lower": {
        "restore_every_ms": 6_000,
        "edit_every_ms": 600,
        "cut_every_ms": 2_000,
        **_no("snapshot"),
    },
    "goes_past_its_head": {
        "snapshot_every_ms": 8_000,
        "edit_every_ms": 300,
        "cut_every_ms": 2_000,
        "rollback_every_ms": 0,
        "has_hub": False,
    },
    "scans_unfinished": {"rollback_every_ms": 4_000, "step_fails": 0.2},
    "publishes_what_it_finds": {"rollback_every_ms": 4_000, "edit_every_ms": 300},
    "never_undone": {
        **_no("old_state", "reconfigure", "rollback", "snapshot", "crash"),
        "stick_every_ms": 500,
        "step_fails": 0.0,
        "read_error": 0.0,
        "edit_every_ms": 1_000,
    },
    "revert_half_done": {"drift_every_ms": 1_000, "step_fails": 0.2, "reconfigure_every_ms": 0},
    "journal_believed": {"crash_every_ms": 3_000, "copied": 0.5, "step_ms": 100, "reconfigure_every_ms": 0},
    "each_generation_alone": {"wipe_every_ms": 10_000, "edit_every_ms": 4_000, "files": 40},
    "removes_held": {"wipe_every_ms": 5_000},
    "record_believed": {"work_fails": 0.3},
    "state_believed": {
        "old_state_every_ms": 4_000,
        "restore_every_ms": 0,
        "snapshot_every_ms": 0,
        "has_rollouts": False,
        "edit_every_ms": 2_000,
        "cut_every_ms": 3_000,
    },
    "hook_not_told": {"has_hooks": True, "reconfigure_every_ms": 2_000},
    "other_settings_count": {"has_hooks": True, "hook_ms": 1_000, "reconfigure_every_ms": 2_000},
    "waits_for_who_left": {
        "policy": RolloutPolicy(strategy=Strategy.ROLLING, absent=Absent.WAIT),
        "policy_every_ms": 0,
        "member_every_ms": 5_000,
    },
    "confirm_after_expiry": {
        "policy": RolloutPolicy(strategy=Strategy.TOGETHER, confirm_within_ms=2_000, finish_within_ms=4_000),
        "policy_every_ms": 0,
        "crash_every_ms": 2_000,
        "ask_rollout_every_ms": 0,
        "edit_every_ms": 8_000,
    },
}
"""The options that a seed has whatever it draws, so that a plant which needs a rare turn of events gets it."""
ROLLOUT_RULES = (
    *ROLLOUT_PLANTS,
    "return_before_probe",
    "confirm_after_expiry",
    "no_permit",
    "permit_used_twice",
)
"""Plants that break a rule of rollouts: looked for where there are some."""
PLANTS = (
    "unverified",
    "save_not_durable",
    "revert_unarchived",
    "no_journal",
    "hook_not_told",
    "never_undone",
    "removes_held",
    *FOLLOW_PLANTS,
    *PUBLISH_PLANTS,
    *ROLLOUT_PLANTS,
)
"""All planted bugs by name; the first six are switches in the simulated driver."""
