"""The port of a line's home to connections and commands: locks, and changes that were made elsewhere.

``source`` is the node that asks, this one itself for its own commands; whether it may ask was looked at before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from instep.core.changes.home_vocabulary import PathsPublished
from instep.model.change import ChangeAnswer, ChangeSet, Fence
from instep.model.ids import Digest, NodeName
from instep.model.lock import LockAnswer, LockGone, LockOwner, LockView
from instep.model.sync import LockedEdit
from instep.net.messages import messages as m
from instep.net.transfer import TransferAnswer


class LineHome(Protocol):
    """The service of a written line that decides about them. Errors are raised; what a home decides is a value."""

    async def lock(self, source: NodeName, request: m.LockRequest) -> LockAnswer:
        """Grant the lock, or with ``fence`` give it its whole time again."""
        ...

    async def unlock(self, source: NodeName, request: m.UnlockRequest) -> LockAnswer: ...

    async def break_lock(
        self, source: NodeName, request: m.BreakRequest, *, is_operator: bool = False
    ) -> LockAnswer:
        """``is_operator``: an operator of the home asks, on the home."""
        ...

    def locks(self) -> tuple[LockView, ...]:
        """All locks in force, in path order."""
        ...

    def how_ended(self, path: bytes, owner: LockOwner, fence: Fence | None) -> LockGone | None:
        """Why the owner's last lock of the path, or the one of the token, is not in force; None: it never had one."""
        ...

    async def publish_own(
        self, path: bytes, fence: Fence, author: str, message: str
    ) -> PathsPublished | None:
        """Publish what was changed here at the path under the lock of this token; None where nothing was."""
        ...

    async def withheld(self) -> int:
        """How many paths change sets made that no generation has yet."""
        ...

    def locked_edits(self) -> tuple[LockedEdit, ...]:
        """Edits of paths that a sync profile locks at this home."""
        ...

    async def missing(self, contents: Sequence[tuple[Digest, int]]) -> tuple[int, ...]:
        """The positions of those contents that are nowhere on this node, rising."""
        ...

    async def submit(
        self,
        source: NodeName,
        change_set: ChangeSet,
        contents: AsyncIterator[list[TransferAnswer]],
        *,
        sizes: Sequence[tuple[Digest, int]] = (),
        releases: bool = False,
        accepts_deletions: bool = False,
    ) -> ChangeAnswer:
        """Decide about a checked change set of this line. ``contents`` brings those that ``sizes`` names, in that order
        and not verified; they are taken only when the home wants them. ``accepts_deletions``: a person said that the
        removals of the set are meant, however many."""
        ...
