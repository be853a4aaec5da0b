"""How a new generation goes through the partners: the policy that travels, and the orders that carry it out.

Implements the sections "Policy" and "Orders" of ``docs/spec/rollout.md``.
"""

from __future__ import annotations

import enum

import msgspec

from instep.errors import PeerError
from instep.model.counts import lasting
from instep.model.decoding import DECODE_ERRORS
from instep.model.ids import Count, HeadRef, NodeName

POLICY_BYTES_MAX = 128 * 1024
ORDER_MAX = 1_000
"""So many nodes can be named in ``order``."""
BATCH_MAX = 1_000
NAME_MAX = 63
DURATION_MS_MAX = 7 * 24 * 3_600_000
_LONGEST = lasting(DURATION_MS_MAX)
FINISH_WITHIN_MS_MIN = 1_000
SERIAL_MAX = 1 << 53
"""The bound of a serial in an order or a report: no node can use the numbers up for others."""


class Strategy(enum.Enum):
    AUTO = "auto"
    TOGETHER = "together"
    ROLLING = "rolling"
    CANARY = "canary"


class OnFailure(enum.Enum):
    PUT_BACK = "put_back"
    STOP = "stop"


class Absent(enum.Enum):
    """How the barrier treats an unreachable partner."""

    SKIP = "skip"
    WAIT = "wait"


class Approval(enum.Enum):
    """Whose word a rollout waits for before a partner may switch."""

    OFF = "off"
    ONE = "one"
    OTHER_THAN_AUTHOR = "other_than_author"


class Verdict(enum.Enum):
    """A node's permission or duty about the head that an order names."""

    HOLD = "hold"
    SWITCH = "switch"
    PUT_BACK = "put_back"
    KEEP = "keep"
    RELOAD = "reload"


class RolloutPolicy(msgspec.Struct, frozen=True, array_like=True):
    """The ``rollout`` section of a fileset, written at its writer. Durations in ms; ``None`` is off."""

    version: int = 1
    strategy: Strategy = Strategy.AUTO
    batch: int = 1
    order: tuple[NodeName, ...] = ()
    quorum_percent: int = 100
    absent: Absent = Absent.SKIP
    on_failure: OnFailure = OnFailure.PUT_BACK
    confirm_within_ms: int | None = None
    finish_within_ms: int = 300_000
    canary_for_ms: int = 10_000
    approve: Approval = Approval.OFF

    def encoded(self) -> bytes:
        """As ``Definition.rollout`` carries it: nothing for the defaults, and ``approve`` only where it is on, which
        nodes of an older version do not take."""
        if self == DEFAULT_POLICY:
            return b""
        fields = msgspec.structs.astuple(self)
        return msgspec.msgpack.encode(fields[:-1] if self.approve is Approval.OFF else fields)

    @property
    def is_approved(self) -> bool:
        """Whether a person approves each rollout: then a first copy waits for its permit, too."""
        return self.approve is not Approval.OFF

    def needs_permit(self, *, has_reload: bool) -> bool:
        """Whether a partner waits for the writer's permit before it switches."""
        return self.strategy is not Strategy.AUTO or has_reload


DEFAULT_POLICY = RolloutPolicy()


class Order(msgspec.Struct, frozen=True, array_like=True):
    """The whole present order for one node about ``head``. Level: a later one of the same head has a higher
    ``serial`` and replaces it; a lower one is ignored. ``attempt`` counts the rollouts of this head from 1: a node that
    refused it in an earlier one forgets that. ``permit`` is the serial with which the node's permit was granted: a
    refusal of the head ends that permit, and only one of a higher serial lets the node switch again. It is 0 where
    there is none, and from a writer of an older version."""

    head: HeadRef
    serial: Count
    verdict: Verdict
    drains: bool = False
    finish_within_ms: Count = 300_000
    confirm_within_ms: Count | None = None
    attempt: Count = 1
    permit: Count = 0


def decode_policy(raw: bytes) -> RolloutPolicy:
    """The policy in ``Definition.rollout``, or ``PeerError`` when it is malformed, not canonical or out of
    bounds."""
    if not raw:
        return DEFAULT_POLICY
    if len(raw) > POLICY_BYTES_MAX:
        raise PeerError(
            f"rollout policy of {len(raw)} bytes, the limit is {POLICY_BYTES_MAX}", code="bad_rollout"
        )
    try:
        policy = msgspec.msgpack.decode(raw, type=RolloutPolicy)
    except DECODE_ERRORS as error:
        raise PeerError(f"rollout policy cannot be decoded: {error}", code="bad_rollout") from error
    if policy.version != 1:
        raise PeerError(
            f"rollout policy of version {policy.version}, this node knows 1", code="unknown_version"
        )
    if policy.encoded() != raw:
        raise PeerError("rollout policy is not in canonical form", code="bad_rollout")
    why = why_not_policy(policy)
    if why is not None:
        raise PeerError(f"rollout policy: {why}", code="bad_rollout")
    return policy


def why_not_policy(policy: RolloutPolicy) -> str | None:
    """Why a policy cannot travel; None when it can. Names the key, the value and the bounds."""
    if not 1 <= policy.batch <= BATCH_MAX:
        return f"batch is {policy.batch}, it goes from 1 to {BATCH_MAX}"
    if not 1 <= policy.quorum_percent <= 100:
        return f"quorum is {policy.quorum_percent}%, it goes from 1% to 100%"
    if len(policy.order) > ORDER_MAX:
        return f"order names {len(policy.order)} nodes, the limit is {ORDER_MAX}"
    if policy.approve is not Approval.OFF and policy.strategy is Strategy.AUTO:
        return f"approve is {policy.approve.value}, it needs a strategy where all partners wait, not auto"
    if len(set(policy.order)) != len(policy.order):
        return "order names a node twice"
    if not all(1 <= len(name) <= NAME_MAX for name in policy.order):
        return f"order names a node of more than {NAME_MAX} characters or of none"
    return _why_not_durations(policy.finish_within_ms, policy.confirm_within_ms) or (
        None
        if 0 <= policy.canary_for_ms <= DURATION_MS_MAX
        else f"canary_for is {lasting(policy.canary_for_ms)}, it goes from 0 to {_LONGEST}"
    )


def why_not_order(order: Order) -> str | None:
    """Why an order that a node sent is not taken; None when it can be."""
    if not 1 <= order.serial <= SERIAL_MAX:
        return f"serial is {order.serial}, it goes from 1 to {SERIAL_MAX}"
    if not 0 <= order.permit <= SERIAL_MAX:  # An order to reload may have a lower serial than the permit.
        return f"permit is {order.permit}, it goes from 0 to {SERIAL_MAX}"
    if order.attempt < 1:
        return f"attempt is {order.attempt}, the first is 1"
    return _why_not_durations(order.finish_within_ms, order.confirm_within_ms)


def _why_not_durations(finish_within_ms: int, confirm_within_ms: int | None) -> str | None:
    if not FINISH_WITHIN_MS_MIN <= finish_within_ms <= DURATION_MS_MAX:
        bounds = f"{lasting(FINISH_WITHIN_MS_MIN)} to {_LONGEST}"
        return f"finish_within is {lasting(finish_within_ms)}, it goes from {bounds}"
    if confirm_within_ms is not None and not 1 <= confirm_within_ms <= DURATION_MS_MAX:
        return f"confirm_within is {lasting(confirm_within_ms)}, it goes from {lasting(1)} to {_LONGEST}"
    return None
