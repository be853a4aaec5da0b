"""The union of a fileset's lines, as each of its kept lines sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from instep.core.follow.vocabulary import OffersChanged
from instep.core.union.divide import ForeignChange
from instep.core.unite.vocabulary import TreeKnown
from instep.core.vocabulary import Trouble
from instep.model.definition import Definition
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.standing import StandingRecord
from instep.net.service import PeerCalls
from instep.node.following.offering import Offering
from instep.node.replica.laid import Unions
from instep.node.runtime.runtime import Runtime
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.tree_comparison import Numbers


class OfferPort(Protocol):
    """What the offers of all lines ask of the fileset. ``rotten`` are paths that the disk changed."""

    rotten: Any

    @property
    def offerings(self) -> dict[NodeName, Offering]:
        """By the origin of the line."""
        ...

    def live_of(self, origin: NodeName) -> HeadRef | None: ...

    def foreign_changes(self) -> Mapping[bytes, ForeignChange]:
        """The paths of other homes that are not as laid."""
        ...

    def offers_changed(self, told: OffersChanged) -> None:
        """Other paths are left alone, or put back."""


class UnionOwner(Protocol):
    """The fileset of many homes, as the service of its union sees it."""

    runtime: Runtime
    own_tree: FilesetTree
    unions: Unions
    offers: Any
    """The offers of all lines, as the service knows those of one."""
    refusals: dict[NodeName, Trouble]
    """Why the newest head of a line is not in the union."""
    in_the_way: set[tuple[NodeName, bytes]]
    """Withheld entries, by origin and path, because an unpublished file here has their name."""
    turn: asyncio.Lock
    finish_own_switch: Callable[[], None]

    @property
    def is_lost(self) -> bool:
        """Whether a work on the tree stopped half way, and nothing finds out what the tree holds."""
        ...

    @property
    def definition(self) -> Definition: ...

    def clients_of(self, origin: NodeName) -> list[PeerCalls]: ...

    def contents_of(self, origin: NodeName, part: HeadRef) -> Mapping[Digest, bytes]:
        """Small contents that came with a head."""
        ...

    def turned(self) -> None:
        """The machine made a step."""

    def went_live(self) -> None:
        """Another union is live."""

    async def union_stands(self) -> None:
        """The union reports."""

    async def publish_own(self) -> None:
        """Publish the changes of this node until now."""

    async def find_laid(self) -> TreeKnown: ...

    def foreign_now(self, asked: Sequence[bytes]) -> tuple[tuple[bytes, ...], int]:
        """Those of the changed paths of other homes that differ still; in the worker thread."""
        ...


class UnionPort(Protocol):
    """``origin`` names a line of the union."""

    @property
    def tree(self) -> FilesetTree: ...

    @property
    def is_whole(self) -> bool:
        """Whether the tree holds one union, and all of it."""
        ...

    def parts_changed(self) -> None:
        """A kept line has another head with all pages."""

    def live_of(self, origin: NodeName) -> HeadRef | None:
        """The head of the line in the live union."""
        ...

    def used_of(self, origin: NodeName) -> tuple[HeadRef, ...]:
        """The heads of the line in all unions that are kept."""
        ...

    def stand_of(self, origin: NodeName, head: HeadRef | None) -> StandingRecord | None:
        """Why the tree is not as this head of the line says; None where it is."""
        ...

    def shown(self, origin: NodeName, path: bytes) -> bytes:
        """Where the tree has a path of the line. For any thread."""
        ...

    def doubt(self, paths: tuple[bytes, ...]) -> None:
        """These files hold other bytes than their stat says."""

    def retry(self) -> None: ...

    def proved(self, origin: NodeName) -> None:
        """A head of the line is verified."""

    def reachable(self, origin: NodeName) -> None:
        """A source of the line is connected."""

    def owns(self, origin: NodeName, told: OffersChanged) -> None:
        """The offering of the line owns these paths."""

    async def verified(self, origin: NodeName, *, is_deep: bool) -> Numbers:
        """How the tree differs from the live union at the paths of this line."""
        ...
