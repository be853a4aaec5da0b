"""Events, effects, facts and configuration of the ``KeepMachine``: a line of another home, without a tree."""

from __future__ import annotations

import msgspec

from instep.core.heads.vocabulary import (
    AskFailed,
    AskHeads,
    HeadsAnswered,
    HeadSeen,
    HeadSuperseded,
    OfferHead,
    PollAsked,
    SourceDown,
    SourceNoticed,
    SourceUp,
    WordHeard,
)
from instep.core.lines.accept import EpochBook
from instep.core.vocabulary import (
    Cancel,
    EpochSeen,
    FetchFailed,
    FetchPages,
    KeepEpoch,
    KeepGeneration,
    MachineWord,
    Note,
    Paused,
    Refuse,
    RequestDone,
    Resumed,
    RetryAsked,
    SetTimer,
    Started,
    TimerFired,
)
from instep.model.ids import EMPTY_DIGEST, Digest, HeadRef, NodeName
from instep.model.standing import Standing


class KeepConfig(MachineWord):
    """This node's settings for keeping the line. Durations in ms. ``direct_grace_ms``: so long a head that a hub passed
    on is left to the writer, where this node is connected with it: it sends its pages along."""

    writer: NodeName
    poll_ms: int = 30_000
    retry_min_ms: int = 500
    retry_max_ms: int = 60_000
    direct_grace_ms: int = 150
    overrules: bool = False
    """An operator wrote another writer's name than the newest epoch record's."""


class KeepFacts(msgspec.Struct, frozen=True, array_like=True):
    """The state that must survive a crash. ``kept`` is the newest head of which all pages and the definition are here;
    ``definition`` is that definition's digest."""

    version: int = 1
    head: HeadRef | None = None
    kept: HeadRef | None = None
    definition: Digest = EMPTY_DIGEST
    epochs: EpochBook = EpochBook()
    is_paused: bool = False
    paused_reason: str = ""
    paused_until_wall_ms: int | None = None


# --- events -------------------------------------------------------------------------------------------------


class KeepConfigChanged(MachineWord):
    config: KeepConfig


class PartFetched(RequestDone):
    """Answer to ``FetchPages``: all pages of the head's manifest and its definition are verified and stored durably."""

    definition: Digest


KeepAnswer = PartFetched | FetchFailed | HeadSuperseded
KeepEvent = (
    Started
    | KeepConfigChanged
    | SourceUp
    | SourceDown
    | SourceNoticed
    | WordHeard
    | HeadSeen
    | EpochSeen
    | HeadsAnswered
    | AskFailed
    | Paused
    | Resumed
    | RetryAsked
    | PollAsked
    | TimerFired
    | KeepAnswer
)


# --- effects ------------------------------------------------------------------------------------------------


class SaveKept(MachineWord):
    """Make ``facts`` durable before any effect that follows."""

    facts: KeepFacts


class KeptHead(MachineWord):
    """This head may go into the union: all of it but contents is here. Said again after each start; no answer."""

    head: HeadRef
    definition: Digest


class KeepStand(MachineWord):
    """How the line stands here, as far as it is kept; what the tree has of it is said by the union."""

    standing: Standing
    code: str | None = None
    reason: str | None = None
    head: HeadRef | None = None
    kept: HeadRef | None = None
    next_steps: tuple[str, ...] = ()


KeepEffect = (
    SaveKept
    | KeptHead
    | KeepStand
    | KeepGeneration
    | KeepEpoch
    | FetchPages
    | AskHeads
    | OfferHead
    | Cancel
    | Refuse
    | Note
    | SetTimer
)
