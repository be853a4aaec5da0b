"""Nodes with the real ``LeaseMachine`` over a database that is slow, away, fails over and forgets its last commits.

``simulate_leases(seed)`` draws faults, in virtual time. Promises: holders of one lease never run at the same time, with
clocks that are 5 % apart; fences rise with each holder; no guarded write is taken under an older fence than one before;
when the faults stop, a node holds the lease within the quiet time and a few seconds. A machine that is paused runs
nothing, and sees the time when it wakes up.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

from instep.core.cluster import lease_words as w
from instep.core.cluster.lease import LeaseMachine
from instep.core.vocabulary import SetTimer, Started, TimerFired, Trouble
from instep.model.lease import LeaseFence
from instep.testing.leases.database import LONGEST_TTL_MS, TwinDatabase, TwinDenied
from instep.testing.leases.plants import MACHINES

NODES = 4
FAULTS_MS = 240_000
PEACE_MS = 2 * LONGEST_TTL_MS
DRIFT = 0.05
REPLICATION_LAG_MS = 8_000
LOST_AFTER_MS = 15_000
"""A request whose answer is lost has failed by then."""
NAME = "index"
AWAY = Trouble("cluster_unreachable", "the database does not answer")


@dataclass(frozen=True, slots=True)
class LeaseResult:
    """How a seed ended; ``story`` are its last steps."""

    seed: int
    broken: str | None
    begun: int
    failovers: int
    lost_commits: int
    story: tuple[str, ...] = ()


class BrokenLease(AssertionError):
    """A promise that did not hold."""


@dataclass(slots=True)
class LeaseNode:
    """One node: its clock, its machine, and what runs under the lease."""

    name: str
    rate: float
    offset_ms: int
    machine: LeaseMachine
    session: str
    fence: LeaseFence | None = None
    runs: bool = False
    paused_until_ms: int = 0
    timer: int = 0
    generation: int = 0
    waiting: list[w.LeaseEvent] = field(default_factory=list)


def simulate_leases(seed: int, plant: str | None = None) -> LeaseResult:
    """Run one seed to its end, or to its first broken promise."""
    return _World(seed, plant).run()


class _World:
    def __init__(self, seed: int, plant: str | None) -> None:
        self.seed, self.rng, self.now = seed, Random(seed), 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._plant = plant
        self._clock = self._drawn_clock()
        self.database = TwinDatabase(self._database_ms, plant)
        self._is_away_until = 0
        self.slow = self.rng.choice((0, 200, 4_000, 9_000))
        self.loss = self.rng.choice((0.0, 0.05, 0.3))
        self.story: list[str] = []
        self.begun = self.failovers = self.lost = 0
        self._highest = LeaseFence(0, 0)
        self.ttl_ms = self.rng.choice((5_000, 15_000, 30_000))
        self.grace_ms = max(500, self.ttl_ms // 5)
        self.nodes = [self._node(f"n{number}") for number in range(NODES)]

    def _drawn_clock(self) -> tuple[float, int]:
        return 1 + self.rng.uniform(-DRIFT, DRIFT) / 2, self.rng.randrange(1_000_000)

    def _database_ms(self) -> int:
        rate, offset = self._clock
        return int(self.now * rate) + offset

    def _node(self, name: str) -> LeaseNode:
        kind = MACHINES.get(self._plant or "", LeaseMachine)
        machine = kind(self.ttl_ms, self.grace_ms, self.rng)
        rate = 1 + self.rng.uniform(-DRIFT, DRIFT) / 2
        return LeaseNode(name, rate, self.rng.randrange(1_000_000), machine, f"{name}:0")

    # Time -----------------------------------------------------------------------------------------------------------

    def at(self, at_ms: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (max(self.now, int(at_ms)), next(self._order), call))

    def run(self) -> LeaseResult:
        for node in self.nodes:
            self.at(self.rng.randrange(3_000), partial(self.hear, node, Started()))
        for _ in range(self.rng.randrange(3, 9)):
            self.at(self.rng.randrange(FAULTS_MS), self._fault)
        for at_ms in range(500, FAULTS_MS + PEACE_MS, 700):
            self.at(at_ms, self._write)
        broken = None
        try:
            while self._queue:
                at_ms, _, call = heapq.heappop(self._queue)
                if at_ms > FAULTS_MS + PEACE_MS:
                    break
                self.now = at_ms
                if at_ms > FAULTS_MS:
                    self.loss, self.slow = 0.0, min(self.slow, 200)
                call()
            self.now = FAULTS_MS + PEACE_MS
            if not any(node.runs for node in self.nodes):
                raise BrokenLease("after the faults no node holds the lease")
        except AssertionError as error:
            broken = f"{error}" or type(error).__name__
        return LeaseResult(self.seed, broken, self.begun, self.failovers, self.lost, tuple(self.story[-50:]))

    def _say(self, what: str) -> None:
        self.story.append(f"{self.now:>7} {what}")

    # Faults ---------------------------------------------------------------------------------------------------------

    def _fault(self) -> None:
        kind = self.rng.choice(("failover", "failover", "away", "pause", "break", "restart"))
        node = self.rng.choice(self.nodes)
        if kind == "failover":
            self._is_away_until = self.now + self.rng.randrange(100, 3_000)
            self.at(self._is_away_until - 50, partial(self._fail_over, self.now))
        elif kind == "away":
            self._is_away_until = min(self.now + self.rng.randrange(60_000), FAULTS_MS)
        elif kind == "pause":
            node.paused_until_ms = min(self.now + self.rng.randrange(3 * self.ttl_ms), FAULTS_MS)
            self.at(node.paused_until_ms, partial(self._wake, node))
        elif kind == "break":
            self.database.end(self.now, NAME)
        else:
            self._restart(node)
        self._say(f"{kind} {node.name if kind in ('pause', 'restart') else ''}")

    def _fail_over(self, died_ms: int) -> None:
        self._clock = self._drawn_clock()
        self.failovers += 1
        since_ms = died_ms - self.rng.randrange(REPLICATION_LAG_MS)
        self.lost += self.database.fail_over(since_ms, f"server {self.failovers}", self._database_ms)

    def _restart(self, node: LeaseNode) -> None:
        """The node ends with whatever runs there, and begins anew."""
        node.runs, node.fence = False, None
        node.generation += 1
        node.waiting.clear()
        node.session = f"{node.name}:{node.generation}"
        node.machine = self._node(node.name).machine
        self.at(self.now + 1_000, partial(self.hear, node, Started()))

    def _wake(self, node: LeaseNode) -> None:
        if self.now < node.paused_until_ms:
            return
        waiting, node.waiting = node.waiting, []
        for event in (TimerFired("look"), *waiting):
            self.hear(node, event)

    # Nodes ----------------------------------------------------------------------------------------------------------

    def clock(self, node: LeaseNode) -> int:
        return int(self.now * node.rate) + node.offset_ms

    def hear(self, node: LeaseNode, event: w.LeaseEvent, generation: int | None = None) -> None:
        if generation is not None and generation != node.generation:
            return
        if self.now < node.paused_until_ms:
            node.waiting.append(event)
            return
        for effect in node.machine.step(event, self.clock(node)):
            self._perform(node, effect)

    def _perform(self, node: LeaseNode, effect: w.LeaseEffect) -> None:
        match effect:
            case w.TakeLease(req):
                self._ask(node, req, partial(self._take, node.name, node.session))
            case w.RenewLease(req, fence):
                self._ask(node, req, partial(self._renew, node.session, fence))
            case w.GiveBackLease(req, fence):
                self._ask(node, req, partial(self._give_back, node.session, fence))
            case w.BeginHolding(fence, _):
                self._begin(node, fence)
            case w.ExtendHolding(fence, _):
                node.fence = fence
                self._rises(node, fence)
            case w.StopHolding(why, until_ms):
                self._say(f"{node.name} stops: {why.value}")
                left_ms = (until_ms - self.clock(node)) / node.rate
                takes_ms = self.rng.uniform(0, max(0.0, left_ms))
                self.at(self.now + takes_ms, partial(self._has_stopped, node, node.generation))
            case SetTimer(_, at_ms):
                node.timer += 1
                if at_ms is not None:
                    due = (at_ms - node.offset_ms) / node.rate + 1
                    self.at(due, partial(self._fire, node, node.timer, node.generation))
            case _:
                pass

    def _fire(self, node: LeaseNode, timer: int, generation: int) -> None:
        if timer == node.timer:
            self.hear(node, TimerFired("look"), generation)

    def _has_stopped(self, node: LeaseNode, generation: int) -> None:
        if generation == node.generation:
            node.runs, node.fence = False, None
            self.hear(node, w.HolderStopped(), generation)

    def _begin(self, node: LeaseNode, fence: LeaseFence) -> None:
        others = [other.name for other in self.nodes if other is not node and self._runs_now(other)]
        self._say(f"{node.name} begins under {fence}")
        if others:
            raise BrokenLease(f"{node.name} begins while {others[0]} runs under the lease")
        node.runs, node.fence = True, fence
        self.begun += 1
        self._rises(node, fence)

    def _runs_now(self, node: LeaseNode) -> bool:
        """A paused machine runs nothing; what it does when it wakes up is looked at then."""
        return node.runs and self.now >= node.paused_until_ms

    def _rises(self, node: LeaseNode, fence: LeaseFence) -> None:
        if fence < self._highest:
            raise BrokenLease(f"{node.name} holds under {fence}, and {self._highest} was held before")
        if fence == self._highest and node.fence != fence:
            raise BrokenLease(f"two holders have the fence {fence}")
        self._highest = fence

    def _write(self) -> None:
        """Whatever runs writes under its fence; a write that lands late is one of a holder that was."""
        for node in self.nodes:
            if node.fence is None or self.now < node.paused_until_ms:
                continue
            delay = self.rng.choice((0, 0, 0, 3 * self.ttl_ms))
            self.at(self.now + delay, partial(self._land, node.session, node.fence))

    def _land(self, session: str, fence: LeaseFence) -> None:
        if self.now < self._is_away_until:
            return
        self.database.guard(self.now, NAME, session, fence)
        taken = self.database.state.guarded
        if any(later < earlier for earlier, later in itertools.pairwise(taken)):
            raise BrokenLease(f"a write under {taken[-1]} was taken after one under {taken[-2]}")

    # The database ---------------------------------------------------------------------------------------------------

    def _ask(self, node: LeaseNode, req: int, work: Callable[[int], w.LeaseEvent]) -> None:
        """A request on its way: it, or its answer, may be lost; each is late."""
        there, back = self.rng.randrange(self.slow + 5), self.rng.randrange(self.slow + 5)
        failed = partial(self.hear, node, w.LeaseFailed(req, AWAY), node.generation)
        if self.rng.random() < self.loss:
            self.at(self.now + LOST_AFTER_MS, failed)
            return
        self.at(self.now + there, partial(self._arrive, node, req, work, back, node.generation))

    def _arrive(
        self, node: LeaseNode, req: int, work: Callable[[int], w.LeaseEvent], back: int, generation: int
    ) -> None:
        failed = partial(self.hear, node, w.LeaseFailed(req, AWAY), generation)
        if self.now < self._is_away_until:
            self.at(self.now + back, failed)
            return
        answer = work(req)
        if self.rng.random() < self.loss:
            self.at(self.now + LOST_AFTER_MS, failed)
        else:
            self.at(self.now + back, partial(self.hear, node, answer, generation))

    def _take(self, name: str, session: str, req: int) -> w.LeaseEvent:
        return _answer(req, self.database.take(self.now, NAME, name, session, self.ttl_ms))

    def _renew(self, session: str, fence: LeaseFence, req: int) -> w.LeaseEvent:
        return _answer(req, self.database.renew(self.now, NAME, session, fence))

    def _give_back(self, session: str, fence: LeaseFence, req: int) -> w.LeaseEvent:
        self.database.give_back(self.now, NAME, session, fence)
        return w.LeaseGivenBack(req)


def _answer(req: int, answer: LeaseFence | TwinDenied) -> w.LeaseEvent:
    if isinstance(answer, LeaseFence):
        return w.LeaseGranted(req, answer)
    return w.LeaseDenied(req, answer.holder, answer.left_ms)
