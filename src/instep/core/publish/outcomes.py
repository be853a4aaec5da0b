"""How a request to publish or to roll back ends."""

from __future__ import annotations

from dataclasses import dataclass

from instep.core.guards.held import NOTHING_HELD, HeldPaths
from instep.core.vocabulary import Trouble
from instep.model.ids import HeadRef

__all__ = ["NotPublished", "Outcome", "Published", "Unchanged", "WouldPublish"]


@dataclass(frozen=True, slots=True)
class Published:
    head: HeadRef
    added: int
    changed: int
    removed: int
    changed_bytes: int
    held: HeldPaths = NOTHING_HELD


@dataclass(frozen=True, slots=True)
class Unchanged:
    head: HeadRef | None
    held: HeldPaths = NOTHING_HELD


@dataclass(frozen=True, slots=True)
class WouldPublish:
    """Answer to a dry run."""

    added: int
    changed: int
    removed: int
    changed_bytes: int
    refusal: Trouble | None
    held: HeldPaths = NOTHING_HELD


@dataclass(frozen=True, slots=True)
class NotPublished:
    trouble: Trouble


Outcome = Published | Unchanged | WouldPublish | NotPublished
