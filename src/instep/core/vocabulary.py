"""Words that the follow and the publish machine share: trouble, hooks, timers, notes.

Every request effect carries ``req``, a number that its answer repeats; an answer to an old number is dropped by the
machine. Effects are performed in order, and ``Save`` is a barrier: the effects after it are performed only once it is
durable. A request effect ends in exactly one of its answers, within a deadline that the driver sets.
"""

from __future__ import annotations

import enum
from typing import dataclass_transform

import msgspec

from instep.errors import InstepError, Retry, family_of
from instep.model.generation import SignedEpoch, SignedGeneration
from instep.model.ids import HeadRef, NodeName
from instep.model.standing import Standing


@dataclass_transform(frozen_default=True)
class MachineWord(msgspec.Struct, frozen=True):
    """The base of events, effects and their parts: none ever changes, and two with equal fields are equal."""


class HookKind(enum.Enum):
    VALIDATE = "validate"
    RELOAD = "reload"
    PROBE = "probe"


class HookWrite(MachineWord):
    """A path that was touched while the hook of that slot ran here, and by nothing else since. ``is_expected``: the
    hook's ``writes`` names it."""

    path: bytes
    hook: str
    is_expected: bool = False


class Trouble(MachineWord):
    """Why something failed, as a value: the parts of an ``InstepError`` that a machine decides by."""

    code: str
    reason: str
    retry: Retry = Retry.LATER
    exit_code: int = 1
    hint: str | None = None
    facts: tuple[tuple[str, object], ...] = ()


def trouble_of(error: InstepError) -> Trouble:
    """An operating error as the value that answers carry."""
    return Trouble(
        error.error_code,
        error.reason,
        error.retry,
        error.exit_code,
        error.hint,
        tuple(sorted(error.facts.items())),
    )


def error_of(trouble: Trouble) -> InstepError:
    """A machine's trouble as the error that a command ends with."""
    family = family_of(trouble.exit_code)
    return family(trouble.reason, hint=trouble.hint, code=trouble.code, **dict(trouble.facts))


# --- shared events ------------------------------------------------------------------------------------------


class RequestDone(MachineWord):
    """An answer that says no more than that the request with this number was carried out. A base of answers."""

    req: int


class RequestFailed(MachineWord):
    """An answer that says why the request with this number was not carried out. A base of answers."""

    req: int
    trouble: Trouble


class TimerFired(MachineWord):
    """A timer set by ``SetTimer`` came due."""

    name: str


class HookEnded(MachineWord):
    """Answer to ``RunHook``; ``trouble`` is None when the hook succeeded (its own retries are behind it)."""

    req: int
    kind: HookKind
    trouble: Trouble | None = None


class WatchChanged(MachineWord):
    """Why the watch cannot see all paths, and the command that helps; None when it sees all."""

    trouble: Trouble | None


class RootBack(MachineWord):
    """The root was out of sight and is seen again: other files than before may be there."""


# --- shared effects -----------------------------------------------------------------------------------------


class SetTimer(MachineWord):
    """Wake the machine with ``TimerFired(name)`` at ``at_ms`` (the clock of ``step``'s ``now_ms``); replaces
    the timer of that name; ``None`` removes it."""

    name: str
    at_ms: int | None


class RunHook(MachineWord):
    """Run this node's hook of that kind; ``base`` is the generation that was live before ``head``. Answer:
    ``HookEnded``."""

    req: int
    kind: HookKind
    head: HeadRef | None
    base: HeadRef | None


class Cancel(MachineWord):
    """The answer to ``req`` is no longer wanted: stop the work if it can be stopped. No answer is due; one
    that comes is dropped. Work on the place (stage, tree) must have ended before the next such effect is performed.
    Never sent for a switch, a put-back, a revert or a hook."""

    req: int


class KeepGeneration(MachineWord):
    """Store this verified generation durably before what follows (nothing is named that is not durable)."""

    signed: SignedGeneration


class KeepEpoch(MachineWord):
    """Store this verified epoch record durably before what follows."""

    signed: SignedEpoch


class Refuse(MachineWord):
    """A record that ``source`` sent was not accepted: log it, count it, and report it to the source where
    the connection allows."""

    source: NodeName
    trouble: Trouble


class Note(MachineWord):
    """One line of the events log, in glossary words; ``what`` is a stable code."""

    what: str
    text: str
    facts: tuple[tuple[str, object], ...] = ()


class PartnerReport(MachineWord):
    """A partner's newest report about the line, as rollouts decide by it."""

    standing: Standing
    code: str | None = None
    reason: str | None = None
    head: HeadRef | None = None
    live: HeadRef | None = None
    tree: HeadRef | None = None
    staged: HeadRef | None = None
    replaced: HeadRef | None = None
    refused: HeadRef | None = None
    waits_for_permit: bool = False
    is_drained: bool = False
    order_serial: int = 0
    spent_permit: int = 0


class SignerVerdict(MachineWord):
    """The result of verifying a record's signature. ``is_valid``: the value is right and the key is bound to
    ``signer`` by the cluster's CA (or a pin) and not revoked; ``is_ca``: the key is the cluster CA's own."""

    is_valid: bool
    signer: NodeName
    is_ca: bool = False
    code: str = ""
    reason: str = ""


# Events and effects of both machines of a line -----------------------------------------------------------------------


class Started(MachineWord):
    """First event after birth: the facts are those that were saved last (empty when lost)."""


class EpochSeen(MachineWord):
    """A peer sent an epoch record of the line; always before the first generation of that epoch."""

    source: NodeName
    signed: SignedEpoch
    verdict: SignerVerdict


class Paused(MachineWord):
    """An operator pauses the line, until ``Resumed``."""

    reason: str = ""
    until_wall_ms: int | None = None


class Resumed(MachineWord):
    """An operator, or the wall clock, ends a pause."""


class RetryAsked(MachineWord):
    """``instep retry``: forget refusals, fights and back-off, and look and try now."""


class HookAdded(MachineWord):
    """The fileset got its first reload hook: it runs once for the generation that the tree holds."""


class Recover(MachineWord):
    """Look at the journal and finish or undo. Answer: ``RecoveryEnded``, at a writer ``TreeRecovered``, or
    ``RecoverFailed``. A writer scans and publishes nothing until then.

    At a partner a finished journal must stay on disk until the next ``Switch``, ``PutBack`` or ``RecordLive``. Those
    come after a ``Save`` that names the tree, so a crash between a switch and its ``Save`` forgets nothing."""

    req: int


class RecoverFailed(RequestFailed):
    """Answer to ``Recover``: marker or mount missing, journal unreadable, disk failing."""


class FetchPages(MachineWord):
    """Get the manifest and definition of ``head`` from ``source``. Answer: ``PagesFetched``, at a writer
    ``ManifestFetched``; ``FetchFailed``; at a partner also ``HeadSuperseded``. Resumable: pages that are stored already
    are not fetched."""

    req: int
    source: NodeName
    head: HeadRef


class FetchFailed(RequestFailed):
    """Answer to ``FetchPages``."""


LineEvent = (
    Started | EpochSeen | RootBack | WatchChanged | Paused | Resumed | RetryAsked | HookAdded | TimerFired
)
"""Events of both machines of a line, besides answers."""
LineEffect = KeepGeneration | KeepEpoch | Recover | FetchPages | RunHook | Cancel | Refuse | Note | SetTimer
"""Effects of both machines of a line."""
