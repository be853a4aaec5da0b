"""Shared roots in the cluster's database: the lease under which one node writes there, and the record of what a root
holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from instep.core.cluster import lease_words as w
from instep.core.cluster.lease_words import WhyStopped
from instep.core.vocabulary import Trouble, trouble_of
from instep.errors import ContentionError, InstepError
from instep.model.ids import HeadRef, LineId
from instep.model.lease import LeaseFence
from instep.node.cluster.holding import LeaseHold
from instep.node.cluster.service import ClusterService
from instep.node.runtime.driver import monotonic_ms, run_all
from instep.store.cluster.shared_roots import (
    HeldRoot,
    RootGuard,
    bounded,
    has_touched,
    held_root,
    record_root,
    take_touched,
    tell_touched,
    topic_of,
)

TTL_MS = 10_000
"""A holder that is gone keeps the others waiting for so long."""
LOOK_S = 1.0
CLOSE_S = 2.0


class SharedRoots:
    """Those of this node."""

    def __init__(self, service: ClusterService) -> None:
        self._service = service
        self._roots: list[ClusterRoot] = []

    def open(self, line: LineId) -> ClusterRoot:
        """The shared root of a line that is followed here from now on."""
        made = ClusterRoot(self._service, line)
        self._roots = [each for each in self._roots if not each.is_over]
        self._roots.append(made)
        return made

    async def close(self) -> None:
        """Before the node stops: give leases back, so that another node goes on at once."""
        await asyncio.gather(*(root.close() for root in self._roots))


class ClusterRoot:
    """One shared root, and the holder of its lease. ``run`` serves it until it is cancelled."""

    def __init__(self, service: ClusterService, line: LineId) -> None:
        self._service, self._line = service, line
        self._lease = f"apply:{line.fileset}"
        self.changed = asyncio.Event()
        self.held: HeldRoot | None = None
        self.trouble: Trouble | None = None
        self.holder = ""
        self.grants = 0
        self.is_over = False
        """Whether ``run`` has ended."""
        self._hold: LeaseHold | None = None
        self._fence: LeaseFence | None = None
        self._until_ms = 0
        """Until when this node may write; 0 where it does not hold the lease."""
        self._is_looked_up = False
        """Whether ``held`` was read under the present grant."""
        self._writers = 0
        self._is_stopping = False
        self._is_wanted, self._news = asyncio.Event(), asyncio.Event()
        self._touched: set[bytes] = set()

    # The port ---------------------------------------------------------------------------------------------------

    @property
    def may_write(self) -> bool:
        is_held = self._fence is not None and not self._is_stopping and self._is_looked_up
        return is_held and monotonic_ms() < self._until_ms

    async def run(self) -> None:
        self._service.on_change(self._heard)
        try:
            await run_all(self._keep_lease(), self._look())
        finally:
            self._service.forget(self._heard)
            self.is_over = True
            self._until_ms = 0

    def wants(self, *, lease: bool) -> None:
        if lease:
            self._is_wanted.set()
        elif self._is_wanted.is_set():
            self._is_wanted.clear()
            if self._hold is not None:
                self._hold.release()

    def guard(self) -> None:
        if not self._writers or monotonic_ms() >= self._until_ms:
            raise self._fenced()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        if not self.may_write:
            raise self._fenced()
        self._writers += 1
        try:
            yield
        except asyncio.CancelledError:
            # The tree's thread may go on: the lease is not given back, and runs out.
            self._until_ms, self._is_stopping = 0, False
            raise
        finally:
            self._writers -= 1
            if self._is_stopping and not self._writers:
                self._stopped()

    async def record(self, head: HeadRef, *, is_whole: bool) -> None:
        if self._hold is None or self._fence is None:
            raise self._fenced()
        guard, node = RootGuard(self._lease, self._hold.session, self._fence), self._service.runtime.name
        async with self._service.transaction() as (transaction, era):
            await record_root(transaction, era, self._line, guard, node, head, is_whole=is_whole)
        self.held = HeldRoot(head, is_whole, node, guard.fence)
        self._tell()

    async def tell_touched(self, paths: Collection[bytes]) -> None:
        async with self._service.transaction() as (transaction, _):
            await tell_touched(transaction, self._line, self._service.runtime.name, paths)

    def take_touched(self) -> tuple[bytes, ...]:
        taken, self._touched = tuple(sorted(self._touched)), set()
        return taken

    # The lease --------------------------------------------------------------------------------------------------

    async def _keep_lease(self) -> None:
        while True:
            await self._is_wanted.wait()
            self._hold = LeaseHold(self._service, self._lease, TTL_MS, self)
            try:
                await self._hold.run()
            finally:
                self._hold, self._fence, self._until_ms = None, None, 0
                self._is_stopping = False
                self._tell()

    async def close(self) -> None:
        """Give the lease back, unless the root is being written to: then it runs out."""
        hold = self._hold
        if hold is None or self._writers or self.is_over:
            return
        self.wants(lease=False)
        try:
            async with asyncio.timeout(CLOSE_S):
                await hold.wait_until_ended()
        except TimeoutError:
            return

    def began(self, fence: LeaseFence, until_ms: int) -> None:
        self.grants += 1
        self._is_stopping = self._is_looked_up = False
        self.holder = self._service.runtime.name
        self.extended(fence, until_ms)
        self._news.set()

    def extended(self, fence: LeaseFence, until_ms: int) -> None:
        self._fence, self._until_ms, self.trouble = fence, until_ms, None
        self._tell()

    def must_stop(self, why: WhyStopped, until_ms: int) -> None:
        """A switch under way is ended by its guard, when the grant ends."""
        self._is_stopping = True
        self._until_ms = min(self._until_ms, until_ms)
        if not self._writers:
            self._stopped()

    def denied(self, answer: w.LeaseDenied | w.LeaseFailed) -> None:
        if isinstance(answer, w.LeaseFailed):
            self.trouble, self.holder = answer.trouble, ""
        else:
            self.trouble, self.holder = None, answer.holder
        self._tell()

    def _stopped(self) -> None:
        self._fence, self._until_ms, self._is_stopping, self.holder = None, 0, False, ""
        if self._hold is not None:
            self._hold.stopped()
        self._tell()

    def _fenced(self) -> ContentionError:
        holder = f"{self.holder} holds" if self.holder else "this node does not hold"
        return ContentionError(
            f"{holder} the lease {self._lease}, and alone may write into the shared root of {self._line.fileset}",
            code="fenced",
            hint="see the holder: instep lease list",
            lease=self._lease,
            holder=self.holder or None,
        )

    # The record -------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        while True:
            self._news.clear()
            grants = self.grants
            try:
                async with self._service.transaction() as (transaction, _):
                    held = await held_root(transaction, self._line)
                    touched: tuple[bytes, ...] = ()
                    if self._fence is not None and await has_touched(transaction, self._line):
                        touched = await take_touched(transaction, self._line)
            except InstepError as error:
                self.trouble = trouble_of(error)
                self._tell()
            else:
                self._found(held, touched, is_of_grant=grants == self.grants and self._fence is not None)
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._news.wait()
            except TimeoutError:
                continue

    def _found(self, held: HeldRoot | None, touched: tuple[bytes, ...], *, is_of_grant: bool) -> None:
        is_new = held != self.held or bool(touched) or self.trouble is not None
        is_new = is_new or (is_of_grant and not self._is_looked_up)
        if not self._writers:  # while this node writes, its own record is the newer one
            self.held = held
        self._touched = bounded(self._touched | set(touched))
        if is_of_grant:
            self._is_looked_up = True
        if is_new:
            self.trouble = None
            self._tell()

    def _heard(self, topic: str) -> None:
        if topic in ("", "era", topic_of(self._line)):
            self._news.set()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()
        self._service.runtime.tell()
