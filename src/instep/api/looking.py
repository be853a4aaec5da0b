"""Status, log, differences, events, receivers of a path; and whether the daemon is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET, UnsetType, field

from instep.api.command import Command, Document, FilesetCommand, Role, command
from instep.api.parts import (
    CopiesDocument,
    ExternalDocument,
    FailureDocument,
    FullGenerationDocument,
    GenerationDocument,
    HeldDocument,
    PathCopiesDocument,
    ReportedDocument,
)
from instep.api.shared_parts.leases import DatabaseDocument
from instep.errors import DamagedError, PeerError, RefusedError, ResourceError, UnavailableError
from instep.model.ids import Count


class PingDocument(Document, frozen=True):
    """The node that answers, and its process."""

    node: str
    pid: int


@command("ping", Role.VIEWER)
class PingCommand(Command[PingDocument], frozen=True):
    """Say that the daemon runs."""


class StopDocument(Document, frozen=True):
    """The node that stops."""

    node: str
    stopping: bool


@command("stop", Role.ADMIN)
class StopCommand(Command[StopDocument], frozen=True):
    """End the daemon."""


# Status -------------------------------------------------------------------------------------------------


class ConfigDocument(Document, frozen=True):
    """Which configuration runs: the one in the file (``current``), or another because that was refused or is bad."""

    state: str
    running: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    problems: tuple[Mapping[str, Any], ...] | UnsetType = UNSET


class PartnerDocument(Document, frozen=True):
    """How a partner stands in a line, by its own report and by this node's view of it."""

    name: str
    live: GenerationDocument | None
    standing: str
    reason: str | None
    code: str | None
    since: str | None
    next: tuple[str, ...]
    last_checked: str | None
    behind_ms: int | None
    done_bytes: int | UnsetType = UNSET
    total_bytes: int | UnsetType = UNSET


class RunningRolloutDocument(Document, frozen=True):
    """A rollout that runs or has failed, as ``status`` shows it."""

    state: str
    paused: bool
    reason: str | None
    switched: int
    total: int
    failed: FailureDocument | None
    next: tuple[str, ...]


class LineDocument(Document, frozen=True):
    """A line as this node knows it. Only its writer knows held and reported paths."""

    origin: str
    writer: str
    head: FullGenerationDocument | None
    live: GenerationDocument | None
    standing: str
    reason: str | None
    code: str | None
    since: str | None
    next: tuple[str, ...]
    partners: tuple[PartnerDocument, ...]
    doing: str | UnsetType = UNSET
    rollout: RunningRolloutDocument | UnsetType = UNSET
    held: tuple[HeldDocument, ...] | UnsetType = UNSET
    held_total: int | UnsetType = UNSET
    reported: tuple[ReportedDocument, ...] | UnsetType = UNSET
    reported_total: int | UnsetType = UNSET
    not_accepted: tuple[str, ...] | UnsetType = UNSET
    """Partners that may have the line and have not accepted it."""
    as_of: str | UnsetType | None = UNSET
    """Of a line that is written elsewhere: when its writer last said which generation is its newest; None for never."""


class FilesetStatusDocument(Document, frozen=True):
    """A fileset with its lines; ``without`` names the metadata that the file system here cannot keep."""

    name: str
    mode: str
    fileset_class: str = field(name="class")
    path: str
    lines: tuple[LineDocument, ...]
    without: tuple[str, ...] | UnsetType = UNSET
    external: tuple[ExternalDocument, ...] | UnsetType = UNSET
    """Parts of the application that are not carried."""
    copies: tuple[CopiesDocument, ...] | UnsetType = UNSET
    """How the rules about copies wanted were kept at the last look."""
    collisions: int | UnsetType = UNSET
    """Of a fileset of many homes: the collisions that no person has reviewed on this node."""


class LinkDocument(Document, frozen=True):
    """A partner that this node dials."""

    name: str
    address: str
    up: bool
    reason: str | None
    code: str | None
    next: tuple[str, ...]


class OfferDocument(Document, frozen=True):
    """A fileset that a partner offers and that was not accepted here."""

    name: str
    writer: str
    source: str = field(name="from")
    fileset_class: str = field(name="class")
    mode: str
    entries: int
    bytes: int


class EndDocument(Document, frozen=True):
    """Why the last daemon ended with an error; without a moment, what the present one does that does not answer."""

    at: str | None
    reason: str
    next: tuple[str, ...]


class StatusDocument(Document, frozen=True):
    """A node with its filesets; with the daemon stopped its last state, without links and offers."""

    node: str | None
    daemon: str
    config: ConfigDocument
    filesets: tuple[FilesetStatusDocument, ...]
    links: tuple[LinkDocument, ...] | UnsetType = UNSET
    offers: tuple[OfferDocument, ...] | UnsetType = UNSET
    warnings: tuple[str, ...] | UnsetType = UNSET
    next: tuple[str, ...] = ()
    database: DatabaseDocument | UnsetType = UNSET
    """The cluster's database, where this node needs one."""
    ended: EndDocument | UnsetType = UNSET
    """Where the daemon is not running, and ended with an error."""


@command("status", Role.VIEWER)
class StatusCommand(FilesetCommand[StatusDocument], frozen=True):
    """How all nodes stand that this node knows; with ``watch`` an item for every change until the daemon stops.

    ``max_behind_ms``: a line whose writer was not heard of within that time is not in step.
    """

    watch: bool = False
    max_behind_ms: Count | None = None


# Log, diff, events --------------------------------------------------------------------------------------


class LogRowDocument(FullGenerationDocument, frozen=True):
    """A generation, with the nodes that have all its contents, alone or together."""

    contents: tuple[str, ...]
    together: tuple[str, ...] | UnsetType = UNSET
    restorable: bool | UnsetType = UNSET


class LogDocument(Document, frozen=True):
    """Generations, newest first."""

    fileset: str
    generations: tuple[LogRowDocument, ...]


@command("log", Role.VIEWER, ResourceError, needs_tree=True)
class LogCommand(FilesetCommand[LogDocument], frozen=True):
    """The generations of a line, and where the contents of each can still be had."""


class VersionDocument(FullGenerationDocument, frozen=True, kw_only=True):
    """A generation in which a path changed: ``added``, ``changed``, ``removed``, ``renamed`` with its name before, or
    ``there`` already in the oldest generation that is known. ``after``: the change came somewhere behind that one."""

    path: str
    path_b64: str | UnsetType = UNSET
    change: str
    source: str | UnsetType = field(default=UNSET, name="from")
    size: int | UnsetType = UNSET
    modified_at: str | UnsetType | None = UNSET
    after: int | UnsetType = UNSET


class HolderDocument(Document, frozen=True):
    """A node, the generation that it serves, and the one that last changed the path there."""

    name: str
    live: int | None
    version: int | None


class PathLogDocument(Document, frozen=True, kw_only=True):
    """The generations in which a path changed, newest first, and what each node serves of it."""

    fileset: str
    path: str
    path_b64: str | UnsetType = UNSET
    generations: tuple[VersionDocument, ...]
    nodes: tuple[HolderDocument, ...]


@command("path_log", Role.VIEWER)
class PathLogCommand(FilesetCommand[PathLogDocument], frozen=True, kw_only=True):
    """In which generations a path changed, by whom, and which nodes serve which version of it."""

    path: str
    path_b64: bytes | None = None


class ChangeDocument(Document, frozen=True, kw_only=True):
    """A path that differs; ``problem`` is why a scan could not carry it."""

    path: str
    path_b64: str | UnsetType = UNSET
    change: str
    source: str | UnsetType = field(default=UNSET, name="from")
    problem: str | UnsetType = UNSET


class DiffDocument(Document, frozen=True, kw_only=True):
    """The changes from generation ``a`` to ``b``; without numbers from the head to the tree."""

    fileset: str
    a: int | UnsetType = UNSET
    b: int | UnsetType = UNSET
    changes: tuple[ChangeDocument, ...]
    held: tuple[HeldDocument, ...] | UnsetType = UNSET
    held_total: int | UnsetType = UNSET
    reported: tuple[ReportedDocument, ...] | UnsetType = UNSET
    reported_total: int | UnsetType = UNSET


@command("diff", Role.VIEWER, DamagedError, RefusedError, ResourceError, needs_tree=True)
class DiffCommand(FilesetCommand[DiffDocument], frozen=True):
    """The changes between two generations, or between one and the head, or between the head and the tree."""

    a: Count | None = None
    b: Count | None = None


class TextDiffDocument(Document, frozen=True, kw_only=True):
    """The text of a path that differs, as a unified difference: each line begins with ``@``, a blank, ``-`` or ``+``.
    With ``cut`` there were more. ``why`` says why there is no text, such as ``binary``."""

    fileset: str
    path: str
    a: int | None = None
    b: int | None = None
    lines: tuple[str, ...]
    cut: bool
    why: str | None = None


@command(
    "text_diff",
    Role.OPERATOR,
    RefusedError,
    UnavailableError,
    DamagedError,
    PeerError,
    ResourceError,
    is_audited=False,
    needs_tree=True,
)
class TextDiffCommand(FilesetCommand[TextDiffDocument], frozen=True, kw_only=True):
    """The text of one path that differs, between two generations, one and the head, or the head and the tree. Contents
    come from this node or its partners."""

    path: str
    path_b64: bytes | None = None
    a: Count | None = None
    b: Count | None = None


class EventsDocument(Document, frozen=True):
    """Events, oldest first: ``number``, ``at``, ``level``, ``what``, ``fileset``, ``text``, and facts of the kind."""

    events: tuple[Mapping[str, Any], ...]


@command("events", Role.VIEWER)
class EventsCommand(Command[EventsDocument], frozen=True):
    """The events on this node since a moment, in milliseconds of the wall clock, with numbers above ``after``. With
    ``follow`` they come as items, later ones too, until the daemon stops."""

    since_ms: Count = 0
    after: Count = 0
    follow: bool = False


class ReceiverDocument(Document, frozen=True):
    """Whether a node gets it, by which nodes, and why or why not."""

    node: str
    gets: bool
    via: tuple[str, ...]
    why: str


class ExplainDocument(Document, frozen=True, kw_only=True):
    """Every other node that could get a fileset, or a path of it."""

    fileset: str
    path: str | None
    path_b64: str | UnsetType = UNSET
    to: tuple[ReceiverDocument, ...]
    held: tuple[HeldDocument, ...] | UnsetType = UNSET
    reported: tuple[HeldDocument, ...] | UnsetType = UNSET
    copies: tuple[PathCopiesDocument, ...] | UnsetType = UNSET


@command("explain", Role.VIEWER, UnavailableError)
class ExplainCommand(FilesetCommand[ExplainDocument], frozen=True):
    """Which nodes get a fileset or a path of it, by which way, and why not."""

    path: str | None = None
    path_b64: bytes | None = None


class CarriedDocument(Document, frozen=True):
    """What one node lets another have, by the rows of both: its own documents and those of others, of each class."""

    sender: str = field(name="from")
    to: str
    own_metadata: bool
    own_data: bool
    others_metadata: bool
    others_data: bool
    because: str


class WayDocument(Document, frozen=True):
    """Whether the documents of a home get to a node. Inserts, updates and deletes go the same way."""

    home: str
    node: str
    of_class: str = field(name="class")
    gets: bool
    via: tuple[str, ...]
    why: str


class ReachTableDocument(Document, frozen=True):
    """What each link carries, and where the documents of each home get to. ``warnings`` are rows that contradict
    themselves, ``untold`` the nodes whose rows are not known here, ``text`` is all of it as the command prints it."""

    links: tuple[CarriedDocument, ...]
    ways: tuple[WayDocument, ...]
    warnings: tuple[str, ...]
    untold: tuple[str, ...]
    text: str


@command("explain_table", Role.VIEWER)
class ExplainTableCommand(FilesetCommand[ReachTableDocument], frozen=True):
    """What the partner lists of all nodes let pass, whatever is published or connected now. The table is the same for
    every fileset."""
