"""The rollout of one written line: performs the effects of its ``RolloutMachine``."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from instep.core.rollout import vocabulary as r
from instep.core.rollout.machine import RolloutMachine
from instep.core.vocabulary import Note, SetTimer, TimerFired, Trouble
from instep.model.ids import HeadRef, LineId, NodeName
from instep.model.rollout import RolloutPolicy, Strategy
from instep.net.messages import messages as m
from instep.net.messages.partner_reports import view_of_report
from instep.node.lines.line_net import LineNet
from instep.node.runtime.driver import Driver
from instep.node.runtime.requests import Requests
from instep.node.runtime.runtime import Runtime
from instep.store.port import NodeStore

FAILED = (r.RolloutState.PUT_BACK, r.RolloutState.STOPPED, r.RolloutState.ABORTED)
"""How a rollout ends that did not bring its generation to every partner."""
RETRY_S = 30.0


class RolloutService:
    """One per fileset that is written here."""

    def __init__(self, runtime: Runtime, line: LineId, net: LineNet) -> None:
        self.line = line
        self.view: r.RolloutView | None = None
        """What ``instep rollout show`` prints; None before the first generation."""
        self._runtime = runtime
        self._net = net
        self._followers: tuple[NodeName, ...] = ()
        self.machine = RolloutMachine(line, saved_rollout(runtime.store, line), runtime.settings.poll_ms)
        self.driver: Driver[r.RolloutEvent, r.RolloutEffect] = Driver(
            f"rollout {line}", self.machine, self._perform, TimerFired, runtime.directory.records
        )
        self._requests: Requests[r.RolloutEvent, Trouble | None] = Requests(self.driver.post)

    @property
    def facts(self) -> r.RolloutFacts:
        return self.machine.facts

    # Life ---------------------------------------------------------------------------------------------------

    def begin(self, head: HeadRef | None, policy: RolloutPolicy) -> None:
        """First of all: the line's head when its service starts, and the policy that this head names."""
        self.reconfigure(policy)
        self.partners_changed()
        signed = self._runtime.store.generation(head.id) if head is not None else None
        self.driver.post(r.RolloutStarted(head, signed.body().author if signed is not None else ""))

    def reconfigure(self, policy: RolloutPolicy) -> None:
        """The policy that the head names; a partner that is away for longer than a poll interval is absent."""
        self.driver.post(r.PolicyChanged(policy, self._runtime.settings.poll_ms))

    async def run(self) -> None:
        """Own the machine until cancelled."""
        try:
            await self.driver.run()
        finally:
            self._requests.close()

    async def ask(self, make: Callable[[int], r.Ask | r.AnswersDiffered], timeout_s: float) -> Trouble | None:
        """Hand in an operator's request; return why nothing was done, None when it was. ``TimeoutError`` at the
        deadline. Raises why it cannot be recorded."""
        await self.driver.hurry()
        return await self.driver.unless_stuck(self._requests.ask(make, timeout_s))

    @property
    def has_failed(self) -> bool:
        """Whether the last rollout ended before every partner had its generation."""
        return self.facts.state in FAILED

    async def begin_anew(self) -> None:
        """Begin a failed rollout again; nothing where none failed. ``TimeoutError`` at the deadline."""
        if self.has_failed:
            await self.ask(r.BeginAnewAsked, RETRY_S)

    # The events ---------------------------------------------------------------------------------------------

    def published(self, head: HeadRef, before: HeadRef | None, author: str, policy: RolloutPolicy) -> None:
        """``head`` was announced after ``before``."""
        self.reconfigure(policy)
        self.driver.post(r.HeadPublished(head, before, author))

    def partners_changed(self) -> None:
        """The partners that take part may have changed: post an event when they did."""
        followers = self._net.followers(self.line)
        if followers != self._followers:
            self._followers = followers
            self.driver.post(r.PartnersChanged(followers))

    def reported(self, report: m.Report) -> None:
        """A direct partner reported its standing; a hub's reports of others decide nothing here."""
        if not report.via:
            self.partners_changed()
            self.driver.post(r.PartnerReported(report.node, view_of_report(report)))

    def lost(self, node: NodeName) -> None:
        self.driver.post(r.PartnerLost(node))

    # Effects ------------------------------------------------------------------------------------------------

    async def _perform(self, effect: r.RolloutEffect) -> None:
        store = self._runtime.store
        match effect:
            case r.SaveRollout(facts):
                store.save_rollout(self.line, msgspec.msgpack.encode(facts), durable=_has_ordered(facts))
            case r.GiveOrder(node, order):
                self._net.order(self.line, node, order)
            case r.KeepRollout(facts):
                store.keep_rollout(self.line, msgspec.msgpack.encode(facts), durable=_has_ordered(facts))
            case r.ShowRollout(view):
                self.view = view
                self._runtime.tell()
            case r.GiveRolloutAnswer(request, trouble):
                self._requests.answer(request, trouble)
            case Note(what, text, facts_of_note):
                self._runtime.note(what, text, self.line, **dict(facts_of_note))
            case SetTimer(name, at_ms):
                self.driver.set_timer(name, at_ms)


def _has_ordered(facts: r.RolloutFacts) -> bool:
    """Whether orders may follow from these facts. Where no node waits for a permit there are none, and a publish
    does not wait for the disk: after a power cut the rollout begins anew from the head."""
    is_idle = facts.policy.strategy is Strategy.AUTO and not facts.granted and not facts.failed_code
    return not is_idle or bool(facts.retry_serial or facts.reload_serial) or facts.is_paused


def saved_rollout(store: NodeStore, line: LineId) -> r.RolloutFacts | None:
    """The facts that the line's machine saved last, None before the first."""
    raw = store.load_rollout(line)
    return msgspec.msgpack.decode(raw, type=r.RolloutFacts) if raw is not None else None


def finished_rollouts(store: NodeStore, line: LineId, limit: int) -> list[r.RolloutFacts]:
    """The newest finished rollouts, newest first."""
    return [msgspec.msgpack.decode(raw, type=r.RolloutFacts) for raw in store.rollouts(line, limit)]
