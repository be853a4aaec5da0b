"""The pending step of a tree for the generation that it holds: reload, probe, record live, or the put-back."""

from __future__ import annotations

import msgspec

from instep.core.follow import vocabulary as f
from instep.core.follow.permits import FollowPermits
from instep.core.follow.state import FollowJob, FollowPhase
from instep.core.follow.vocabulary import Due, FollowFacts
from instep.core.vocabulary import HookKind, RunHook, SetTimer, Trouble
from instep.model.ids import HeadRef
from instep.model.rollout import Verdict


class FollowDue(FollowPermits):
    """From the finished switch to live, or back to the replaced generation."""

    def _begin_due(self) -> bool:
        """Begin the pending step of the tree's generation; True when nothing else may begin meanwhile."""
        facts = self._facts
        tree, live = facts.tree, facts.live
        if tree is None:
            return False
        is_ready = self._backoff.is_ready("due", self._now)
        back = self._goes_back_to()
        if back is not None:
            if is_ready:
                if self._begin_drain(tree):
                    return True
                source = next((s.name for s in self._sources.all_up()), None)
                self._out.append(f.PutBack(self._begin(FollowPhase.PUT_BACK, back), back, tree, source))
                return True
            # A put-back that cannot be done must not keep the repair away.
            return facts.head == facts.refused
        if facts.is_doubted and facts.due is not Due.NOTHING:
            return False  # Hooks run for a tree that was seen to hold its generation.
        self._take_added_hook()
        if self._facts.due is Due.RELOAD and not self._config.has_reload:
            self._set(due=self._due_after_reload())
        if self._facts.due is Due.PROBE and not self._config.has_probe:
            self._set(due=Due.RECORD)
        self._take_reload_order()
        due = self._facts.due
        if due is Due.NOTHING:
            return self._begin_return()
        if not is_ready:
            # A failing reload must not keep a newer head away, which may well be the repair.
            return due is Due.RECORD
        if due is Due.RECORD:
            if self._begin_return():
                return True
            self._replace_live(tree)
            self._progress = None  # Recording empties the stage.
            self._out.append(
                f.RecordLive(self._begin(FollowPhase.RECORD, tree), tree, live, self._recorded_facts())
            )
        else:
            is_ordered = due is Due.RELOAD and self._facts.is_drained and self._ordered_to_reload(tree)
            if is_ordered and self._begin_drain(tree):
                return True
            phase, kind = (
                (FollowPhase.RELOAD, HookKind.RELOAD)
                if due is Due.RELOAD
                else (FollowPhase.PROBE, HookKind.PROBE)
            )
            self._out.append(RunHook(self._begin(phase, tree), kind, tree, live))
        return True

    def _take_added_hook(self) -> None:
        """A reload hook that was added is due for the generation that the tree holds, whatever was due for it."""
        if self._is_hook_added and not self._config.is_observing:
            self._is_hook_added = False
            if self._config.has_reload:
                self._set(due=Due.RELOAD)

    def _goes_back_to(self) -> HeadRef | None:
        """The generation to put a refused tree back to: live, or the one that live replaced when live itself is
        refused."""
        facts = self._facts
        if facts.tree is None or facts.refused != facts.tree:
            return None
        return facts.live if facts.live != facts.tree else facts.replaced

    def _arrived(self, tree: HeadRef) -> None:
        """The tree came to hold this generation. Record a generation as live again when it was put back and is
        retried: until then the generation that it was put back to is live, also where that was not recorded."""
        facts = self._facts
        if facts.tree is not None and tree == facts.live and tree.position > facts.tree.position:
            self._set(live=facts.tree, replaced=None)
        if facts.floor is not None and tree.position >= facts.floor.position:
            self._set(floor=None)
        self._set(tree=tree, due=self._first_due(tree))

    def _first_due(self, tree: HeadRef) -> Due:
        """The first pending step of a tree that just came to hold this generation."""
        if self._config.has_reload:
            return Due.RELOAD
        return self._due_after(tree)

    def _due_after_reload(self) -> Due:
        assert self._facts.tree is not None
        return self._due_after(self._facts.tree)

    def _due_after(self, tree: HeadRef) -> Due:
        if tree == self._facts.live:
            is_probed = self._facts.is_drained or self._ordered_to_reload(tree)
            return Due.PROBE if is_probed and self._config.has_probe else Due.NOTHING
        return Due.PROBE if self._config.has_probe else Due.RECORD

    def _hook_ended(self, job: FollowJob, trouble: Trouble | None) -> None:
        assert job.head is not None
        if job.phase is FollowPhase.VALIDATE:
            if self._progress is None:
                return  # Asked under another configuration, and asked anew under this one.
            if trouble is None:
                self._passed("is_validated")
            elif job.head == self._facts.head:
                self._sticky = None
                self._refuse(job.head, "validate_failed", trouble)
        elif job.phase is FollowPhase.RELOAD:
            if trouble is None:
                self._succeed("due")
                self._set(due=self._due_after_reload())
            else:
                self._fail("due", trouble)
        elif trouble is None:
            self._succeed("due")
            self._set(due=Due.NOTHING if job.head == self._facts.live else Due.RECORD)
        elif self._facts.live is None or job.head == self._facts.live or self._is_going_back(job.head):
            self._fail("due", trouble)
        else:
            self._refuse(job.head, "probe_failed", trouble)

    def _replace_live(self, tree: HeadRef) -> None:
        """Take the tree for live, and keep the replaced generation for as long as it can be put back."""
        facts = self._facts
        if facts.live == tree:
            return
        is_back = self._is_going_back(tree)
        order = self._order_of(tree)
        waits = facts.begun == tree and order is not None and order.confirm_within_ms is not None
        if waits and order is not None and order.verdict is Verdict.KEEP:
            waits = False
        if facts.begun is not None:
            self._out.append(SetTimer("finish", None))
        if self._config.knows_orders:
            self._set(
                replaced=None if is_back else facts.live, begun=None, unconfirmed=tree if waits else None
            )
        self._set(live=tree)

    def _recorded_facts(self) -> FollowFacts:
        """What ``RecordLive`` saves. Until its answer the own facts say *live, recording due*, so that a save
        in between neither forgets the live generation nor claims that it was recorded."""
        return msgspec.structs.replace(self._facts, due=Due.NOTHING)

    def _live_recorded(self) -> None:
        live = self._facts.live
        assert live is not None
        self._set(due=Due.NOTHING)
        self._succeed("due")
        if self._facts.unconfirmed is not None:
            self._arm_confirm()
        self._drift.switched()
        self._hook_loop.begin_anew()
        self._note("live", f"generation {live.number} is live", generation=live.number)

    def _put_back(self, job: FollowJob) -> None:
        assert job.head is not None
        self._succeed("due")
        self._progress = None
        self._drift.switched()
        self._came_back(job.head)
        self._forgive_late()

    def _came_back(self, tree: HeadRef) -> None:
        """The tree was put back, by the job itself or by the recovery that finished it; the permit is used up."""
        self._set(tree=tree, begun=None, due=self._first_due(tree))
        if self._config.knows_orders:
            self._out.append(SetTimer("finish", None))
        self._out.append(f.DropStage())
        self._note("put_back", f"generation {tree.number} is back", generation=tree.number)
