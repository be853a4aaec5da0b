"""Events and effects of the ``LeaseMachine``.

Every request effect carries ``req``, a number that its answer repeats; an answer to an old number is dropped.
"""

from __future__ import annotations

import enum

from instep.core.vocabulary import (
    MachineWord,
    Note,
    RequestDone,
    RequestFailed,
    SetTimer,
    Started,
    TimerFired,
)
from instep.model.lease import LeaseFence


class WhyStopped(enum.Enum):
    """Why a holder stops before it gives the lease back."""

    EXPIRED = "expired"
    """The database did not renew the lease in time."""
    TAKEN = "taken"
    """The database says that it is not this holder's any more: an operator broke it, or another one took it."""
    NEWER_ERA = "newer_era"
    """Another server has begun a newer era, which this node's database does not know."""
    RELEASED = "released"
    """It was asked to."""


# Events --------------------------------------------------------------------------------------------------------------


class LeaseGranted(RequestDone):
    """Answer to ``TakeLease`` and ``RenewLease``."""

    fence: LeaseFence


class LeaseDenied(RequestDone):
    """Answer to ``TakeLease`` and ``RenewLease``: another holder has it, for ``left_ms`` more at most. Without a holder
    it is the quiet time after a failover, or an operator has broken it."""

    holder: str = ""
    left_ms: int = 0


class LeaseFailed(RequestFailed):
    """Answer to every request: the database did not answer, or refused. Whether it took the request is not known."""


class LeaseGivenBack(RequestDone):
    """Answer to ``GiveBackLease``."""


class LeaseChanged(MachineWord):
    """A change of the lease was announced: it may be free, or broken."""


class NewerEra(MachineWord):
    """Another node has seen this era of the cluster's database."""

    era: int


class HolderStopped(MachineWord):
    """Whatever ran under the lease has ended: the answer to ``StopHolding``."""


class ReleaseLease(MachineWord):
    """The lease is wanted no more: stop, give it back, end."""


# Effects -------------------------------------------------------------------------------------------------------------


class TakeLease(MachineWord):
    """Ask the database for the lease. Answer: ``LeaseGranted``, ``LeaseDenied`` or ``LeaseFailed``."""

    req: int


class RenewLease(MachineWord):
    """Ask the database for more time. Answers as of ``TakeLease``."""

    req: int
    fence: LeaseFence


class GiveBackLease(MachineWord):
    """Let the lease be free at once: nothing runs under it any more. Answer: ``LeaseGivenBack`` or ``LeaseFailed``."""

    req: int
    fence: LeaseFence


class BeginHolding(MachineWord):
    """The lease is held under this fence: what it guards may run, and has ended at ``until_ms`` unless it is
    extended."""

    fence: LeaseFence
    until_ms: int


class ExtendHolding(MachineWord):
    """The lease is held until ``until_ms``, from now on under this fence."""

    fence: LeaseFence
    until_ms: int


class StopHolding(MachineWord):
    """End what runs under the lease, by ``until_ms`` at the latest. Answer: ``HolderStopped``."""

    why: WhyStopped
    until_ms: int


class LeaseDeniedTo(MachineWord):
    """The lease cannot be had now; told once for each change. ``trouble`` where the database did not answer."""

    answer: LeaseDenied | LeaseFailed


class LeaseEnded(MachineWord):
    """The machine is at its end; no effect follows."""


LeaseEvent = (
    Started | LeaseGranted | LeaseDenied | LeaseFailed | LeaseGivenBack | LeaseChanged | NewerEra
    | HolderStopped | ReleaseLease | TimerFired
)  # fmt: skip
LeaseEffect = (
    TakeLease | RenewLease | GiveBackLease | BeginHolding | ExtendHolding | StopHolding | LeaseDeniedTo
    | LeaseEnded | SetTimer | Note
)  # fmt: skip
