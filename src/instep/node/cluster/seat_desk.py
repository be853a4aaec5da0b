"""Seats of this node's users: taken and released in the cluster's database, renewed, and kept while it is away.

One task does all of it in turn, so a renewal never meets a seat that is being taken. Callers that come together are
served in one transaction. What this node remembers of its users is the truth about them: each renewal makes the
database say the same.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from instep.core.cluster.seats import PoolRules, SeatVerdict, kept_until_ms, renew_after_ms, user_key
from instep.errors import InstepError, UnavailableError, UsageError
from instep.model.counts import counted, lasting
from instep.node.cluster.service import ClusterService
from instep.node.config.shared_parts.pools import PoolSettings
from instep.node.runtime.driver import monotonic_ms, own_error, run_all
from instep.store.cluster import agreements, seats
from instep.store.cluster.eras import Era
from instep.store.cluster.port import Transaction

BATCH_MAX = 200
"""Callers that are served in one transaction."""
WAITING_MAX = 10_000
LOOK_S = 2.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
log = logging.getLogger(__name__)


class SeatAnswer(NamedTuple):
    """What a caller is answered. ``kept_until_ms`` is set where the database is away and this node's users go on."""

    verdict: SeatVerdict
    rules: PoolRules | None
    taken: int
    kept_until_ms: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Ask:
    """One caller: ``sit`` or ``stand``, or ``free`` by an operator."""

    act: str
    pool: PoolSettings
    key: str
    name: str
    answer: asyncio.Future[SeatAnswer]


@dataclass(slots=True)
class _Pool:
    """This node's users of a pool: name and times by key."""

    users: dict[str, tuple[str, int]] = field(default_factory=dict)
    renewed_ms: int = 0
    """When the last renewal that reached the database was sent, by the clock since boot; 0 before the first."""
    rules: PoolRules | None = None
    is_due: bool = True


def rules_of(pool: PoolSettings) -> PoolRules:
    return PoolRules(pool.name, pool.kind, pool.places, pool.linger_ms, pool.grace_ms)


class SeatDesk:
    """One per node. ``run`` goes on until it is cancelled; the seats stay taken then, for the daemon may come back."""

    def __init__(self, service: ClusterService) -> None:
        self._service, self._runtime = service, service.runtime
        self._boot = _BOOT_ID.read_text().strip()
        self._pools: dict[str, _Pool] = {}
        self._asks: asyncio.Queue[_Ask] = asyncio.Queue(WAITING_MAX)
        self._wake = asyncio.Event()
        self._is_loaded = False

    # Callers --------------------------------------------------------------------------------------------------------

    async def sit_down(self, pool: str, user: str) -> SeatAnswer:
        """Seat a user at this node. With the database away, ``UnavailableError`` for all but those who sit here."""
        return await self._ask("sit", pool, user)

    async def stand_up(self, pool: str, user: str, *, is_all: bool = False) -> SeatAnswer:
        """End one use of a user at this node, or with ``is_all`` all uses everywhere."""
        return await self._ask("free" if is_all else "stand", pool, user)

    async def _ask(self, act: str, pool: str, user: str) -> SeatAnswer:
        settings = self._runtime.settings.pools.get(pool)
        if settings is None:
            raise UsageError(
                f"this node has no pool {pool}",
                code="no_such_pool",
                hint=f"add a table [pools.{pool}] with its places to instep.toml, then: instep config check",
                pool=pool,
                known=sorted(self._runtime.settings.pools),
            )
        key = user_key(user, settings.users)
        ask = _Ask(act, settings, key, user.strip(), asyncio.get_running_loop().create_future())
        try:
            self._asks.put_nowait(ask)
        except asyncio.QueueFull:
            raise UnavailableError(
                f"{WAITING_MAX} callers wait for a seat at this node",
                code="seats_busy",
                hint="repeat the command",
            ) from None
        self._wake.set()
        return await ask.answer

    # The one task ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        self._service.on_change(self._heard)
        try:
            await run_all(self._work(), self._mind_settings())
        finally:
            self._service.forget(self._heard)
            while not self._asks.empty():
                self._asks.get_nowait().answer.cancel()

    def _heard(self, topic: str) -> None:
        if topic == "era":
            for pool in self._pools.values():
                pool.is_due = True
            self._wake.set()

    async def _mind_settings(self) -> None:
        while True:
            changed, settings = self._runtime.changed, self._runtime.settings
            await changed.wait()
            if settings is not self._runtime.settings:
                for pool in self._pools.values():
                    pool.is_due = True
                self._wake.set()

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            if self._runtime.settings.pools or self._pools:
                with suppress(InstepError, OSError):
                    await self._renew_due()
            await self._serve()
            if self._asks.empty():
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._wake.wait()

    # Renewals -------------------------------------------------------------------------------------------------------

    async def _renew_due(self) -> None:
        if not self._is_loaded:
            await self._load()
        settings = self._runtime.settings.pools
        for name in sorted(settings.keys() | self._pools.keys()):
            pool = self._pools.setdefault(name, _Pool())
            grace_ms = pool.rules.grace_ms if pool.rules is not None else 0
            if pool.is_due or monotonic_ms() >= pool.renewed_ms + renew_after_ms(grace_ms):
                await self._renew(name, pool, settings.get(name))

    async def _load(self) -> None:
        """The users of before the daemon was started again; none where the machine was."""
        async with self._service.transaction() as (transaction, _):
            found = await seats.own_uses(transaction, self._runtime.name, self._boot)
        for name, users in found.items():
            self._pools.setdefault(name, _Pool()).users |= users
        self._is_loaded = True

    async def _renew(self, name: str, pool: _Pool, settings: PoolSettings | None) -> None:
        sent_ms = monotonic_ms()
        node = self._runtime.name
        async with self._service.transaction() as (transaction, era):
            if settings is not None:
                pool.rules = (await seats.declare_pool(transaction, rules_of(settings), node)).rules
            state = await seats.lock_pool(transaction, name)
            gone: tuple[str, ...] = ()
            if state is not None:
                wanted = pool.users if settings is not None else {}
                gone = await seats.renew_seats(transaction, era, state, wanted, (node, self._boot))
            if settings is None:
                await agreements.withdraw(transaction, seats.subject_of(name), node)
            await seats.forget_free(transaction)
        pool.renewed_ms, pool.is_due = sent_ms, False
        if settings is None:
            del self._pools[name]
        for key in gone:
            user, _ = pool.users.pop(key)
            self._runtime.note(
                "seat_lost", f"{user} has no seat of pool {name} here any more", pool=name, user=user
            )

    # Callers, together ----------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Serve those who wait, pool by pool."""
        asks: list[_Ask] = []
        while not self._asks.empty() and len(asks) < BATCH_MAX:
            ask = self._asks.get_nowait()
            if not ask.answer.done():
                asks.append(ask)
        by_pool: dict[str, list[_Ask]] = {}
        for ask in asks:
            by_pool.setdefault(ask.pool.name, []).append(ask)
        for name, batch in by_pool.items():
            try:
                answers, users = await self._written(name, batch)
            except (InstepError, OSError) as error:
                self._serve_alone(name, batch, own_error(error))
            else:
                self._pools[name].users = users
                for ask, answer in zip(batch, answers, strict=True):
                    if ask.answer.cancelled() and ask.act == "sit":
                        self._take_back(name, ask, answer)
                    _answer(ask, answer)

    async def _written(
        self, name: str, batch: list[_Ask]
    ) -> tuple[list[SeatAnswer], dict[str, tuple[str, int]]]:
        """The answers, and this node's users afterwards; both count once the transaction is committed."""
        pool = self._pools.setdefault(name, _Pool())
        if not self._is_loaded:
            await self._load()
        users = dict(pool.users)
        async with self._service.transaction() as (transaction, era):
            state = await seats.lock_pool(transaction, name)
            if state is None or state.rules.kind != batch[0].pool.kind:
                await seats.declare_pool(transaction, rules_of(batch[0].pool), self._runtime.name)
                state = await seats.lock_pool(transaction, name)
            assert state is not None, "it is declared"
            answers = []
            for ask in batch:
                verdict, state = await self._write(transaction, era, state, ask)
                _remember(users, ask, verdict)
                answers.append(SeatAnswer(verdict, state.rules, state.taken))
        pool.rules = state.rules
        if not pool.renewed_ms:
            pool.is_due = True
        return answers, users

    async def _write(
        self, transaction: Transaction, era: Era, state: seats.PoolState, ask: _Ask
    ) -> tuple[SeatVerdict, seats.PoolState]:
        at = (self._runtime.name, self._boot)
        if ask.act == "sit":
            return await seats.sit_down(transaction, era, state, ask.pool.kind, (ask.key, ask.name), at)
        had = await seats.stand_up(transaction, era, state, ask.key, at, is_all=ask.act == "free")
        state = state._replace(taken=await seats.taken_places(transaction, state.rules.name))
        return SeatVerdict.ALREADY if had else SeatVerdict.FREE, state

    def _take_back(self, name: str, ask: _Ask, answer: SeatAnswer) -> None:
        """The caller has gone and does not know of the seat: the next renewal ends the use."""
        if answer.verdict in (SeatVerdict.SEATED, SeatVerdict.ALREADY):
            pool = self._pools[name]
            _remember(pool.users, replace(ask, act="stand"), SeatVerdict.ALREADY)
            pool.is_due = True

    def _serve_alone(self, name: str, batch: list[_Ask], error: InstepError) -> None:
        """The database is away: users who sit here go on, as long as their places stay taken."""
        pool = self._pools.setdefault(name, _Pool())
        until_ms = 0
        if pool.rules is not None and pool.renewed_ms:
            until_ms = kept_until_ms(pool.renewed_ms, pool.rules.grace_ms)
        for ask in batch:
            if ask.act == "free" or ask.key not in pool.users or monotonic_ms() >= until_ms:
                _fail(ask, error)
                continue
            verdict = SeatVerdict.ALREADY
            _remember(pool.users, ask, verdict)
            pool.is_due = True
            _answer(ask, SeatAnswer(verdict, pool.rules, 0, until_ms))

    # Looking -------------------------------------------------------------------------------------------------------

    def troubles(self) -> list[str]:
        """What ``status`` warns of: users whose places are not renewed."""
        if self._service.state.trouble is None:
            return []
        found = []
        for name in self._runtime.settings.pools:
            pool = self._pools.get(name, _Pool())
            said = f"pool {name}: no new user sits down while the cluster's database is away"
            if pool.users and pool.rules is not None:
                left_ms = max(0, kept_until_ms(pool.renewed_ms, pool.rules.grace_ms) - monotonic_ms())
                users = counted(len(pool.users), "user")
                said += f", and {users} seated here can go on for {lasting(left_ms)}"
            found.append(said)
        return found


def _remember(users: dict[str, tuple[str, int]], ask: _Ask, verdict: SeatVerdict) -> None:
    name, times = users.get(ask.key, (ask.name, 0))
    if ask.act == "sit":
        if verdict in (SeatVerdict.SEATED, SeatVerdict.ALREADY):
            users[ask.key] = (name, times + 1)
    elif ask.act == "stand" and times > 1:
        users[ask.key] = (name, times - 1)
    else:
        users.pop(ask.key, None)


def _answer(ask: _Ask, answer: SeatAnswer) -> None:
    if not ask.answer.done():
        ask.answer.set_result(answer)


def _fail(ask: _Ask, error: InstepError) -> None:
    if not ask.answer.done():
        ask.answer.set_exception(error)
