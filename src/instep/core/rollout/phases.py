"""The states of a rollout as data: which events can end each, and which states may follow.

Events of reports and timers move a rollout; a new head begins the next one at the barrier, whatever the state is."""

from __future__ import annotations

from instep.core.contract import PhaseRow
from instep.core.rollout import vocabulary as v
from instep.core.rollout.vocabulary import RolloutState
from instep.core.vocabulary import TimerFired

_NEWS = (v.PartnerReported, v.PartnerLost, v.PartnersChanged, TimerFired, v.PolicyChanged)
_ASKED = (v.AbortAsked, v.ResumeAsked, v.AnswersDiffered)
_ANEW = (v.HeadPublished, v.RolloutStarted)
_FAILS = "putting_back put_back stopped aborted"

PHASES = {
    RolloutState(row.phase): row
    for row in (
        PhaseRow("none", (), _ANEW, "barrier waves watching confirming done"),
        PhaseRow(
            "barrier",
            (v.GiveOrder,),
            (*_NEWS, *_ASKED, *_ANEW),
            f"waves watching confirming done {_FAILS}",
        ),
        PhaseRow(
            "waves",
            (v.GiveOrder,),
            (*_NEWS, *_ASKED, *_ANEW),
            f"barrier watching confirming done {_FAILS}",
        ),
        PhaseRow(
            "watching",
            (v.GiveOrder,),
            (*_NEWS, *_ASKED, *_ANEW),
            f"barrier waves confirming done {_FAILS}",
        ),
        PhaseRow(
            "confirming",
            (v.GiveOrder,),
            (*_NEWS, v.ConfirmAsked, *_ASKED, *_ANEW),
            f"barrier waves done {_FAILS}",
        ),
        PhaseRow(
            "done",
            (v.GiveOrder,),
            (v.AnswersDiffered, v.BeginAnewAsked, *_NEWS, *_ANEW),
            f"barrier waves {_FAILS}",
        ),
        PhaseRow(
            "putting_back",
            (v.GiveOrder,),
            (*_NEWS, v.BeginAnewAsked, *_ANEW),
            "barrier waves put_back aborted",
        ),
        PhaseRow("put_back", (), (v.BeginAnewAsked, *_ANEW), "barrier waves watching confirming done"),
        PhaseRow("stopped", (), (v.BeginAnewAsked, *_ANEW), "barrier waves watching confirming done"),
        PhaseRow("aborted", (), (v.BeginAnewAsked, *_ANEW), "barrier waves watching confirming done"),
        PhaseRow("superseded", (), _ANEW, "barrier waves watching confirming done"),
    )
}
