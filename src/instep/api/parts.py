"""Parts that the results of several commands share."""

from __future__ import annotations

from typing import overload

from msgspec import UNSET, UnsetType

from instep.api.command import Document
from instep.model.ids import HeadRef


class GenerationDocument(Document, frozen=True):
    """Which generation it is."""

    epoch: int
    number: int
    id: str
    root: str


class FullGenerationDocument(GenerationDocument, frozen=True):
    """A generation with its signed record."""

    author: str
    message: str
    published_at: str | None
    entries: int
    bytes: int


@overload
def generation(ref: HeadRef) -> GenerationDocument: ...
@overload
def generation(ref: None) -> None: ...
@overload
def generation(ref: HeadRef | None) -> GenerationDocument | None: ...
def generation(ref: HeadRef | None) -> GenerationDocument | None:
    """A head or a live generation as results name it."""
    return None if ref is None else GenerationDocument(ref.epoch, ref.number, ref.id.hex(), ref.root.hex())


class ReportedDocument(Document, frozen=True, kw_only=True):
    """A path that is not carried and holds nothing up."""

    path: str
    path_b64: str | UnsetType = UNSET
    what: str
    why: str


class HeldDocument(ReportedDocument, frozen=True, kw_only=True):
    """A path that a writer's scan could not carry, why, and the step that frees it. It keeps that many entries of the
    generation before."""

    keeps: int
    next: tuple[str, ...]


class FailureDocument(Document, frozen=True):
    """Why a generation is not served everywhere; ``state`` is its rollout's."""

    node: str | None
    code: str | None
    reason: str | None
    state: str | UnsetType | None = UNSET


class WaitingDocument(Document, frozen=True):
    """A node that is waited for, and how it stands."""

    node: str
    standing: str


class ExternalDocument(Document, frozen=True):
    """A part of an application that is not carried, such as a database, and what the inventory says of it."""

    name: str
    kind: str
    covered_by: str | None
    not_covered: str | None


class DocumentCopiesDocument(Document, frozen=True, kw_only=True):
    """A document, and how many nodes are known to have it."""

    path: str
    path_b64: str | UnsetType = UNSET
    copies: int


class NodeCopiesDocument(Document, frozen=True, kw_only=True):
    """How many documents a node has, or lacks, and one of them."""

    node: str
    documents: int
    path: str
    path_b64: str | UnsetType = UNSET


class UnknownCopiesDocument(Document, frozen=True):
    """A node whose copies are not known, and why."""

    node: str
    why: str


class CopiesDocument(Document, frozen=True):
    """How one rule about copies is kept. ``short`` documents have too few, of ``doubtful`` ones it is not known;
    ``missing`` are preferred nodes that lack some, ``blocked`` are blocked nodes that have some. ``trouble`` says in
    sentences what is not as wanted, or not known to be."""

    paths: tuple[str, ...]
    wanted: int
    kept: bool
    documents: int
    short: int
    doubtful: int
    sample: tuple[DocumentCopiesDocument, ...]
    unknown: tuple[UnknownCopiesDocument, ...]
    missing: tuple[NodeCopiesDocument, ...]
    blocked: tuple[NodeCopiesDocument, ...]
    trouble: tuple[str, ...]
    next: tuple[str, ...]


class PathCopiesDocument(Document, frozen=True):
    """The nodes that have one document, by one rule that names it. A copy on a blocked node does not count."""

    paths: tuple[str, ...]
    wanted: int
    at: tuple[str, ...]
    lacking: tuple[str, ...]
    blocked: tuple[str, ...]
    unknown: tuple[UnknownCopiesDocument, ...]
