"""A lease held by this node: its machine, the database that grants it, and the program or service under it."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from instep.core.cluster import lease_words as w
from instep.core.cluster.lease import LeaseMachine, LeasePhase, usual_grace_ms
from instep.core.cluster.lease_words import LeaseEffect, LeaseEvent, WhyStopped
from instep.core.vocabulary import Note, SetTimer, Started, TimerFired, trouble_of
from instep.errors import ContentionError, InstepError
from instep.model.lease import LeaseFence
from instep.node.cluster.service import ClusterService
from instep.node.runtime.driver import Driver
from instep.store.cluster.leases import Denied, Granted, check_lease, give_back_lease, renew_lease, take_lease

ANSWER_S = 10.0
"""How long one request to the database may take, with the wait for a connection; then it has failed."""


class LeaseHolder(Protocol):
    """What runs under a lease. The calls come from the event loop and return at once."""

    def began(self, fence: LeaseFence, until_ms: int) -> None:
        """The lease is held: run, and be stopped by ``until_ms`` of the clock since boot, unless ``extended``."""
        ...

    def extended(self, fence: LeaseFence, until_ms: int) -> None:
        """It is held for longer, from now on under this fence."""
        ...

    def must_stop(self, why: WhyStopped, until_ms: int) -> None:
        """Stop, by ``until_ms``; then call ``LeaseHold.stopped``."""
        ...

    def denied(self, answer: w.LeaseDenied | w.LeaseFailed) -> None:
        """The lease cannot be had now, and is asked for again. Told once for each reason."""
        ...


class LeaseHold:
    """One lease and its holder. ``run`` ends once it was released, or is cancelled: then the lease runs out."""

    def __init__(
        self,
        service: ClusterService,
        name: str,
        ttl_ms: int,
        holder: LeaseHolder,
        grace_ms: int | None = None,
    ) -> None:
        self._service, self.name, self._ttl_ms, self._holder = service, name, ttl_ms, holder
        self.session = f"{service.session}:{secrets.token_hex(8)}"
        """Two holders on one node are two sessions."""
        self.machine = LeaseMachine(
            ttl_ms, usual_grace_ms(ttl_ms) if grace_ms is None else grace_ms, random.Random()
        )
        self._driver: Driver[LeaseEvent, LeaseEffect] = Driver(
            f"lease {name}", self.machine, self._perform, TimerFired, service.runtime.directory.records
        )
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Take the lease, hold it, and give it back at the end."""
        self._service.on_change(self._heard)
        self._driver.begin(Started())
        loop = asyncio.get_running_loop()
        driving, ended = loop.create_task(self._driver.run()), loop.create_task(self._ended.wait())
        try:
            await asyncio.wait([driving, ended], return_when=asyncio.FIRST_COMPLETED)
            if driving.done():
                driving.result()
        finally:
            self._service.forget(self._heard)
            driving.cancel()
            ended.cancel()
            await asyncio.gather(driving, ended, return_exceptions=True)

    def stopped(self) -> None:
        """Whatever ran under the lease has ended."""
        self._driver.post(w.HolderStopped())

    def release(self) -> None:
        """The lease is wanted no more. A holder that runs stops first."""
        self._driver.post(w.ReleaseLease())

    async def wait_until_ended(self) -> None:
        """Return once a released lease was given back, or cannot be."""
        await self._ended.wait()

    async def check(self) -> LeaseFence:
        """The fence, when the database says now that the lease is in force under it. ``ContentionError`` ``fenced`` or
        ``lease_lost`` when it is not."""
        fence = self.machine.fence
        if fence is None:
            raise lease_lost(self.name)
        async with self._service.transaction() as (transaction, era):
            await check_lease(transaction, era, self.name, self.session, fence)
        return fence

    def _heard(self, topic: str) -> None:
        # A holder renews for a change of its own lease only: where topics are not known, each renewal is a change.
        is_waiting = self.machine.phase is LeasePhase.ASKING
        if topic in ("era", f"lease:{self.name}") or (topic == "" and is_waiting):
            self._driver.post(w.LeaseChanged())

    async def _perform(self, effect: LeaseEffect) -> None:
        match effect:
            case w.TakeLease(req):
                self._ask(req, partial(self._take, req))
            case w.RenewLease(req, fence):
                self._ask(req, partial(self._renew, req, fence))
            case w.GiveBackLease(req, fence):
                self._ask(req, partial(self._give_back, req, fence))
            case w.BeginHolding(fence, until_ms):
                self._holder.began(fence, until_ms)
            case w.ExtendHolding(fence, until_ms):
                self._holder.extended(fence, until_ms)
            case w.StopHolding(why, until_ms):
                self._holder.must_stop(why, until_ms)
            case w.LeaseDeniedTo(answer):
                self._holder.denied(answer)
            case SetTimer(name, at_ms):
                self._driver.set_timer(name, at_ms)
            case w.LeaseEnded():
                self._ended.set()
            case Note():
                pass

    def _ask(self, req: int, work: Callable[[], Awaitable[LeaseEvent]]) -> None:
        self._driver.spawn(_within(work), partial(_failed, req))

    async def _take(self, req: int) -> LeaseEvent:
        async with self._service.transaction() as (transaction, era):
            name = self._service.runtime.name
            answer = await take_lease(transaction, era, self.name, name, self.session, self._ttl_ms)
        return _answer(req, answer)

    async def _renew(self, req: int, fence: LeaseFence) -> LeaseEvent:
        async with self._service.transaction() as (transaction, era):
            answer = await renew_lease(transaction, era, self.name, self.session, fence)
        return _answer(req, answer)

    async def _give_back(self, req: int, fence: LeaseFence) -> LeaseEvent:
        async with self._service.transaction() as (transaction, _):
            await give_back_lease(transaction, self.name, self.session, fence)
        return w.LeaseGivenBack(req)


def lease_lost(name: str | None = None) -> ContentionError:
    """The error of a caller that relies on a lease which is not held any more."""
    which = f"the lease {name}" if name is not None else "the lease"
    return ContentionError(
        f"{which} has been given back or has run out",
        code="lease_lost",
        hint="see the holder: instep lease list",
    )


async def _within(work: Callable[[], Awaitable[LeaseEvent]]) -> LeaseEvent:
    async with asyncio.timeout(ANSWER_S):
        return await work()


def _answer(req: int, answer: Granted | Denied) -> LeaseEvent:
    if isinstance(answer, Granted):
        return w.LeaseGranted(req, answer.fence)
    return w.LeaseDenied(req, answer.holder, answer.left_ms)


def _failed(req: int, error: InstepError) -> LeaseEvent:
    return w.LeaseFailed(req, trouble_of(error))
