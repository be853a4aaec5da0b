"""How a followed line stands, derived from the machine's state: one pure function, worst truth first."""

from __future__ import annotations

from dataclasses import dataclass

from instep.core.follow.floor import STATE_OLDER, is_below, why_held
from instep.core.follow.vocabulary import DriftPolicy, Due, FollowConfig, FollowFacts
from instep.core.heads.stand import (
    Stand,
    between_claimants,
    disputed,
    heard_of,
    named,
    of_trouble,
    out_of_reach,
    without_writer,
)
from instep.core.hook_writes import HOOK_WRITES, hook_steps, hook_words
from instep.core.rescan import not_all_watched
from instep.core.vocabulary import HookWrite, Trouble
from instep.model.counts import counted, which
from instep.model.ids import HeadRef, LineId, NodeName
from instep.model.paths import shown
from instep.model.standing import Standing

NAMED_MAX = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """The inputs of the standing besides the facts."""

    is_working: bool
    is_source_up: bool
    is_contact_lost: bool
    trouble: Trouble | None
    """The trouble that stopped the apply, the put-back, the recovery or a hook last, until it succeeds."""
    offer_trouble: Trouble | None
    """Why the writer's own offer was refused, until a head is accepted."""
    drifted: tuple[bytes, ...]
    drifted_total: int
    fought: tuple[bytes, ...]
    fighters: tuple[str, ...]
    """Which programs were seen writing what is fought over."""
    drift_trouble: Trouble | None
    compared: tuple[int, int, int, tuple[bytes, ...]] | None
    hook_writes: tuple[HookWrite, ...] = ()
    """The drifted paths that hooks of this node wrote."""
    undeclared: tuple[HookWrite, ...] = ()
    """The paths that hooks of this node write, and do not name."""
    waits_for: NodeName | None = None
    """Whose permit is waited for before the switch."""
    owed: Trouble | None = None
    """Why a pending hook beside the apply, such as ``thaw``, failed last."""
    ahead: tuple[NodeName, HeadRef] | None = None
    """The hub that knows a newer head than the line's here, and that head."""
    cut_off: tuple[NodeName, ...] = ()
    """All hubs that the line comes from, where none of them has a source."""
    dated: Stand | None = None
    """Why the head may not be the newest one, by the words of the line's writer."""
    returning: tuple[bytes, ...] = ()
    """The paths that a revert restores, until the look that follows it has seen them."""
    returning_total: int = 0
    offered: tuple[bytes, ...] = ()
    """The drifted paths that were offered to the writer, or are edited under a lock."""
    not_taken: Trouble | None = None
    """Why the writer takes none of them now."""
    was_away: bool = False
    """The root was out of sight, and the tree was not looked at as a whole since."""
    blind: Trouble | None = None
    """Why the watch cannot see all paths."""


_RANK = {standing: rank for rank, standing in enumerate(Standing)}


def stand_of(line: LineId, config: FollowConfig, facts: FollowFacts, seen: Seen) -> Stand:
    """The standing of ``line`` with code, reason and next steps. A pending hook is reported beside every other
    trouble, and first where the other is less."""
    found = _without_owed(line, config, facts, seen)
    if seen.owed is None:
        return found
    owed = of_trouble(line, seen.owed)
    first, second = (found, owed) if _RANK[found.standing] >= _RANK[owed.standing] else (owed, found)
    steps = tuple(dict.fromkeys((*first.next_steps, *second.next_steps)))
    if second.code is None:
        return Stand(first.standing, first.code, first.reason, steps)
    return Stand(first.standing, first.code, f"{first.reason}; also: {second.reason}", steps)


def _without_owed(line: LineId, config: FollowConfig, facts: FollowFacts, seen: Seen) -> Stand:
    if facts.is_paused:
        return Stand(
            Standing.PAUSED,
            "paused",
            facts.paused_reason or "paused here",
            (f"instep resume {line.fileset}",),
        )
    if facts.epochs.disputed is not None:
        return disputed(facts.epochs, between_claimants(line))
    if facts.refused is not None and facts.refused in (facts.tree, facts.head):
        return _refused(line, facts, seen)
    if seen.trouble is not None:
        return of_trouble(line, seen.trouble)
    if config.is_observing:
        return _observing(line, facts, seen)
    if seen.is_working or seen.returning:
        return _working(facts, seen)
    if seen.waits_for is not None:
        return Stand(
            Standing.HELD,
            "awaiting_permit",
            f"{named(facts.head)} is staged and waits for the permit of {seen.waits_for}; "
            f"live is {named(facts.live)}",
            (f"at {seen.waits_for}: instep rollout show {line.fileset}",),
        )
    if seen.offer_trouble is not None:
        return of_trouble(line, seen.offer_trouble)
    if facts.head is None or facts.tree is None or facts.tree.id != facts.head.id:
        return _behind(line, config, facts, seen)
    if facts.due is not Due.NOTHING and not facts.is_doubted:
        return _behind(line, config, facts, seen)
    if seen.drift_trouble is not None:
        return of_trouble(line, seen.drift_trouble)
    if seen.drifted:
        return _drifted(line, config, seen)
    if facts.is_doubted or seen.was_away:
        return _unproven(facts)
    return _at_head(line, config, facts.head, seen)


def _working(facts: FollowFacts, seen: Seen) -> Stand:
    if not seen.returning:
        reason = f"applying {named(facts.head)}, live is {named(facts.live)}"
        return Stand(Standing.APPLYING, None, reason)
    total = seen.returning_total
    reason = f"restoring {counted(total, 'path')} that {which(total, 'was', 'were')} changed here"
    return Stand(Standing.APPLYING, "reverting", f"{reason}: {_named(seen.returning, total)}")


def _named(paths: tuple[bytes, ...], total: int) -> str:
    more = f" and {total - NAMED_MAX} more" if total > NAMED_MAX else ""
    return ", ".join(shown(path) for path in paths[:NAMED_MAX]) + more


def _at_head(line: LineId, config: FollowConfig, head: HeadRef, seen: Seen) -> Stand:
    way_out = without_writer(line, config.writer)
    heard = heard_of(line, head, seen.is_contact_lost, seen.ahead, seen.cut_off, way_out)
    heard = heard or seen.dated
    if heard is not None:
        return heard
    if seen.blind is not None:
        steps = (seen.blind.hint,) if seen.blind.hint else ()
        return Stand(Standing.IN_STEP, seen.blind.code, not_all_watched(seen.blind), steps)
    if seen.undeclared:
        words = hook_words(seen.undeclared)
        reason = f"{words}: that is restored, and once for each generation the hook runs again for it"
        return Stand(Standing.IN_STEP, HOOK_WRITES, reason, hook_steps(seen.undeclared))
    return Stand(Standing.IN_STEP)


def _unproven(facts: FollowFacts) -> Stand:
    """Before the look at the whole tree: after a recovery that is in doubt, when the hooks of the interrupted switch
    wait for the look, and after the root was out of sight."""
    compared = f"the tree is compared with {named(facts.tree)}"
    reason = f"the root was out of sight: {compared}"
    if facts.is_doubted:
        reason = f"another tree than before the interruption: {compared} before it is offered"
    return Stand(Standing.APPLYING, "checking", reason)


def _refused(line: LineId, facts: FollowFacts, seen: Seen) -> Stand:
    assert facts.refused is not None
    reason = f"generation {facts.refused.number}: {facts.refused_reason}"
    if facts.tree == facts.refused:
        also = f"; the put-back waits: {seen.trouble.reason}" if seen.trouble else ""
        back = facts.live if facts.live != facts.tree else facts.replaced
        reason = f"{reason}; putting back {named(back)}{also}"
    else:
        reason = f"{reason}; {named(facts.live)} stays live"
    steps = (
        f"repair the cause, then: instep retry {line.fileset}",
        f"at the writer: instep rollback {line.fileset}{_back(facts)}",
    )
    return Stand(Standing.FAILING, facts.refused_code, reason, steps)


def _back(facts: FollowFacts) -> str:
    return "" if facts.live is None else f" {facts.live.number}"


def _observing(line: LineId, facts: FollowFacts, seen: Seen) -> Stand:
    if facts.head is None:
        return Stand(Standing.OBSERVING, None, "nothing was published yet")
    if seen.compared is None:
        return Stand(Standing.OBSERVING, None, f"comparing with generation {facts.head.number}")
    added, changed, removed, sample = seen.compared
    if not added + changed + removed:
        return Stand(Standing.OBSERVING, None, f"equals generation {facts.head.number}")
    paths = ", ".join(shown(p) for p in sample[:NAMED_MAX])
    more = ", ..." if added + changed + removed > NAMED_MAX else ""
    return Stand(
        Standing.OBSERVING,
        "differs",
        f"differs from generation {facts.head.number}: {added} would be added, {changed} changed, "
        f"{removed} removed" + (f" ({paths}{more})" if paths else ""),
        (f"instep diff {line.fileset}", f"instep fileset accept {line.fileset} PATH --seed"),
    )


def _behind(line: LineId, config: FollowConfig, facts: FollowFacts, seen: Seen) -> Stand:
    floor, head = facts.floor, facts.head
    if floor is not None and (head is None or is_below(head, floor)):
        reason, steps = why_held(line, config.writer, floor, head, is_source_up=seen.is_source_up)
        return Stand(Standing.HELD, STATE_OLDER, reason, steps)
    if facts.head is None:
        if not seen.is_source_up:
            return out_of_reach("no generation is known and no source can be reached")
        return Stand(Standing.UNKNOWN, "no_generation", "nothing was published yet")
    reason = f"live is {named(facts.live)}, head is generation {facts.head.number}"
    if not seen.is_source_up:
        steps = () if facts.live is None else without_writer(line, config.writer)
        return out_of_reach(f"{reason}; no node that has it can be reached", steps)
    return Stand(Standing.BEHIND, None, reason)


def _drifted(line: LineId, config: FollowConfig, seen: Seen) -> Stand:
    if seen.fought:
        by = f"; written by {' and '.join(seen.fighters[:NAMED_MAX])}" if seen.fighters else ""
        return Stand(
            Standing.DRIFTED,
            "drift_fight",
            f"{_named(seen.fought, len(seen.fought))} changed again after being restored three times in ten minutes, "
            f"now left alone{by}",
            (f"stop the program that writes there or ignore the path, then: instep retry {line.fileset}",),
        )
    if seen.offered and len(seen.offered) == len(seen.drifted):
        names = _named(seen.offered, seen.drifted_total)
        where = f"offered to {config.writer}" if seen.is_source_up else f"{config.writer} cannot be reached"
        look = f"instep diff {line.fileset}"
        if seen.not_taken is not None:
            step = seen.not_taken.hint or look
            reason = f"changed here, not taken by {config.writer}: {names}; {seen.not_taken.reason}"
            return Stand(Standing.DRIFTED, seen.not_taken.code, reason, (step,))
        return Stand(Standing.DRIFTED, "offered", f"changed here, {where}: {names}", (look,))
    names = _named(seen.drifted, seen.drifted_total)
    if config.drift is DriftPolicy.OFFER:
        return Stand(
            Standing.DRIFTED,
            "offered",
            f"changed here, to be offered to {config.writer} or set aside: {names}",
            (f"instep diff {line.fileset}",),
        )
    steps = (f"instep verify {line.fileset}",) if config.drift is DriftPolicy.KEEP else ()
    by = f"; {hook_words(seen.hook_writes)}" if seen.hook_writes else ""
    return Stand(Standing.DRIFTED, "drift", f"changed here: {names}{by}", steps)
