"""The lease machine over hours of time, which pass in a moment."""

from __future__ import annotations

from random import Random

from instep.core.cluster import lease_words as w
from instep.core.cluster.lease import (
    TTL_MS,
    TTL_MS_MAX,
    TTL_MS_MIN,
    LeaseMachine,
    LeasePhase,
    trusted_ms,
    usual_grace_ms,
)
from instep.core.vocabulary import SetTimer, Started, TimerFired, Trouble
from instep.model.lease import LeaseFence

HOUR_MS = 3_600_000
ANSWER_MS = 5_000
AWAY = Trouble("cluster_unreachable", "the database does not answer")


class Life:
    """One machine, a database that is there or away, and a holder that stops within 100 ms."""

    def __init__(self, seed: int, ttl_ms: int) -> None:
        self.machine = LeaseMachine(ttl_ms, usual_grace_ms(ttl_ms), Random(seed))
        self.ttl_ms, self.now = ttl_ms, 0
        self.is_there = True
        self.row_expires_ms = 0
        self.runs_since: int | None = None
        self.asked = 0
        self.due: list[tuple[int, w.LeaseEvent]] = [(0, Started())]
        self.timer: int | None = None
        self.stopped_at: list[int] = []

    def until(self, end_ms: int) -> None:
        while True:
            moments = [at for at, _ in self.due] + ([self.timer] if self.timer is not None else [])
            if not moments or min(moments) > end_ms:
                break
            self.now = max(self.now, min(moments))
            if self.timer is not None and self.timer <= self.now:
                self.timer = None
                self._step(TimerFired("look"))
                continue
            at, event = min(self.due, key=lambda one: one[0])
            self.due.remove((at, event))
            self._step(event)
        self.now = end_ms

    def _step(self, event: w.LeaseEvent) -> None:
        for effect in self.machine.step(event, self.now):
            match effect:
                case w.TakeLease(req) | w.RenewLease(req):
                    self.asked += 1
                    if self.is_there:
                        self.row_expires_ms = self.now + self.ttl_ms
                        self.due.append((self.now + 2, w.LeaseGranted(req, LeaseFence(1, 1))))
                    else:
                        self.due.append((self.now + ANSWER_MS, w.LeaseFailed(req, AWAY)))
                case w.BeginHolding():
                    self.runs_since = self.now
                case w.StopHolding(_, until_ms):
                    assert until_ms <= self.row_expires_ms
                    self.due.append((self.now + 100, w.HolderStopped()))
                    self.runs_since = None
                    self.stopped_at.append(self.now)
                case SetTimer(_, at_ms):
                    self.timer = at_ms
                case _:
                    pass


def test_an_hour_without_the_database_stops_the_holder_in_time_asks_seldom_and_ends_by_itself() -> None:
    for ttl_ms in (TTL_MS_MIN, TTL_MS, TTL_MS_MAX):
        life = Life(7, ttl_ms)
        life.until(HOUR_MS)
        assert life.runs_since is not None
        assert life.stopped_at == []
        life.is_there = False
        gone_at, asked = life.now, life.asked
        life.until(gone_at + HOUR_MS)
        assert [at - gone_at < ttl_ms for at in life.stopped_at] == [True]
        assert life.asked - asked <= HOUR_MS // ANSWER_MS + 5, "no storm of requests"
        assert life.machine.phase is LeasePhase.ASKING
        life.is_there = True
        life.until(gone_at + HOUR_MS + 10_000)
        assert life.runs_since is not None


def test_every_ttl_leaves_time_for_two_renewals_before_the_holder_must_stop() -> None:
    for ttl_ms in range(TTL_MS_MIN, TTL_MS_MAX + 1, 500):
        assert trusted_ms(ttl_ms) - usual_grace_ms(ttl_ms) > ttl_ms // 3 + 500
