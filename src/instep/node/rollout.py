"""The rollout of one written line: performs the effects of its ``RolloutMachine``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from instep.core import rollout_vocabulary as r
from instep.core.vocabulary import Note, SetTimer, TimerFired, Trouble
from instep.model.ids import HeadRef, LineId, NodeName
from instep.net import messages as m
from instep.node.driver import Driver, Machine
from instep.node.line_net import LineNet
from instep.node.runtime import Runtime

__all__ = ["RolloutService", "view_of_report"]


class RolloutService:
    """One per fileset that is written here. ``make`` makes the machine from the facts that were saved last."""

    def __init__(
        self,
        runtime: Runtime,
        line: LineId,
        net: LineNet,
        make: Callable[[r.RolloutFacts | None], Machine[r.RolloutEvent, r.RolloutEffect]],
    ) -> None:
        self.line = line
        self.view: r.RolloutView | None = None
        self._runtime = runtime
        self._net = net
        self._request = 0
        self._requests: dict[int, asyncio.Future[Trouble | None]] = {}
        raw = runtime.store.load_rollout(line)
        facts = msgspec.msgpack.decode(raw, type=r.RolloutFacts) if raw is not None else None
        self.driver: Driver[r.RolloutEvent, r.RolloutEffect] = Driver(
            f"rollout {line}", make(facts), self._perform, TimerFired
        )

    async def run(self, head: HeadRef | None) -> None:
        """Own the machine until cancelled; ``head`` is the line's when it begins."""
        self.driver.post(r.Started(head))
        try:
            await self.driver.run()
        finally:
            for future in self._requests.values():
                future.cancel()

    async def ask(self, make: Callable[[int], r.Ask], timeout_s: float) -> Trouble | None:
        """What an operator asks; why nothing was done, None when it was. ``TimeoutError`` at the deadline."""
        self._request += 1
        number = self._request
        future: asyncio.Future[Trouble | None] = asyncio.get_running_loop().create_future()
        self._requests[number] = future
        try:
            self.driver.post(make(number))
            async with asyncio.timeout(timeout_s):
                return await future
        finally:
            del self._requests[number]

    def reported(self, report: m.Report) -> None:
        """A direct partner told how it stands; what hubs tell of others decides nothing here."""
        if not report.via:
            self.driver.post(r.PartnerSeen(report.node, view_of_report(report)))

    def lost(self, node: NodeName) -> None:
        self.driver.post(r.PartnerLost(node))

    async def _perform(self, effect: r.RolloutEffect) -> None:
        store = self._runtime.store
        match effect:
            case r.SaveRollout(facts):
                store.save_rollout(self.line, msgspec.msgpack.encode(facts))
            case r.GiveOrder(node, order):
                self._net.order(self.line, node, order)
            case r.KeepRollout(facts):
                store.keep_rollout(self.line, msgspec.msgpack.encode(facts))
            case r.ShowRollout(view):
                self.view = view
                self._runtime.tell()
            case r.Answer(request, trouble):
                future = self._requests.get(request)
                if future is not None and not future.done():
                    future.set_result(trouble)
            case Note(what, text, facts_of_note):
                self._runtime.note(what, text, self.line, **dict(facts_of_note))
            case SetTimer(name, None):
                self.driver.cancel_timer(name)
            case SetTimer(name, at_ms):
                assert at_ms is not None
                self.driver.set_timer(name, at_ms)


def view_of_report(report: m.Report) -> r.PartnerReport:
    """What the machine decides by."""
    return r.PartnerReport(
        standing=report.standing.standing,
        head=report.head,
        live=report.live,
        tree=report.tree,
        staged=report.staged,
        replaced=report.replaced,
        refused=report.refused,
        code=report.standing.code,
        reason=report.standing.reason,
        waits_for_permit=report.waits_for_permit,
        is_drained=report.is_drained,
        drain_reason=report.drain_reason or None,
        order_serial=report.order_serial,
    )
