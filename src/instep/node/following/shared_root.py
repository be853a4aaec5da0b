"""The port to the agreement of a cluster about a root that its nodes mount: the node that may write there, and the
generation that lies there. ``node/cluster`` fills it in from the cluster's database."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from instep.core.vocabulary import Trouble
from instep.model.ids import HeadRef
from instep.store.cluster.shared_roots import HeldRoot


class SharedRootPort(Protocol):
    """One shared root, as the line that is followed there on this node sees it."""

    changed: asyncio.Event
    """Set and replaced whenever something below has changed."""

    @property
    def may_write(self) -> bool:
        """Whether this node holds the root's lease, and has looked since then what the root holds."""
        ...

    @property
    def grants(self) -> int:
        """How often this node was granted the lease."""
        ...

    @property
    def holder(self) -> str:
        """The node that holds the lease, as far as this one knows."""
        ...

    @property
    def held(self) -> HeldRoot | None:
        """What the root holds, as of the last look; None where no node has laid a generation there yet."""
        ...

    @property
    def trouble(self) -> Trouble | None:
        """Why the lease cannot be asked for, and the root not be looked up."""
        ...

    async def run(self) -> None:
        """Ask for the lease, hold it, and look what the root holds, until cancelled."""
        ...

    def wants(self, *, lease: bool) -> None:
        """Whether this node is to hold the lease: one that cannot see the root leaves it to others."""
        ...

    def guard(self) -> None:
        """For any thread: ``ContentionError`` ``fenced`` when this node may not write into the root at this moment."""
        ...

    def writing(self) -> AbstractAsyncContextManager[None]:
        """The root is written to in the block, and the lease is not given back meanwhile. ``ContentionError``."""
        ...

    async def record(self, head: HeadRef, *, is_whole: bool) -> None:
        """Say that the root comes to hold a generation, or holds all of it. ``ContentionError`` ``fenced``."""
        ...

    async def tell_touched(self, paths: Collection[bytes]) -> None:
        """Leave paths that were written to here for the node that holds the lease; none stand for the whole tree."""
        ...

    def take_touched(self) -> tuple[bytes, ...]:
        """The paths that others left for this node; an empty one among them stands for the whole tree."""
        ...
