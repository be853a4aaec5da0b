"""The archive of a fileset: listed, given back, let go."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from instep.api.command import Command, Document, FilesetCommand, Role, command
from instep.errors import DamagedError, RefusedError, ResourceError
from instep.model.ids import Count


class ArchiveItemDocument(Document, frozen=True, kw_only=True):
    """One path that a switch replaced or removed, or that was set aside."""

    path: str
    path_b64: str | UnsetType = UNSET
    generation: int | None
    at: str | None
    why: str
    bytes: int
    entries: int
    batch: str


class ArchiveListDocument(Document, frozen=True):
    """Items, newest first, and the size of the whole archive."""

    fileset: str
    items: tuple[ArchiveItemDocument, ...]
    bytes: int


@command("archive_list", Role.VIEWER, DamagedError, ResourceError, needs_tree=True)
class ArchiveListCommand(FilesetCommand[ArchiveListDocument], frozen=True):
    """List the archive; with ``set_aside`` only local changes that lost against a generation."""

    set_aside: bool = False


class ArchiveRestoreDocument(Document, frozen=True, kw_only=True):
    """Where a path was put. ``warnings``: it has other bytes than were archived."""

    fileset: str
    path: str
    path_b64: str | UnsetType = UNSET
    to: str
    changed: bool = True
    warnings: tuple[str, ...] | UnsetType = UNSET


@command("archive_restore", Role.ADMIN, RefusedError, DamagedError, ResourceError, needs_tree=True)
class ArchiveRestoreCommand(Command[ArchiveRestoreDocument], frozen=True):
    """Copy a path out of the archive into the directory ``to``, as ``generation`` had it or else the newest; with
    ``set_aside`` the newest local change of it that lost."""

    to: str
    fileset: str | None = None
    path: str | None = None
    path_b64: bytes | None = None
    generation: Count | None = None
    set_aside: bool = False


class ArchivePruneDocument(Document, frozen=True):
    """The batches that went, or would go."""

    fileset: str
    changed: bool
    dry_run: bool
    batches: tuple[str, ...]
    removed: int
    bytes: int


@command("archive_prune", Role.OPERATOR, DamagedError, ResourceError, needs_tree=True)
class ArchivePruneCommand(FilesetCommand[ArchivePruneDocument], frozen=True):
    """Delete from the archive the batches that neither rule keeps; rules that are not given are the fileset's."""

    keep_last: Count | None = None
    keep_within_ms: Count | None = None
    dry_run: bool = False
