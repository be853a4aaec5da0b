"""Filesets of a node: offered, compared, accepted, listed; and its configuration taken anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET, UnsetType, field

from instep.api.command import Command, Document, FilesetCommand, Role, command
from instep.api.parts import FullGenerationDocument
from instep.api.verifying import DifferenceDocument
from instep.errors import ConfigError, ContentionError, RefusedError, ResourceError, UnavailableError


class ReloadConfigDocument(Document, frozen=True):
    """The fingerprint of the configuration that runs, what this machine does not let the daemon do of it, and where it
    listens for peers now."""

    changed: bool
    running: str
    troubles: tuple[str, ...] = ()
    listens: str | UnsetType = UNSET


@command("reload_config", Role.ADMIN, ConfigError, RefusedError)
class ReloadConfigCommand(Command[ReloadConfigDocument], frozen=True):
    """Make the daemon take its file; a wrong file changes nothing."""


class OfferRowDocument(Document, frozen=True):
    """A fileset that a partner offers."""

    name: str
    writer: str
    source: str = field(name="from")
    mode: str
    fileset_class: str = field(name="class")
    entries: int
    bytes: int
    accepted: bool


class OffersDocument(Document, frozen=True):
    """All offers, accepted ones too."""

    offers: tuple[OfferRowDocument, ...]


@command("fileset_offers", Role.VIEWER)
class FilesetOffersCommand(Command[OffersDocument], frozen=True):
    """List the offers of the partners that this node dials."""


class FilesetDocument(Document, frozen=True, kw_only=True):
    """A fileset of this node: its definition and how it stands; with the daemon stopped, the settings in the file."""

    daemon: str | UnsetType = UNSET
    name: str
    path: str
    writer: str
    is_written_here: bool | UnsetType = UNSET
    mode: str
    fileset_class: str | None = field(name="class")
    observe: bool | UnsetType = UNSET
    drift: str | UnsetType = UNSET
    ignore: tuple[str, ...] | UnsetType = UNSET
    include: tuple[str, ...] | UnsetType = UNSET
    preserve: tuple[str, ...] | UnsetType = UNSET
    standing: str | UnsetType = UNSET


class FilesetsDocument(Document, frozen=True, kw_only=True):
    """All filesets of this node."""

    daemon: str | UnsetType = UNSET
    filesets: tuple[FilesetDocument, ...]
    offers: tuple[OfferRowDocument, ...] | UnsetType = UNSET


@command("fileset_list", Role.VIEWER)
class FilesetListCommand(Command[FilesetsDocument], frozen=True):
    """All filesets that are written or followed here."""


@command("fileset_show", Role.VIEWER)
class FilesetShowCommand(FilesetCommand[FilesetDocument], frozen=True):
    """One fileset; earlier command lines call it ``name``."""

    name: str | None = None


class AcceptedDocument(Document, frozen=True, kw_only=True):
    """The outcome of an accept, real or dry: the directory and the offered generation, and how they differ.

    ``set_aside`` are generations that a former writer published and the line goes on without. ``why`` says why nothing
    was changed, or would be by the command itself, and ``next`` what to do about that.
    """

    fileset: str
    path: str
    writer: str
    changed: bool | UnsetType = UNSET
    why: str | UnsetType = UNSET
    next: tuple[str, ...] | UnsetType = UNSET
    empty: bool | UnsetType = UNSET
    identical: bool | UnsetType = UNSET
    only_here: int | UnsetType = UNSET
    only_there: int | UnsetType = UNSET
    differing: int | UnsetType = UNSET
    sample: tuple[DifferenceDocument, ...] | UnsetType = UNSET
    generation: int | UnsetType | None = UNSET
    set_aside: tuple[FullGenerationDocument, ...] | UnsetType = UNSET
    warnings: tuple[str, ...] | UnsetType = UNSET


class Comparing(Command[AcceptedDocument], frozen=True):
    """Where to follow a fileset, and how; ``settings`` are keys of a fileset, as a recipe has them. With ``shared``
    other nodes of the cluster use the directory too."""

    name: str
    path: str
    home: str | None = field(default=None, name="from")
    mode: str | None = None
    observe: bool = False
    drift: str | None = None
    switch: str | None = None
    carry: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    settings: Mapping[str, Any] = {}
    shared: bool = False


@command("fileset_check", Role.ADMIN, RefusedError, UnavailableError, ResourceError, is_audited=False)
class FilesetCheckCommand(Comparing, frozen=True):
    """Compare a directory with an offered fileset, without writing to either."""


@command(
    "fileset_accept", Role.ADMIN, ConfigError, RefusedError, UnavailableError, ResourceError, needs_tree=True
)
class FilesetAcceptCommand(Comparing, frozen=True):
    """Follow a fileset in a directory; one that differs is refused with the numbers unless ``mode`` says what to do."""


@command("fileset_adopt", Role.ADMIN, RefusedError, ResourceError, needs_tree=True)
class FilesetAdoptCommand(FilesetCommand[AcceptedDocument], frozen=True):
    """Write the marker of a fileset again where it was lost; ``empty`` also where nothing of the fileset is left."""

    name: str | None = None
    path: str = ""
    dry_run: bool = False
    empty: bool = False


# A home that left -------------------------------------------------------------------------------------------


class ForgottenDocument(Document, frozen=True, kw_only=True):
    """What the tree showed of the home ``origin``: its generation, and how many paths and bytes leave the tree.
    ``edits`` counts the edits made here that wait for that home, which go to the archive as well."""

    fileset: str
    origin: str
    changed: bool
    dry_run: bool
    generation: int | None
    paths: int
    bytes: int
    edits: int = 0


@command("fileset_forget_line", Role.ADMIN, RefusedError, ContentionError, UnavailableError, ResourceError)
class ForgetLineCommand(Command[ForgottenDocument], frozen=True, kw_only=True):
    """Let go of the line of a home that left for ever: its files leave this node's tree, and go to the archive.
    ``take_back`` keeps that line again."""

    fileset: str
    origin: str
    dry_run: bool = False
    take_back: bool = False
