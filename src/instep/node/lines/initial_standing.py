"""How a line stands from the moment its service exists: a standing that its saved facts decide alone is shown at
once."""

from __future__ import annotations

from instep.core.follow.standing import Seen, Stand, stand_of
from instep.core.follow.vocabulary import FollowConfig, FollowFacts
from instep.core.publish.standing import PublishSeen, publish_stand_of
from instep.core.publish.vocabulary import PublishFacts, PublishReport
from instep.model.ids import LineId
from instep.model.standing import Standing, StandingRecord
from instep.node.runtime.driver import wall_ms

SAVED = (Standing.PAUSED, Standing.BLOCKED, Standing.FAILING)
"""With nothing seen yet only saved facts lead to these; any other standing wants a look at tree or partners."""
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
