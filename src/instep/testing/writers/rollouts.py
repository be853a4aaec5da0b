"""The simulated writer's rollouts: the real ``RolloutMachine`` with its facts on a disk that forgets, its orders on the
stream, and operators who pause, abort, confirm and retry."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from instep.core.rollout import vocabulary as v
from instep.core.rollout.machine import RolloutMachine
from instep.core.vocabulary import Note, SetTimer
from instep.model.ids import HeadRef, NodeName
from instep.model.rollout import RolloutPolicy
from instep.net.messages import messages as m
from instep.net.messages.partner_reports import view_of_report
from instep.testing.checkers.rollout_watch import RolloutWatch
from instep.testing.writers.writer_base import WriterBase

ASKED_AGAIN = (v.RolloutState.PUT_BACK, v.RolloutState.STOPPED, v.RolloutState.ABORTED)


class SimRollouts:
    """Lives and dies with the writer's process."""

    world_machine: Callable[..., RolloutMachine] | None = None
    """A planted machine."""

    def __init__(self, writer: WriterBase, watch: RolloutWatch, policy: RolloutPolicy) -> None:
        self.writer = writer
        self.watch = watch
        self.policy = policy
        self.machine: RolloutMachine | None = None
        self._last_request = 0
        self._impatient = writer.world.stream("impatient")

    def boot(self, head: HeadRef | None) -> None:
        writer = self.writer
        machine_of = self.world_machine or RolloutMachine
        self.machine = machine_of(writer.line, writer.store.rollout, writer.world.options.poll_ms)
        self.watch.writer_woke(self.machine.facts)
        self.say(v.PolicyChanged(self.policy))
        self.say(v.PartnersChanged(tuple(NodeName(n) for n in writer.partners)))
        self.say(v.RolloutStarted(head))
        is_confirming = self.machine.facts.state is v.RolloutState.CONFIRMING
        if is_confirming and writer.world.is_faulty and self._impatient.random() < 0.5:
            # Typed as soon as the writer is back, whatever became of the nodes meanwhile.
            self.ask(v.ConfirmAsked)

    def say(self, event: v.RolloutEvent) -> None:
        """Into the inbox, in order."""
        self.writer.later(0, lambda: self._take(event))

    def _take(self, event: v.RolloutEvent) -> None:
        self.writer.drive(self.machine, event, self._perform)

    def _perform(self, effect: Any) -> None:
        writer = self.writer
        match effect:
            case v.SaveRollout():
                self.watch.rollout_saved(effect.facts)
                writer.store.rollout = effect.facts
            case v.GiveOrder():
                assert self.machine is not None
                self.watch.ordered(effect.node, effect.order)
                if effect.node in writer.sessions:
                    order = m.OrderMessage(writer.line, effect.order)
                    writer.net.stream(writer.name, effect.node, m.encode(order))
            case v.KeepRollout():
                self.watch.rollout_ended(effect.facts)
            case v.GiveRolloutAnswer():
                self.watch.answered(effect.request, effect.trouble, writer.store.rollout)
            case SetTimer():
                writer.set_timer(effect, self._take)
            case v.ShowRollout():
                self.watch.shown(effect.view)
            case Note():
                pass

    def reported(self, sender: str, report: m.Report) -> None:
        if report.via or report.node != sender:
            return
        self.say(v.PartnerReported(NodeName(sender), view_of_report(report)))

    # --- operators ------------------------------------------------------------------------------------------

    def ask(self, make: Callable[[int], v.RolloutEvent]) -> None:
        if self.writer.is_alive and self.machine is not None:
            self._last_request += 1
            self.watch.asked(self._last_request)
            self.say(make(self._last_request))

    def ask_something(self, people: Random) -> None:
        """Draw a command that a person at the writer might type now."""
        kinds: tuple[Callable[[int], v.RolloutEvent], ...] = (
            v.PauseAsked,
            v.ResumeAsked,
            v.ResumeAsked,
            v.ConfirmAsked,
            v.ConfirmAsked,
            v.BeginAnewAsked,
            lambda number: v.ReloadAsked(number, is_rolling=people.random() < 0.5),
            self._answers_differ,
            lambda number: v.AbortAsked(number, puts_back=people.random() < 0.5),
        )
        is_confirming = self.watch.facts.state is v.RolloutState.CONFIRMING
        self.ask(v.ConfirmAsked if is_confirming and people.random() < 0.8 else people.choice(kinds))

    def _answers_differ(self, number: int) -> v.RolloutEvent:
        """The writer asked through the balancer, and users would get other answers."""
        target = self.watch.facts.target
        return (
            v.BeginAnewAsked(number) if target is None else v.AnswersDiffered(number, target, "other pixels")
        )

    def end_well(self) -> None:
        """After the faults: an operator resumes, confirms, and begins anew a rollout that did not end well."""
        if self.machine is None or not self.writer.is_alive:
            return
        facts = self.machine.facts
        if facts.is_paused:
            self.ask(v.ResumeAsked)
        if facts.state is v.RolloutState.CONFIRMING:
            self.ask(v.ConfirmAsked)
        elif facts.state in ASKED_AGAIN:
            self.ask(v.BeginAnewAsked)
