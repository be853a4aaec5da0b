"""When a writer's whole tree is looked at: by the clock, by its cost, and by the gaps of the watch."""

from __future__ import annotations

from instep.core.guards.held import OPEN
from instep.core.guards.hot import Cooling
from instep.core.publish import vocabulary as p
from instep.core.publish.scan_verdict import PublishGuards
from instep.core.publish.state import PublishPhase, Run
from instep.core.publish.vocabulary import PublishMode
from instep.core.rescan import ScanCost, rescan_after_ms
from instep.core.vocabulary import SetTimer
from instep.model.paths import shown


class PublishLook(PublishGuards):
    """Keeps the timer of the full scan."""

    def _arm_full_look(self) -> None:
        most_ms = after_ms = self._config.rescan_ms
        if self._cost is not None or self._blind is not None:
            cost = self._cost or ScanCost()
            after_ms = rescan_after_ms(cost, is_watched=self._blind is None, most_ms=most_ms)
        self._out.append(SetTimer("rescan", self._now + after_ms))

    def _doubt_all(self) -> None:
        """Scan the whole tree soon; where this node is read-only, to see whether changes wait."""
        if self._config.read_only is None:
            self._unpublished.touch((), self._now, everything=True)
        else:
            self._unpublished.remember((), everything=True)
            self._must_look = True

    def _look_at_held(self) -> None:
        """See whether held paths can be carried by now. Where publishing is manual it is a mere look, and one at the
        whole tree is left to the rescan."""
        if self._config.mode is PublishMode.AUTO:
            reported = (each.path for each in self._facts.reported.listed if each.what != OPEN)
            self._unpublished.touch((*self._facts.held.paths, *reported), self._now)
        elif self._facts.held.total and not self._unpublished.is_all:
            self._unpublished.remember(self._facts.held.paths)
            self._must_look = True

    def _look_anew(self) -> None:
        """Look at the tree although the watch saw no change; where publishing is manual it stays a look."""
        if self._config.mode is PublishMode.AUTO:
            self._unpublished.touch((), self._now, everything=True)
        else:
            self._must_look = True

    def _content_missed(self, path: bytes) -> None:
        """This node cannot give the contents that a generation names: the next one has a copy of them."""
        if self._hot.missed(path, self._now):
            text = f"{shown(path)} changes faster than partners can fetch it: it is published now and then"
            self._note("hot_file", text, path=shown(path))
            if self._config.mode is PublishMode.AUTO:
                self._unpublished.touch((path,), self._now)

    def _large_published(self, run: Run, summary: p.ScanSummary) -> None:
        """A large file that is published again and again, not because an operator asked, is published more seldom."""
        if any(not request.is_flush for request in run.requests):
            return
        for path in self._hot.large_published(summary.large, self._now):
            text = (
                f"{shown(path)} is large and changes all the time, as a log that grows: it is published now and then; "
                "ignore it where no partner needs it"
            )
            self._note("large_file", text, path=shown(path))

    def _cooling(self) -> tuple[Cooling, ...]:
        return self._hot.cooling(self._now, self._config.settle_ms, self._config.settle_max_ms)

    def _arm_hot(self) -> None:
        """Look at hot files that are held as soon as the first of them may be quiet."""
        held = {each.path for each in self._facts.held.listed if each.what == "hot"}
        quiet_ms = min((each.quiet_ms for each in self._cooling() if each.path in held), default=None)
        if quiet_ms is not None:
            self._out.append(SetTimer("hot", self._now + quiet_ms))

    def _look_at_hot(self) -> None:
        if self._config.mode is PublishMode.AUTO:
            held = (each.path for each in self._facts.held.listed if each.what == "hot")
            self._unpublished.touch(held, self._now)

    def _begin_scan(self, run: Run) -> None:
        """Scan what is known to have changed; all of it where the watch cannot be counted on. The watch does not see a
        write through a mapping, or through a name outside the tree: a command that promises to publish every write of
        before has every path looked at."""
        is_full = any(r.is_full for r in run.requests)
        if is_full or (self._blind is not None and run.is_asked):
            self._unpublished.remember((), everything=True)
        is_whole = any(r.is_whole for r in run.requests) and not self._unpublished.is_all
        scan = p.Scan(
            self._begin(PublishPhase.SCAN),
            run.base,
            self._unpublished.take(),
            again=(*self._facts.held.listed, *self._facts.reported.listed),
            reads_open=any(not r.is_flush for r in run.requests),
            since=self._facts.checkpoints,
            lets_go=run.lets_go(self._facts.held),
            hot=self._hot.hot(self._now),
            cooling=self._cooling(),
            holds=not (run.is_by_hand or run.is_look) and self._holding.may_wait(self._now),
            accepted=run.accepted,
            is_whole=is_whole,
        )
        self._out.append(scan)
