"""Another node becomes the writer of a line."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from instep.api.command import Command, Document, FilesetCommand, Role, command
from instep.api.parts import GenerationDocument
from instep.errors import ContentionError, RefusedError, ResourceError, UnavailableError


class HandoverDocument(Document, frozen=True):
    """The writer and the head; ``late`` are paths that changed here while or after the other node became the writer."""

    fileset: str
    writer: str
    changed: bool
    generation: GenerationDocument | None
    late: tuple[str, ...] | UnsetType = UNSET
    dry_run: bool | UnsetType = UNSET
    partners: tuple[str, ...] | UnsetType = UNSET


@command(
    "handover", Role.ADMIN, RefusedError, ContentionError, UnavailableError, ResourceError, needs_tree=True
)
class HandoverCommand(Command[HandoverDocument], frozen=True):
    """Make a partner that is in step the writer, without losing anything; on the writer."""

    node: str
    fileset: str | None = None
    dry_run: bool = False


class LostDocument(Document, frozen=True):
    """A generation that a promotion leaves behind; only the first three are known of one that is not here."""

    epoch: int
    number: int
    id: str | None
    root: str | UnsetType = UNSET
    author: str | UnsetType = UNSET
    message: str | UnsetType = UNSET
    published_at: str | UnsetType | None = UNSET
    entries: int | UnsetType = UNSET
    bytes: int | UnsetType = UNSET
    known_by: tuple[str, ...] = ()


class UnheardDocument(Document, frozen=True):
    """A claimant that could not be asked for its generations."""

    node: str
    reason: str
    hint: str


class PromoteDocument(Document, frozen=True):
    """The new writer, the generation that it goes on from, and the generations left behind."""

    fileset: str
    writer: str
    changed: bool
    epoch: int
    generation: GenerationDocument | None
    base: GenerationDocument | None
    lost: tuple[LostDocument, ...]
    has_ca_key: bool
    next: tuple[str, ...]
    unheard: tuple[UnheardDocument, ...]
    dry_run: bool | UnsetType = UNSET


@command("promote", Role.ADMIN, RefusedError, ContentionError, UnavailableError, ResourceError)
class PromoteCommand(FilesetCommand[PromoteDocument], frozen=True):
    """Make this node the writer because the home is dead; ``dry_run`` only names the generations that may be lost."""

    dry_run: bool = False
