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
