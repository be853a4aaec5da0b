"""A profile as people see it: its rules, its last run, and whether both sides are in sync as both homes are now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from instep.api.changes import sync as api
from instep.core.sync.table import Side
from instep.model.counts import counted
from instep.model.external import why_unmarked
from instep.model.paths import path_fields
from instep.model.sync import SyncBase, SyncPhase
from instep.net.messages.syncing import EDITS_SENT
from instep.node.config.sync import SyncSettings
from instep.node.lines.snapshot import externals_of, moment
from instep.node.syncing.sync_runs import HomeLook
from instep.node.syncing.sync_schedule import DealtTicks

Looks = Mapping[Side, HomeLook]


class ProfileView:
    """``base`` is the newest one that is kept here, ``last`` the run under way or the last one."""

    def __init__(
        self, profile: SyncSettings, base: SyncBase | None, last: api.SyncRunDocument | None
    ) -> None:
        self._profile = profile
        self._base = base
        self._last = last

    def document(self, looks: Looks, dealt: DealtTicks | None, next_s: int | None) -> api.SyncProfileDocument:
        """``looks`` are what the homes answered; none where another home carries the runs out."""
        profile = self._profile
        why_not = "; also: ".join(self._whys(looks)) or None
        edits = [
            api.SyncLockedEditDocument(
                side=side.value, kind=edit.kind, since=moment(edit.at_ms), **path_fields(edit.path)
            )
            for side, look in looks.items()
            if look.reply is not None
            for edit in look.reply.edits
        ]
        return api.SyncProfileDocument(
            name=profile.name,
            left=str(profile.left),
            right=str(profile.right),
            direction=profile.direction.value,
            initiators=tuple(sorted(profile.may_start)),
            carried_out_by=profile.carrier,
            kinds=tuple(
                api.SyncKindDocument(
                    name=each.name,
                    paths=each.paths,
                    direction=each.direction.value,
                    locked=each.locked.value if each.locked is not None else None,
                    lock_enforce=each.lock_enforce.value,
                    merge=each.merge.value if each.merge is not None else None,
                    validate=each.validate is not None,
                    gates=each.gates,
                )
                for each in profile.kinds.values()
            ),
            in_sync=why_not is None,
            why_not=why_not,
            last=self._last,
            schedule=self._schedule(dealt, next_s),
            gates=profile.gates,
            locked_edits=tuple(edits[:EDITS_SENT]),
            locked_edits_total=_edits(looks),
            locked_unknown=self._locked_unknown(looks),
        )

    # --- whether it is in sync --------------------------------------------------------------------------------------

    def _whys(self, looks: Looks) -> Iterator[str]:
        """Why the two sides may differ, or are not said to be alike."""
        if not looks:
            yield f"{self._profile.carrier} carries it out and knows"
        else:
            of_runs = self._why_of_runs()
            if of_runs is not None:
                yield of_runs
            for side, look in looks.items():
                of_home = self._why_of_home(side, look, is_run_over=of_runs is None)
                if of_home is not None:
                    yield of_home
        edits = _edits(looks)
        if edits:
            yield f"{counted(edits, 'path')} changed where the kind is locked"
        for side in Side:
            unmarked = self._unmarked(side, looks.get(side))
            if unmarked is not None:
                yield unmarked

    def _why_of_runs(self) -> str | None:
        last = self._last
        if self._base is None:
            return "no run has ended yet"
        if last is not None and last.phase == SyncPhase.INCOMPLETE:
            return f"the last run left {counted(last.undone_total, 'path')} undone"
        if last is not None and last.phase != SyncPhase.DONE:
            return f"the last run: {last.phase}"
        if last is not None and last.left_out_total:
            homes = sorted({(last.left if x.side == Side.LEFT else last.right).node for x in last.left_out})
            return f"{counted(last.left_out_total, 'path')} left out that {' and '.join(homes)} alone ignores"
        return None if self._base.is_whole else "the last run left paths undone"

    def _why_of_home(self, side: Side, look: HomeLook, *, is_run_over: bool) -> str | None:
        """``is_run_over``: all that the last run knew was brought together; else other heads are no news."""
        settings, base = self._profile.side(side), self._base
        if look.error is not None:
            return f"{settings.home} cannot be asked: {look.error.reason}"
        assert look.reply is not None
        state = look.reply.state
        if state is None:
            return f"{settings.home} does not say whether {settings.fileset} has changed: upgrade it"
        if state.refused:
            return f"partners of {settings.home} refused its newest generation: {state.refused}"
        known = (
            base.left if base is not None and side is Side.LEFT else base.right if base is not None else None
        )
        if is_run_over and known is not None and (state.head is None or state.head.id != known.id):
            return f"{settings} has changed since the last run"
        return f"{settings.home}: {state.reason}" if state.reason else None

    def _unmarked(self, side: Side, look: HomeLook | None) -> str | None:
        """The databases that nothing is said of: as the home names them now, else as the last run found them."""
        last = self._last
        if look is not None and look.reply is not None and look.reply.state is not None:
            named = look.reply.state.external
        else:
            known = None if last is None else last.left if side is Side.LEFT else last.right
            named = externals_of(known.external if known is not None else ())
        return why_unmarked(named, str(self._profile.side(side)))

    def _locked_unknown(self, looks: Looks) -> str | None:
        locked = {each.locked for each in self._profile.kinds.values()}
        for side, look in looks.items():
            if side in locked and look.error is not None:
                where = self._profile.side(side)
                return f"{where} does not say which locked paths were changed there: {look.error.reason}"
        return None

    # --- runs by themselves -----------------------------------------------------------------------------------------

    def _schedule(self, dealt: DealtTicks | None, next_s: int | None) -> api.SyncScheduleDocument | None:
        profile, last = self._profile, self._last
        if profile.schedule is None:
            return None
        missed_at = moment(dealt.missed_s * 1000) if dealt is not None and dealt.missed_s else None
        if missed_at is not None and last is not None and (last.started_at or "") >= missed_at:
            missed_at = None
        return api.SyncScheduleDocument(
            cron=profile.cron,
            zone=str(profile.zone),
            next_at=moment(next_s * 1000) if next_s is not None else None,
            missed_at=missed_at,
            missed_because=dealt.reason if dealt is not None and missed_at is not None else "",
        )


def _edits(looks: Looks) -> int:
    """The edits of locked paths, at both homes."""
    return sum(look.reply.total for look in looks.values() if look.reply is not None)
