"""Sync runs that another node than the home that carries them out starts, or looks at, and the facts that their gates
are about, since version 3."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from instep.model.external import EXTERNALS_MAX, External
from instep.model.ids import HeadRef, LineId
from instep.model.manifest.entry import Entry
from instep.model.sync import BASES_KEPT, LockedEdit, ProfileNews, SyncBase, SyncMark
from instep.net.messages.parts import Count, Message, Name, RawDigest, StreamMessage, Text, Word

SYNC_BYTES_MAX = 3 << 20
FACTS_MAX = 128
EDITS_SENT = 1_000
SERVERS_MAX = 256
HEADS_ASKED = 64
SETS_ASKED = 64
PAGES_ASKED = 256
CARRIERS_MAX = 16
DIFFERENCE_MAX = 16_384
DIFFERENCE_BYTES_MAX = 3 << 20


class SyncRefusal(msgspec.Struct, frozen=True, array_like=True):
    """Why a question on the stream is not answered."""

    code: Word
    reason: Text
    hint: Text | None = None
    exit_code: Annotated[int, msgspec.Meta(ge=0, le=255)] = 1


class SyncRequest(StreamMessage, tag="sync", frozen=True, array_like=True):
    """A command about a profile, by its name: ``asked`` are its parameters as the control socket takes them. On the
    stream a home asks, with a ``number``, the one that carries the runs out."""

    wanted: Literal["sync_run", "sync_show", "sync_cancel", "sync_collisions"]
    profile: Word
    asked: Annotated[bytes, msgspec.Meta(max_length=64 << 10)]
    number: Count = 0


class SyncReply(StreamMessage, tag="sync_reply", frozen=True, array_like=True):
    """The result of the command, as JSON."""

    document: Annotated[bytes, msgspec.Meta(max_length=SYNC_BYTES_MAX)]
    number: Count = 0
    refusal: SyncRefusal | None = None


class MarksRequest(Message, tag="sync_marks", frozen=True, array_like=True):
    """The marks of a profile's bases, which this home keeps for the one that carries its runs out; ``new`` is
    kept first. ``heads`` are generations that this home, or a former one of this side, may have published. ``sets`` are
    change sets that a run sent, and ended: their ids are random, and known to their sender alone. For partners whose
    changes are taken."""

    line: LineId
    profile: Word
    new: SyncMark | None = None
    heads: Annotated[tuple[RawDigest, ...], msgspec.Meta(max_length=HEADS_ASKED)] = ()
    sets: Annotated[tuple[RawDigest, ...], msgspec.Meta(max_length=SETS_ASKED)] = ()


class MarksReply(Message, tag="sync_marks_reply", frozen=True, array_like=True):
    """The newest last. ``others``: the newest mark of each other node that carried runs of a profile of this name out.
    ``heads``: those that were asked about and are generations of the line. ``made``: the paths that the sets changed
    here, as far as they were answered; none where these are too many."""

    marks: Annotated[tuple[SyncMark, ...], msgspec.Meta(max_length=BASES_KEPT)]
    others: Annotated[tuple[SyncMark, ...], msgspec.Meta(max_length=CARRIERS_MAX)] = ()
    heads: Annotated[tuple[RawDigest, ...], msgspec.Meta(max_length=HEADS_ASKED)] = ()
    made: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=DIFFERENCE_MAX)] = ()


class BasesRequest(Message, tag="sync_bases", frozen=True, array_like=True):
    """The base with this mark, which a home or a former one of the line keeps, or pages of one of its trees; with no
    mark the newest base. For nodes that may have the line, and for the one that writes it now."""

    line: LineId
    profile: Word
    mark: SyncMark | None = None
    tree: RawDigest | None = None
    digests: Annotated[tuple[RawDigest, ...], msgspec.Meta(max_length=PAGES_ASKED)] = ()


class BasesReply(Message, tag="sync_bases_reply", frozen=True, array_like=True):
    """``base`` is None where it is not kept. The first ``len(pages)`` of the pages that were asked for."""

    base: SyncBase | None
    pages: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=PAGES_ASKED)] = ()


class ProfileNotice(Message, tag="sync_profile", frozen=True, array_like=True):
    """The home that carries the runs of a profile out names it to the other one, whose changes it may make."""

    line: LineId
    profile: ProfileNews


class HomeState(msgspec.Struct, frozen=True, array_like=True):
    """A home's line as it is now. ``reason``: why its tree may have other contents than its head, such as edits that
    are not published; empty where it has not. ``is_rolling_out``: partners still take the head; ``refused``: why some
    did not."""

    head: HeadRef | None
    reason: Text = ""
    external: Annotated[tuple[External, ...], msgspec.Meta(max_length=EXTERNALS_MAX)] = ()
    is_rolling_out: bool = False
    refused: Text = ""
    is_working: bool = False
    """A scan or a publish is under way: how the line is shows a moment later."""
    line: LineId | None = None
    """Its own name, which has the node that wrote it first: the writer may be another one now."""


class ProfileReply(Message, tag="profile_reply", frozen=True, array_like=True):
    """The first edits of locked paths that are not over, and how many there are; the highest number of a run of this
    profile that the home has heard of."""

    edits: Annotated[tuple[LockedEdit, ...], msgspec.Meta(max_length=EDITS_SENT)]
    total: Count
    run: Count
    state: HomeState | None = None


class NodeFacts(msgspec.Struct, frozen=True, array_like=True):
    """The facts of one server of a side, when it was asked; or why they are not known."""

    node: Name
    facts: Annotated[tuple[tuple[Text, Text], ...], msgspec.Meta(max_length=FACTS_MAX)]
    time_ms: Count
    away: Text = ""


class SideFactsRequest(Message, tag="side_facts", frozen=True, array_like=True):
    """The named facts, and the built-in ones, of the home of a line and of its partners that are connected; for
    partners whose changes are taken. Fingerprints of secrets are answered under ``key``, which is the asker's own and
    random."""

    line: LineId
    key: Annotated[bytes, msgspec.Meta(max_length=64)]
    names: Annotated[tuple[Word, ...], msgspec.Meta(max_length=FACTS_MAX)]


class SideFactsReply(Message, tag="side_facts_reply", frozen=True, array_like=True):
    """The home itself comes first."""

    servers: Annotated[tuple[NodeFacts, ...], msgspec.Meta(min_length=1, max_length=SERVERS_MAX)]


class DifferenceRequest(Message, tag="difference", frozen=True, array_like=True):
    """What changed in a line from the generation ``since``, whose pages the asker has, to ``generation``; for partners
    whose changes are taken."""

    line: LineId
    generation: RawDigest
    since: RawDigest


class DifferenceReply(Message, tag="difference_reply", frozen=True, array_like=True):
    """The entries that are others or new, in order, and the paths that are gone. ``is_whole`` is false, and nothing
    named, where that is too much: then pages are asked for."""

    entries: Annotated[tuple[Entry, ...], msgspec.Meta(max_length=DIFFERENCE_MAX)] = ()
    removed: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=DIFFERENCE_MAX)] = ()
    is_whole: bool = True
