"""Local changes: looked for, reverted or reported; and how an observing node's tree compares with the head."""

from __future__ import annotations

from instep.core.follow import vocabulary as f
from instep.core.follow.due import FollowDue
from instep.core.follow.state import FollowJob, FollowPhase, Progress, named_paths
from instep.core.follow.vocabulary import DriftPolicy, Due
from instep.core.hook_writes import hook_words
from instep.core.rescan import rescan_after_ms
from instep.core.vocabulary import SetTimer, Trouble

TOUCH_SETTLE_MS = 200
_UNAVAILABLE_EXIT = 7


class FollowDrift(FollowDue):
    """Nothing here runs while an apply or one of its pending steps can go on."""

    @property
    def is_to_look(self) -> bool:
        """Whether paths were touched that no look has seen to its end: the standing does not know of them."""
        return self._drift.is_dirty or (self._job is not None and self._job.phase is FollowPhase.CHECK)

    def _mind_drift(self) -> None:
        tree, drift = self._facts.tree, self._drift
        if tree is None or not self._backoff.is_ready("drift", self._now):
            return
        if drift.is_dirty:
            if self._drift_ready_ms <= self._now:
                self._out.append(f.CheckDrift(self._begin(FollowPhase.CHECK, tree), tree, drift.ask()))
            return
        returning = self._to_restore()
        if not returning or self._facts.is_paused:
            return
        free, fought = drift.fights.split(returning, self._now)
        if not free:
            self._succeed("revert")  # Paths that are left alone fail no more: they are reported as a fight.
            self._out.append(SetTimer("fight", drift.fights.ends_at(fought, self._now)))
        elif self._backoff.is_ready("revert", self._now):
            source = next((s.name for s in self._sources.all_up() if s.holds(tree.id)), None)
            drift.begin_revert(free)
            self._out.append(f.Revert(self._begin(FollowPhase.REVERT, tree), tree, free, source))

    def _to_restore(self) -> tuple[bytes, ...]:
        """The drifted paths that the policy gives back. A refused offer is restored under every policy; an edit that
        may still be accepted, or is made under a lock, under none."""
        drifted, lost, pending = self._drift.drifted, set(self._offers.lost), set(self._offers.pending)
        if self._config.drift is not DriftPolicy.REVERT:
            return tuple(path for path in drifted if path in lost)
        return tuple(path for path in drifted if path not in pending)

    def _offered(self) -> tuple[bytes, ...]:
        """The drifted paths that stay until the writer has answered."""
        pending = set(self._offers.pending)
        return tuple(path for path in self._drift.drifted if path in pending)

    def _observe(self) -> None:
        head = self._facts.head
        if (
            head is None
            or not self._backoff.is_ready("compare", self._now)
            or self._drift_ready_ms > self._now
        ):
            return
        if self._compared is not None and self._compared_with == head.id:
            return
        if self._progress is None or self._progress.target != head:
            self._progress = Progress(head)
        if self._progress.is_fetched:
            self._out.append(f.CompareTree(self._begin(FollowPhase.COMPARE, head), head))
            return
        source = self._choose(head)
        if source is not None:
            self._out.append(f.FetchPages(self._begin(FollowPhase.FETCH, head, source), source, head))

    def _touched(self, event: f.TreeTouched) -> None:
        self._drift.touch(event.paths, everything=event.is_overflow)
        self._compared = None
        if self._drift_ready_ms <= self._now:
            self._drift_ready_ms = self._now + TOUCH_SETTLE_MS
            self._out.append(SetTimer("drift-settle", self._drift_ready_ms))

    def _root_back(self) -> None:
        """What failed while the root was out of sight is retried at once."""
        self._backoff.clear_all()
        self._drift.doubt()
        self._drift_ready_ms = 0
        self._compared = None

    def _arm_full_look(self) -> None:
        """A full look in regular intervals; in short ones while the watch does not see all changes."""
        after_ms = most_ms = self._config.drift_scan_ms
        if self._blind is not None:
            after_ms = rescan_after_ms(self._scan_cost, is_watched=False, most_ms=most_ms)
        self._out.append(SetTimer("drift-scan", self._now + after_ms))

    def _unstage(self) -> None:
        """A revert takes the place of the staged generation: that one is staged again before it is switched to."""
        if self._progress is not None:
            self._progress.is_staged = False

    def _revert_failed(self, trouble: Trouble) -> None:
        """A revert switches like an apply: when that fails, its journal says what became of the tree. Where contents
        could not be had it did not come so far."""
        self._unstage()
        self._drift.returning = ()
        self._drift.touch(self._drift.drifted)
        if trouble.exit_code != _UNAVAILABLE_EXIT:
            self._is_recovered = False
        self._fail("revert", trouble)

    def _looked(self) -> None:
        """The tree was compared with its generation. After a doubtful recovery only a whole look counts, and where
        local changes are reverted only one that finds nothing, or only paths that programs here fight over."""
        drift = self._drift
        if not drift.was_whole:
            return
        is_kept = self._config.drift is not DriftPolicy.REVERT
        if is_kept or not drift.fights.split(self._to_restore(), self._now)[0]:
            self._set(is_doubted=False)

    def _reverted(self, event: f.Reverted) -> None:
        self._succeed("revert")
        self._unstage()
        paths = event.paths
        wrote = self._drift.reverted(paths, self._now)
        why = f": {hook_words(wrote)}" if wrote else ""
        said, named = named_paths(paths)
        words = event.words or f"archived and restored: {said}"
        self._note("drift_reverted", f"local changes: {words}{why}", paths=named)
        is_over = self._hook_loop.is_over(wrote if len(wrote) == len(paths) else ())
        if self._config.has_reload and not is_over:
            self._set(due=Due.RELOAD)

    def _took_comparison(self, event: f.Compared, job: FollowJob) -> None:
        assert job.head is not None
        if event.trouble is not None:
            self._fail("compare", event.trouble)
            return
        self._succeed("compare")
        self._compared, self._compared_with = event, job.head.id
