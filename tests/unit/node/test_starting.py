"""The standing of a line before its machine took the first event."""

from __future__ import annotations

from instep.core.follow.vocabulary import DriftPolicy, FollowConfig, FollowFacts
from instep.core.publish.vocabulary import PublishFacts
from instep.model.ids import FilesetName, LineId, NodeName
from instep.model.standing import Standing
from instep.node.lines.line_standing import first_follower_standing, first_writer_standing

LINE = LineId(FilesetName("data"), NodeName("main"))


def follow_config() -> FollowConfig:
    return FollowConfig(writer=NodeName("main"), drift=DriftPolicy.REVERT)


def test_a_saved_pause_is_told_at_once() -> None:
    """Goal: a status right after a start shows the pause. Method: facts as saved, no machine, no driver."""
    writer = first_writer_standing(LINE, PublishFacts(is_paused=True, paused_reason="works"))
    follower = first_follower_standing(LINE, follow_config(), FollowFacts(is_paused=True))
    assert (writer.standing, writer.reason) == (Standing.PAUSED, "works")
    assert follower.standing is Standing.PAUSED


def test_what_wants_a_look_is_unknown_until_then() -> None:
    """Goal: nothing is called in step, behind or out of reach before the first look."""
    assert first_writer_standing(LINE, PublishFacts()).code == "starting"
    assert first_follower_standing(LINE, follow_config(), FollowFacts()).code == "starting"
