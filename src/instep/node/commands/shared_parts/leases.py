"""Leases: shown, broken, and held for a program on this machine."""

from __future__ import annotations

import asyncio
import contextlib

from instep.api.shared_parts import leases as api
from instep.core.cluster.lease import TTL_MS_MAX, TTL_MS_MIN
from instep.errors import ContentionError, UsageError
from instep.model.lease import lease_name
from instep.node.cluster.database_view import database_document, lease_document
from instep.node.cluster.holding import lease_lost
from instep.node.cluster.lease_runs import LeaseRun
from instep.node.cluster.standby import keep_others_away
from instep.node.commands.context import CommandContext, CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.patience import POLL_S, change_within, works_of
from instep.node.lines.snapshot import moment
from instep.store.cluster.leases import break_lease, lease_rows

GIVE_BACK_S = 10.0
RELEASE_S = 3.0
"""So long a caller that releases a lease waits until it is another holder's to take."""


class Leases(CommandHandlers):
    def __init__(self, context: CommandContext) -> None:
        super().__init__(context)
        self._cluster = context.cluster
        self._runs: dict[str, LeaseRun] = {}

    async def show(self, asked: api.LeaseListCommand, speaker: Speaker) -> api.LeasesDocument:
        async with self._cluster.transaction() as (transaction, _):
            rows = await lease_rows(transaction)
        return api.LeasesDocument(
            tuple(lease_document(row) for row in rows), database_document(self._cluster.state)
        )

    async def end(self, asked: api.LeaseBreakCommand, speaker: Speaker) -> api.LeaseBreakDocument:
        """Break a lease: no renewal of it succeeds any more."""
        name = lease_name(asked.name)
        async with self._cluster.transaction() as (transaction, _):
            row = await break_lease(transaction, name, asked.reason)
        if row is None:
            return api.LeaseBreakDocument(name, changed=False, holder=None, free_at=None)
        self._node.runtime.note(
            "lease_broken",
            f"an operator broke the lease {name} of {row.holder}: {asked.reason}",
            lease=name,
            holder=row.holder,
            reason=asked.reason,
        )
        return api.LeaseBreakDocument(name, True, row.holder, moment(row.expires_at_ms))

    async def hold(self, asked: api.LeaseHoldCommand, speaker: Speaker) -> api.LeaseStateDocument:
        """Take a lease, and keep it until the caller releases it or is gone."""
        if not TTL_MS_MIN <= asked.ttl_ms <= TTL_MS_MAX:
            raise UsageError(
                f"a lease lasts {TTL_MS_MIN // 1000} to {TTL_MS_MAX // 1000} s without renewal, not {asked.ttl_ms} ms",
                code="bad_ttl",
            )
        run = LeaseRun(self._cluster, lease_name(asked.name), asked.ttl_ms, speaker.process)
        self._runs[run.key] = run
        try:
            async with works_of(run.hold.run()) as (work,):
                try:
                    await self._serve(run, asked, speaker, work)
                except ConnectionError:
                    if run.abandon():
                        await asyncio.wait([work], timeout=GIVE_BACK_S)
                    raise
        finally:
            del self._runs[run.key]
        run.ended()
        return run.document()

    async def _serve(
        self, run: LeaseRun, asked: api.LeaseHoldCommand, speaker: Speaker, work: asyncio.Task[None]
    ) -> None:
        """Send the caller each state of the lease, until it ends."""
        refusal = None
        while not work.done():
            changed = run.changed
            refusal = None if asked.wait else run.refused()
            if refusal is not None:
                break
            await speaker.item(run.document())
            await change_within(changed, POLL_S)
        if refusal is not None:
            run.release()
            await asyncio.wait([work], timeout=GIVE_BACK_S)
            raise refusal
        work.result()

    async def guard(self, asked: api.LeaseGuardCommand, speaker: Speaker) -> api.LeaseGroupDocument:
        """Note the process group that runs under a lease."""
        return api.LeaseGroupDocument(asked.hold, self._run(asked.hold).guard(asked.group))

    async def in_force(self, asked: api.LeaseCheckCommand, speaker: Speaker) -> api.LeaseInForceDocument:
        """Ask the database whether a lease that is held here is in force."""
        hold = self._run(asked.hold).hold
        return api.LeaseInForceDocument(hold.name, str(await hold.check()))

    async def release(self, asked: api.LeaseReleaseCommand, speaker: Speaker) -> api.LeaseGroupDocument:
        """Give a lease back: what ran under it has ended."""
        run = self._run(asked.hold)
        run.release()
        with contextlib.suppress(TimeoutError):  # then it runs out by itself
            async with asyncio.timeout(RELEASE_S):
                await run.hold.wait_until_ended()
        return api.LeaseGroupDocument(asked.hold, True)

    async def fence(self, asked: api.StandbyFenceCommand, speaker: Speaker) -> api.StandbyFenceDocument:
        """Keep the other nodes from a standby service."""
        if self._context.shared_work.maintenance.is_on:
            raise ContentionError(
                "this node is in maintenance, and no standby service starts",
                code="maintenance",
                hint=f"end it: {self._context.shared_work.maintenance.ending}",
            )
        hold, settings = self._run(asked.hold).hold, self._node.runtime.settings.standby.get(asked.service)
        fence = hold.machine.fence
        if settings is None or fence is None:
            return api.StandbyFenceDocument(asked.service, ())
        roles = await keep_others_away(self._cluster, hold.name, hold.session, fence, settings)
        self._node.runtime.note(
            "standby_taken",
            f"standby {asked.service} is taken over by {self._node.runtime.name}",
            service=asked.service,
        )
        return api.StandbyFenceDocument(asked.service, roles)

    def _run(self, hold: str) -> LeaseRun:
        run = self._runs.get(hold)
        if run is None:
            raise lease_lost()
        return run
