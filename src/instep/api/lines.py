"""The acts of an operator on a line: publish, wait, go back, pause, go on."""

from __future__ import annotations

from msgspec import UNSET, UnsetType, field

from instep.api.command import Command, Document, FilesetCommand, Message, Role, Seconds, command
from instep.api.parts import FailureDocument, GenerationDocument, HeldDocument, WaitingDocument
from instep.errors import (
    ContentionError,
    DamagedError,
    PeerError,
    RefusedError,
    ResourceError,
    UnavailableError,
)
from instep.model.ids import Count

PUBLISHING = (RefusedError, ContentionError, UnavailableError, ResourceError, DamagedError)
"""The errors of a command that ends with a new generation."""


class WaitDocument(Document, frozen=True):
    """Whether all that were waited for are in step; ``failed`` says why some will not be."""

    fileset: str
    reached: bool
    generation: GenerationDocument | None
    waiting_for: tuple[WaitingDocument, ...]
    held: tuple[HeldDocument, ...] | UnsetType = UNSET
    held_total: int | UnsetType = UNSET
    failed: FailureDocument | UnsetType = UNSET


@command("wait", Role.OPERATOR, RefusedError, UnavailableError, ResourceError)
class WaitCommand(FilesetCommand[WaitDocument], frozen=True):
    """Publish all changes from before the call, then wait until all direct partners are in step with them.

    ``nodes`` are waited for instead, or with ``fleet`` also nodes behind hubs. ``max_behind_ms``: also wait until the
    writer of each line here was heard of within that time.
    """

    generation: Count | None = None
    nodes: tuple[str, ...] = ()
    fleet: bool = False
    flush: bool = True
    max_behind_ms: Count | None = None


class OutcomeDocument(Document, frozen=True, kw_only=True):
    """The outcome of a publish, a rollback or a restore, in paths and bytes."""

    fileset: str
    changed: bool
    dry_run: bool | UnsetType = UNSET
    to: str | UnsetType = UNSET
    generation: GenerationDocument | None
    added: int = 0
    changed_paths: int = 0
    removed: int = 0
    bytes: int = 0
    held: tuple[HeldDocument, ...] | UnsetType = UNSET
    held_total: int | UnsetType = UNSET
    wait: WaitDocument | UnsetType = UNSET


@command("publish", Role.OPERATOR, *PUBLISHING, needs_tree=True)
class PublishCommand(FilesetCommand[OutcomeDocument], frozen=True):
    """Make the tree as it is now a new generation; ``wait`` then waits for the direct partners.

    ``accept_held`` lets go of the last entries of the paths in ``held_b64``, or of all held paths where none is named.
    """

    author: str | None = None
    message: Message = ""
    accept_deletions: bool = False
    wait: bool = False
    over: bool = False
    dry_run: bool = False
    accept_held: bool = False
    held_b64: tuple[bytes, ...] = ()


@command("rollback", Role.OPERATOR, *PUBLISHING, needs_tree=True)
class RollbackCommand(Command[OutcomeDocument], frozen=True):
    """The tree of an older generation, whatever lies there now, as a new generation."""

    generation: Count
    fileset: str | None = None
    message: Message = ""
    accept_deletions: bool = False
    dry_run: bool = False


@command("restore", Role.ADMIN, *PUBLISHING, PeerError, needs_tree=True)
class RestoreCommand(FilesetCommand[OutcomeDocument], frozen=True):
    """Paths of the tree, or all of it, as a generation has them; in the directory ``to`` where that is given.

    Contents that are not here come from all partners, or from the one that ``from`` names.
    """

    paths_b64: tuple[bytes, ...] = ()
    generation: Count | None = None
    source: str | None = field(default=None, name="from")
    to: str | None = None
    message: Message = ""
    accept_deletions: bool = False
    dry_run: bool = False


class SkippedDocument(Document, frozen=True):
    """A generation that was left out, and why."""

    number: int
    reason: str


class ExportDocument(Document, frozen=True, kw_only=True):
    """The generations that became commits now; paths that git does not take are in ``left_out``."""

    fileset: str
    to: str
    changed: bool
    written: tuple[int, ...]
    skipped: tuple[SkippedDocument, ...]
    left_out: tuple[str, ...]
    left_out_total: int


@command(
    "export_git",
    Role.ADMIN,
    RefusedError,
    ContentionError,
    UnavailableError,
    DamagedError,
    ResourceError,
    needs_tree=True,
)
class ExportGitCommand(FilesetCommand[ExportDocument], frozen=True, kw_only=True):
    """The generations as commits of a bare git repository in the directory ``to``; a second run appends newer ones."""

    to: str


class RetryDocument(Document, frozen=True, kw_only=True):
    """The filesets that were asked to retry, and on which other node; ``why`` where nothing had failed there."""

    fileset: str
    node: str | UnsetType = UNSET
    changed: bool
    why: str | UnsetType = UNSET


@command("retry", Role.OPERATOR, RefusedError, UnavailableError, ResourceError)
class RetryCommand(FilesetCommand[RetryDocument], frozen=True):
    """Try a refused or put-back generation again, here or on a partner."""

    node: str | None = None


class PauseDocument(Document, frozen=True):
    """Until when, and why."""

    fileset: str
    changed: bool
    until: str | None
    reason: str | None


@command("pause", Role.OPERATOR, UnavailableError, ResourceError)
class PauseCommand(FilesetCommand[PauseDocument], frozen=True):
    """Stop publishing and applying a fileset on this node, ``for_s`` seconds or until it is resumed."""

    for_s: Seconds | None = None
    reason: Message | None = None


class ResumeDocument(Document, frozen=True):
    """The fileset that goes on."""

    fileset: str
    changed: bool


@command("resume", Role.OPERATOR, UnavailableError, ResourceError)
class ResumeCommand(FilesetCommand[ResumeDocument], frozen=True):
    """Go on after a pause."""
