"""Whether this node wants new work, why not, and which balancers know.

A drain is a level with a key for each cause: the operator, the rollout of one fileset, or changes of one; the node is
drained while any of them is in force. Balancers *pull*: they ask ``/ready`` or the agent, each answer is noted here,
so that a switch can wait until every balancer that asks knows. Drains are in the store and outlive the daemon; the list
of balancers is not, because a balancer asks again within seconds.

Everything here belongs to the thread of the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from instep.node.runtime.driver import monotonic_ms, wall_ms
from instep.store.port import NodeStore

OPERATOR = "operator"
PROBER_SEEN_MS = 30_000
"""A client that has not asked for so long is no balancer of this node any more."""
PROBERS_MAX = 256
PROBER_NAME_MAX = 128
REASON_MAX = 500
LINGER_MS = 1_000
_PARTNER = "partner "
_KEY = "draining"
_KEY_BEFORE = "drain"
"""Where the operator's only drain was kept before there were keys."""


def rollout_key(fileset: str) -> str:
    """The key of the drains that a rollout of this fileset asks for."""
    return f"rollout:{fileset}"


def changes_key(fileset: str) -> str:
    """The key of the drain while changes from elsewhere go live in this fileset, where it is written."""
    return f"changes:{fileset}"


def partner_key(name: str) -> str:
    """The key of the drain that this partner asked for."""
    return f"{_PARTNER}{name}"


def is_asked(key: str) -> bool:
    """Whether people asked for it, so that the operator may take it back."""
    return key == OPERATOR or key.startswith(_PARTNER)


class Drain(msgspec.Struct, frozen=True):
    """One cause for this node to get no new work. ``until_ms`` is wall clock, None for open end."""

    reason: str
    since_ms: int
    until_ms: int | None
    key: str = OPERATOR


@dataclass(slots=True)
class _Prober:
    asked_ms: int
    """Monotonic."""
    is_certain: bool
    """Asked as only balancers do, or again."""
    turn: int
    is_ready: bool


class Draining:
    """Drains of one node and the balancers that ask. Every change wakes the daemon; ``linger_ms`` is how
    long requests in flight get after the last balancer got the answer."""

    def __init__(
        self,
        store: Callable[[], NodeStore],
        tell: Callable[[], None],
        *,
        now_ms: Callable[[], int] = monotonic_ms,
        today_ms: Callable[[], int] = wall_ms,
        linger_ms: int = LINGER_MS,
        ran_out: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.linger_ms = linger_ms
        self._store = store
        self._tell = tell
        self._now_ms = now_ms
        self._today_ms = today_ms
        self._drains = self._load()
        self._ran_out = ran_out
        """Called with the reason of a drain whose time has passed, once the node is not drained any more."""
        self._turn = 0
        """Rises when the node becomes drained or stops being so; an answer of an older turn said something else."""
        self._was_drained = bool(self._drains)
        self._probers: dict[str, _Prober] = {}
        self._answered = asyncio.Event()

    def _load(self) -> dict[str, Drain]:
        raw = self._store().get(_KEY)
        if raw is not None:
            return {drain.key: drain for drain in msgspec.msgpack.decode(raw, type=list[Drain])}
        before = self._store().get(_KEY_BEFORE)
        return {OPERATOR: msgspec.msgpack.decode(before, type=Drain)} if before is not None else {}

    # The level ------------------------------------------------------------------------------------------------

    def begin(self, key: str, reason: str, until_ms: int | None = None) -> bool:
        """Drain for ``key``, until a moment of the wall clock or until ``end``. On disk when it returns; whether
        that changed anything. A key that drains already keeps its beginning."""
        before = self.get(key)
        reason = reason[:REASON_MAX]
        if before is not None and (before.reason, before.until_ms) == (reason, until_ms):
            return False
        since = before.since_ms if before is not None else self._today_ms()
        self._save({**self._drains, key: Drain(reason, since, until_ms, key)})
        return True

    def end(self, key: str) -> bool:
        """Take the drain of ``key`` back; whether there was one. The node stays drained for other keys."""
        was_in_force = self.get(key) is not None
        if key in self._drains:
            self._save({other: drain for other, drain in self._drains.items() if other != key})
        return was_in_force

    def end_asked(self) -> bool:
        """The operator of this node takes back what people asked for, here or at a partner; a rollout's drain stays."""
        asked = [key for key in self._drains if is_asked(key)]
        return sum(self.end(key) for key in asked) > 0

    def _save(self, drains: dict[str, Drain]) -> None:
        drains = {key: drain for key, drain in drains.items() if self._is_in_force(drain)}
        with self._store().transaction():
            self._store().put(_KEY, msgspec.msgpack.encode(list(drains.values())))
            self._store().delete(_KEY_BEFORE)
        self._drains = drains
        self._settle()
        self._tell()

    def get(self, key: str) -> Drain | None:
        """The drain of ``key`` in force; one that has run out is none."""
        drain = self._drains.get(key)
        return drain if drain is not None and self._is_in_force(drain) else None

    def reasons(self) -> tuple[Drain, ...]:
        """Every drain in force, by key."""
        return tuple(
            self._drains[key] for key in sorted(self._drains) if self._is_in_force(self._drains[key])
        )

    @property
    def is_drained(self) -> bool:
        return self._settle()

    def _is_in_force(self, drain: Drain) -> bool:
        return drain.until_ms is None or drain.until_ms > self._today_ms()

    def _settle(self) -> bool:
        """Notice a drain that ran out as well as one that was asked for."""
        is_drained = any(self._is_in_force(drain) for drain in self._drains.values())
        if is_drained != self._was_drained:
            self._was_drained = is_drained
            self._turn += 1
            for drain in () if is_drained else self._drains.values():
                self._ran_out(drain.reason)
        return is_drained

    # The balancers --------------------------------------------------------------------------------------------

    def answered(self, prober: str, *, is_ready: bool, is_certain: bool = False) -> None:
        """A balancer asked and gets the present state: ``is_ready`` is the whole answer, drains and
        standings together. ``is_certain``: it asked as only balancers do, so that it counts from the first time."""
        self._settle()
        prober = prober[:PROBER_NAME_MAX]
        now = self._now_ms()
        known = self._probers.pop(prober, None)
        is_steady = known is not None and now - known.asked_ms <= PROBER_SEEN_MS
        is_certain = is_certain or (known is not None and is_steady)
        self._probers[prober] = _Prober(now, is_certain, self._turn, is_ready)
        while len(self._probers) > PROBERS_MAX:
            del self._probers[next(iter(self._probers))]  # the one that asked longest ago
        self._wake()

    def nobody_can_ask(self) -> None:
        """Both listeners are closed: a drain must not wait for balancers that cannot ask."""
        self._probers.clear()
        self._wake()

    def _wake(self) -> None:
        self._answered.set()
        self._answered = asyncio.Event()

    def probers(self) -> tuple[str, ...]:
        """Balancers that asked within ``PROBER_SEEN_MS``: of the agent or by name once, otherwise twice. A
        browser that looked once is none, and no switch waits for it."""
        since = self._now_ms() - PROBER_SEEN_MS
        return tuple(
            sorted(name for name, p in self._probers.items() if p.is_certain and p.asked_ms >= since)
        )

    async def told_out(self, deadline_s: float) -> tuple[str, ...]:
        """Wait until every balancer that asks got "drained" since the drain began, then a linger for requests in
        flight. Returns at once when none asks. Returns the balancers without that answer at the deadline."""
        if not self.probers():
            return ()
        left = await self._told(deadline_s, lambda: self._not_told(is_ready=False))
        await asyncio.sleep(self.linger_ms / 1000)
        return left

    async def told_in(self, deadline_s: float) -> tuple[str, ...]:
        """Wait until every balancer that asks got "ready" since the drain ended; returns at once when another
        drain is still in force. Returns the balancers without that answer at the deadline."""
        return await self._told(deadline_s, lambda: self._not_told(is_ready=True))

    def _not_told(self, *, is_ready: bool) -> tuple[str, ...]:
        """The balancers without this answer since the last change; none that waits for "ready" while drained."""
        if self._settle() and is_ready:
            return ()
        answer = self._turn, is_ready
        asked = {name: self._probers[name] for name in self.probers()}
        return tuple(name for name, p in asked.items() if (p.turn, p.is_ready) != answer)

    async def _told(self, deadline_s: float, not_told: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(deadline_s):
                while not_told():
                    answered = self._answered
                    await answered.wait()
        except TimeoutError:
            return not_told()
        return ()
