"""The places of a pool: which user may sit down, and when a place is free again.

A user takes one place of a pool, on however many nodes. Each node counts the user's uses there, and renews them
together. Uses of a node that does not renew them end after the pool's ``grace``. Until then the node may let its seated
users go on by itself, so no place is given twice while the database is away from one node or from all. A seat whose
last use is released stays the user's for the pool's ``linger``.
"""

from __future__ import annotations

import enum
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from instep.errors import UsageError

USER_MAX = 200
_MARGIN_MS = 1_000


class KeyRule(enum.Enum):
    """When two names are one user: ``fold`` takes ``Ana`` and ``ana`` for one."""

    FOLD = "fold"
    EXACT = "exact"


def user_key(name: str, rule: KeyRule) -> str:
    """What a user is counted by. ``UsageError`` where the name is none."""
    plain = _composed(name).strip()
    if not plain or len(plain) > USER_MAX or not plain.isprintable():
        raise UsageError(
            f"{name[:USER_MAX]!r} is not the name of a user",
            hint=f"give 1 to {USER_MAX} printable characters",
            code="bad_user",
        )
    return _composed(_composed(plain.casefold()).casefold()) if rule is KeyRule.FOLD else plain


def _composed(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


@dataclass(frozen=True, slots=True)
class PoolRules:
    """A pool as the cluster has it on record. Licences of two kinds are never counted together."""

    name: str
    kind: str
    places: int
    linger_ms: int
    grace_ms: int


class Use(NamedTuple):
    """A user's presence at one node: how often, and when it ends unless the node renews it."""

    node: str
    times: int
    ends_at_ms: int


@dataclass(frozen=True, slots=True)
class Seat:
    """A user's place. ``lingers_until_ms`` is 0 until the last use was released."""

    since_ms: int
    uses: tuple[Use, ...]
    lingers_until_ms: int = 0

    @property
    def ends_at_ms(self) -> int:
        """From when on the place is free."""
        return max((use.ends_at_ms for use in self.uses), default=self.lingers_until_ms)


class SeatVerdict(enum.Enum):
    """The answer to a user who wants to sit down."""

    SEATED = "seated"
    ALREADY = "already"
    FULL = "full"
    OTHER_KIND = "other_kind"
    QUIET = "quiet"
    """There may be seats that a failover of the database has forgotten."""
    FREE = "free"
    """To a user who wants to stand up: there was no seat."""


def judge(pool: PoolRules, kind: str, seat: Seat | None, taken: int, now_ms: int) -> SeatVerdict:
    """``seat`` is the user's, ``taken`` the number of places that are not free now, this one included. The node that
    asks counts licences of ``kind``."""
    if kind != pool.kind:
        return SeatVerdict.OTHER_KIND
    if seat is not None and seat.ends_at_ms > now_ms:
        return SeatVerdict.ALREADY
    return SeatVerdict.SEATED if taken < pool.places else SeatVerdict.FULL


def may_change_kind(taken: int) -> bool:
    """A pool takes another kind of licences while no place of it is taken."""
    return taken == 0


def sat_down(pool: PoolRules, seat: Seat | None, node: str, now_ms: int) -> Seat:
    """The seat with one use more at a node."""
    if seat is None or seat.ends_at_ms <= now_ms:
        seat = Seat(now_ms, ())
    here, others = _divided(seat, node, now_ms)
    return Seat(seat.since_ms, (*others, Use(node, here.times + 1, now_ms + pool.grace_ms)))


def stood_up(pool: PoolRules, seat: Seat, node: str, now_ms: int) -> Seat:
    """The seat with one use less at a node. Where none is left it lingers; what only lingers already ends."""
    here, others = _divided(seat, node, now_ms)
    left = (*others, here._replace(times=here.times - 1)) if here.times > 1 else others
    lingers_until_ms = now_ms + (pool.linger_ms if here.times else 0)
    return Seat(seat.since_ms, left, 0 if left else lingers_until_ms)


def renewed(pool: PoolRules, seat: Seat, node: str, now_ms: int) -> Seat:
    """The seat with the node's use prolonged. A use that has ended stays ended."""
    until_ms = now_ms + pool.grace_ms
    uses = tuple(
        use._replace(ends_at_ms=until_ms) if use.node == node and use.ends_at_ms > now_ms else use
        for use in seat.uses
    )
    return Seat(seat.since_ms, uses, seat.lingers_until_ms)


def _divided(seat: Seat, node: str, now_ms: int) -> tuple[Use, tuple[Use, ...]]:
    """The use at a node, and those at others, as far as they are in force."""
    in_force = tuple(use for use in seat.uses if use.ends_at_ms > now_ms)
    here = next((use for use in in_force if use.node == node), Use(node, 0, now_ms))
    return here, tuple(use for use in in_force if use.node != node)


def taken(seats: Iterable[Seat], now_ms: int) -> int:
    """How many places are not free."""
    return sum(seat.ends_at_ms > now_ms for seat in seats)


def kept_until_ms(sent_at_ms: int, grace_ms: int) -> int:
    """How long a node lets its seated users go on after a renewal, on its own clock from before the request left: less
    than the database waits, for the clocks of two machines may run at different rates."""
    return sent_at_ms + grace_ms * 9 // 10 - _MARGIN_MS


def renew_after_ms(grace_ms: int) -> int:
    """When a node renews its uses again."""
    return grace_ms // 4
