"""Events, effects, facts and view of the ``RolloutMachine``: one written line's way through its partners."""

from __future__ import annotations

import enum

import msgspec

from instep.core.vocabulary import MachineWord, Note, SetTimer, TimerFired, Trouble
from instep.core.vocabulary import PartnerReport as PartnerReport
from instep.model.ids import HeadRef, NodeName
from instep.model.rollout import Approval, Order, RolloutPolicy


class RolloutState(enum.Enum):
    NONE = "none"
    BARRIER = "barrier"
    WAVES = "waves"
    WATCHING = "watching"
    CONFIRMING = "confirming"
    DONE = "done"
    PUTTING_BACK = "putting_back"
    PUT_BACK = "put_back"
    STOPPED = "stopped"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"


_ENDED = (
    RolloutState.NONE,
    RolloutState.DONE,
    RolloutState.PUT_BACK,
    RolloutState.STOPPED,
    RolloutState.ABORTED,
    RolloutState.SUPERSEDED,
)


def ended(state: RolloutState) -> bool:
    """Whether a rollout in this state changes by itself no more."""
    return state in _ENDED


class RolloutFacts(msgspec.Struct, frozen=True, array_like=True):
    """The intent, durable before any order that follows from it. The acts of the nodes are not here: their reports
    have them. ``granted`` are the nodes that got a permit for ``target``, in that order; ``serial`` belongs to the
    newest order of the line and only rises; ``attempt`` counts the rollouts of ``target``. ``finishing`` got a permit
    for the head before and may still be on their way to it. ``reload_serial`` is the serial of the last order to
    reload, 0 when there was none. ``is_watched`` once the first wave of a canary stood its time. ``permits`` are the
    serials of the permits of ``granted``, in the same order; they are unknown for permits that an older version
    granted. ``retry_serial`` belongs to the last retry, 0 without one: a refusal reported with a lower one is
    older."""

    version: int = 1
    target: HeadRef | None = None
    replaced: HeadRef | None = None
    policy: RolloutPolicy = RolloutPolicy()
    state: RolloutState = RolloutState.NONE
    granted: tuple[NodeName, ...] = ()
    serial: int = 0
    is_paused: bool = False
    is_watched: bool = False
    is_confirmed: bool = False
    reload_serial: int = 0
    failed_node: NodeName | None = None
    failed_code: str = ""
    failed_reason: str = ""
    author: str = ""
    started_wall_ms: int = 0
    ended_wall_ms: int | None = None
    retry_serial: int = 0
    reloads_together: bool = False
    attempt: int = 1
    finishing: tuple[NodeName, ...] = ()
    permits: tuple[int, ...] = ()
    approved_by: str = ""
    """The persons who let the partners have it; empty until then, and where it waits for no approval."""
    unapproved: tuple[str, ...] = ()
    """The persons whose changes came with earlier generations, without an approval."""
    approvals: tuple[str, ...] = ()
    """The callers who approved it so far."""

    @property
    def is_to_approve(self) -> bool:
        """Whether it waits for the word of a person before any partner may switch."""
        is_asked = self.policy.approve is not Approval.OFF and not self.approved_by
        return is_asked and self.state is RolloutState.BARRIER


# --- events -------------------------------------------------------------------------------------------------


class RolloutStarted(MachineWord):
    """First event after birth. ``head`` is the line's head, or None before the first generation."""

    head: HeadRef | None = None
    author: str = ""


class PolicyChanged(MachineWord):
    """Counts from the next rollout on: one that runs keeps the policy that it began with. ``absent_after_ms`` is how
    long a partner may be out of contact before it counts as absent, at once; None leaves it."""

    policy: RolloutPolicy
    absent_after_ms: int | None = None


class PartnersChanged(MachineWord):
    """The partners that may have the line, whether reachable or not: whole list each time."""

    partners: tuple[NodeName, ...]


class HeadPublished(MachineWord):
    """``head`` was committed; ``replaced`` was the head before it."""

    head: HeadRef
    replaced: HeadRef | None = None
    author: str = ""


class PartnerReported(MachineWord):
    """A partner reported: on every change, and anew on every connection. The present order is given again
    when the report does not name its serial."""

    node: NodeName
    report: PartnerReport


class PartnerLost(MachineWord):
    node: NodeName


class RolloutAsked(MachineWord):
    """An operator's command about the rollout: one ``GiveRolloutAnswer`` repeats ``request``. A base of events."""

    request: int


class PauseAsked(RolloutAsked): ...


class ResumeAsked(RolloutAsked): ...


class AbortAsked(RolloutAsked):
    """``instep rollout abort``: no further permits; with ``puts_back`` the switched nodes go back."""

    puts_back: bool = True


class ConfirmAsked(RolloutAsked): ...


class ApproveAsked(RolloutAsked):
    """``person`` says that the partners may have the generation: the one of this ``number``, where it is named."""

    person: str = ""
    number: int | None = None


class BeginAnewAsked(RolloutAsked):
    """Begin the ended rollout of the head anew."""


class ReloadAsked(RolloutAsked):
    """Run every partner's reload hook on what is live: at once, or ``is_rolling``, a batch at a time and drained."""

    is_rolling: bool = False


class AnswersDiffered(RolloutAsked):
    """Users get other answers since ``head`` is live: a failure of no single node. Done does not keep it from being
    put back. Answered like an ``Ask``."""

    head: HeadRef
    reason: str


Ask = PauseAsked | ResumeAsked | AbortAsked | ConfirmAsked | ApproveAsked | BeginAnewAsked | ReloadAsked

RolloutEvent = (
    RolloutStarted
    | PolicyChanged
    | PartnersChanged
    | HeadPublished
    | PartnerReported
    | PartnerLost
    | AnswersDiffered
    | Ask
    | TimerFired
)


# --- effects ------------------------------------------------------------------------------------------------


class SaveRollout(MachineWord):
    """Make ``facts`` durable before any effect that follows."""

    facts: RolloutFacts


class GiveOrder(MachineWord):
    """Send the whole present order to ``node``; no answer: its report says what it holds. Not reachable:
    drop it, its next report brings it again."""

    node: NodeName
    order: Order


class GiveRolloutAnswer(MachineWord):
    """Answer the asker whose ``request`` number this is; ``trouble`` when nothing was done."""

    request: int
    trouble: Trouble | None = None


class KeepRollout(MachineWord):
    """The rollout ended: keep this row of the history."""

    facts: RolloutFacts


class NodeView(MachineWord):
    """One partner in a rollout. ``state`` is one of ``staging``, ``staged``, ``permitted``, ``switching``,
    ``switched``, ``putting_back``, ``put_back``, ``failed``, ``left_out``, ``unreachable``."""

    node: NodeName
    state: str
    wave: int | None
    reason: str | None
    is_drained: bool


class RolloutView(MachineWord):
    """What ``instep rollout show`` prints. ``reason`` says what it waits for or why it ended."""

    facts: RolloutFacts
    reason: str
    nodes: tuple[NodeView, ...]


class ShowRollout(MachineWord):
    """The view changed."""

    view: RolloutView


RolloutEffect = SaveRollout | GiveOrder | GiveRolloutAnswer | KeepRollout | ShowRollout | Note | SetTimer
