"""The standing of a line that is shown and reported: its machine's, unless the root or the work has trouble."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from msgspec.structs import replace

from instep.core.follow.standing import Seen, stand_of
from instep.core.follow.vocabulary import FollowConfig, FollowFacts, FollowReport
from instep.core.heads.stand import Stand
from instep.core.publish.standing import PublishSeen, publish_stand_of
from instep.core.publish.vocabulary import PublishFacts, PublishReport
from instep.core.vocabulary import RootBack, Trouble, trouble_of
from instep.errors import InstepError
from instep.model.ids import HeadRef, LineId
from instep.model.standing import Standing, StandingRecord
from instep.net.messages.syncing import HomeState
from instep.node.config.filesets import FilesetSettings
from instep.node.lines.line_net import LineNet
from instep.node.lines.standing_events import StandingEvents
from instep.node.lines.switch_hooks import FailureTeller
from instep.node.runtime.driver import Driver, wall_ms
from instep.node.runtime.runtime import Runtime
from instep.node.runtime.signers import BROKEN, broken_standing, stuck_standing
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.root_watch import RootWatch

SAVED = (Standing.PAUSED, Standing.BLOCKED, Standing.FAILING)
"""With nothing seen yet only saved facts lead to these; any other standing wants a look at tree or partners."""
UNPUBLISHED = "unpublished"
"""The code of a writer in step whose tree has edits that wait for ``instep publish``."""
REASON_MAX = 1_000
_NOTHING_PUBLISHED = PublishSeen(is_working=False, trouble=None, is_first_held=False, is_fetching=False)
_NOTHING_FOLLOWED = Seen(
    is_working=False,
    is_source_up=False,
    is_contact_lost=False,
    trouble=None,
    offer_trouble=None,
    drifted=(),
    drifted_total=0,
    fought=(),
    fighters=(),
    drift_trouble=None,
    compared=None,
)


class RolloutNow(NamedTuple):
    """Whether partners that can be reached still take the newest generation, and why some refused it."""

    is_going: bool = False
    refused: str = ""


class LineStanding(ABC):
    """The floor of a line's service: its tree, its root, and the standing of both."""

    driver: Driver[Any, Any]
    standing: StandingRecord

    def __init__(self, runtime: Runtime, fileset: FilesetSettings, net: LineNet) -> None:
        self.runtime = runtime
        self.fileset = fileset
        self.line = fileset.line
        self.tree = self._new_tree()
        self.root = RootWatch(self.tree, self._root_turned)
        self.failures = FailureTeller(runtime)
        self._net = net
        self._events = StandingEvents(runtime, self.line)
        self._told: FollowReport | PublishReport | None = None

    def _new_tree(self) -> FilesetTree:
        """The tree that the line is written or followed in."""
        return FilesetTree(self.runtime, self.fileset)

    @property
    @abstractmethod
    def live(self) -> HeadRef | None:
        """The generation that is served here."""

    def home_state(self) -> HomeState:
        """How the line is at this home: also why the tree may have other contents than the newest generation."""
        standing, reason = self.standing, ""
        if standing.standing is not Standing.IN_STEP or standing.code == UNPUBLISHED:
            reason = (standing.reason or standing.standing.value)[:REASON_MAX]
        going, refused = self.rollout_now()
        is_working = standing.standing is Standing.APPLYING
        external = self.fileset.external
        return HomeState(self.live, reason, external, going, refused[:REASON_MAX], is_working, self.line)

    def rollout_now(self) -> RolloutNow:
        """How the partners of a written line take its newest generation."""
        return RolloutNow()

    @property
    def drivers(self) -> tuple[Driver[Any, Any], ...]:
        """The drivers of all machines of this line."""
        return (self.driver,)

    def broke(self, error: Exception) -> None:
        """The machine broke an invariant: say so until the daemon is restarted."""
        self.take_standing(broken_standing(error))

    async def _root_turned(self, trouble: Trouble | None) -> None:
        """The root cannot be seen any more, or is seen again: then the machine looks at all of it."""
        if self.standing.code == BROKEN:
            return
        if trouble is None:
            self.driver.post(RootBack())
            if self._told is not None and self._told.standing is Standing.IN_STEP:
                return  # That was before; the machine reports the look that it begins.
        await self._stuck(None)

    async def _stuck(self, _: InstepError | None) -> None:
        """The root cannot be seen or a machine of this line cannot carry out an effect now, or both can again."""
        stuck = next((driver.stuck for driver in self.drivers if driver.stuck is not None), None)
        trouble = self.root.trouble or (trouble_of(stuck) if stuck is not None else None)
        if trouble is not None:
            await self._stand(stuck_standing(trouble))
        elif self._told is not None:
            await self._report(self._told)

    async def _report(self, told: FollowReport | PublishReport) -> None:
        """The machine reports a standing; while the root cannot be seen, that goes before it."""
        self._told = told
        if self.root.trouble is not None:
            await self._stuck(None)
            return
        steps = self._steps(told)
        await self._stand(StandingRecord(told.standing, wall_ms(), told.reason, told.code, steps))

    def _steps(self, told: FollowReport | PublishReport) -> tuple[str, ...]:
        return told.next_steps

    async def _stand(self, record: StandingRecord) -> None:
        """The time of a standing moves only with the standing or the code."""
        known = self.standing
        is_same = (known.standing, known.code) == (record.standing, record.code)
        self.take_standing(replace(record, since_ms=known.since_ms) if is_same else record)
        self.failures.stands(self.fileset, self.standing, self.live)
        await self._net.report(self.line)

    def take_standing(self, record: StandingRecord) -> None:
        """Show it from now on; trouble and its end are events."""
        self.standing = record
        self._events.take(record)
        self.runtime.tell()


# Before the machine reports: a standing that the saved facts decide alone is shown at once -------------------


def first_writer_standing(line: LineId, facts: PublishFacts) -> StandingRecord:
    """Where a writer's line stands until its machine reports."""
    return _record(publish_stand_of(line, facts, _NOTHING_PUBLISHED))


def first_follower_standing(line: LineId, config: FollowConfig, facts: FollowFacts) -> StandingRecord:
    """Where a followed line stands until its machine reports."""
    return _record(stand_of(line, config, facts, _NOTHING_FOLLOWED))


def _record(found: Stand | PublishReport) -> StandingRecord:
    if found.standing in SAVED:
        return StandingRecord(found.standing, wall_ms(), found.reason, found.code, found.next_steps)
    return StandingRecord(Standing.UNKNOWN, wall_ms(), "starting", "starting")
