"""Locks of a line for the programs of this node: the port that commands use, and its answer at the home itself."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from instep.core.changes.offer_vocabulary import OwnedPath
from instep.core.vocabulary import Trouble
from instep.errors import ContentionError, RefusedError
from instep.model.change import Fence, OutcomeKind, PathOutcome
from instep.model.ids import Digest, FilesetName, HeadRef
from instep.model.lock import LockAnswer, LockEnd, LockGone, LockOwner, LockView
from instep.model.paths import path_fields, shown
from instep.net.messages import messages as m
from instep.node.lines.line_home import LineHome
from instep.node.lines.line_standing import LineStanding
from instep.tree.objects.digest import digest_beneath


class LockOutcome(NamedTuple):
    """The home's answer about a lock; at its end also what became of the edit that was submitted with it."""

    answer: LockAnswer
    outcome: PathOutcome | None = None
    head: HeadRef | None = None


class HomeElsewhere(Protocol):
    """The home of a line that is followed here, for the programs of this node."""

    async def lock(
        self, owner: LockOwner, path: bytes, ttl_ms: int, reason: str, *, steals: bool, fence: Fence | None
    ) -> LockOutcome: ...

    async def release(
        self, owner: LockOwner, path: bytes, fence: Fence | None, message: str
    ) -> LockOutcome: ...

    async def break_lock(self, owner: LockOwner, path: bytes, reason: str) -> LockOutcome: ...

    async def locks(self) -> tuple[LockView, ...]: ...

    def offered_edits(self) -> tuple[tuple[OwnedPath, ...], Trouble | None]: ...

    def judge_removals(self, *, are_accepted: bool) -> None: ...

    def retry(self) -> None: ...


class LineLocks(LineStanding):
    """Where the line is written these ask the home in this process, and where it is followed the one elsewhere."""

    home: LineHome | None = None
    """Decides about locks and changes from elsewhere, where the line is written; None where it is followed."""
    elsewhere: HomeElsewhere | None = None
    """The home, where the line is followed."""

    async def lock(
        self,
        owner: LockOwner,
        path: bytes,
        ttl_ms: int,
        reason: str = "",
        *,
        steals: bool = False,
        fence: Fence | None = None,
    ) -> LockOutcome:
        """Lock the path, or refresh the owner's lock; ``steals``: take it from its owner. With ``fence`` only the lock
        of that token is refreshed."""
        if self.elsewhere is not None:
            return await self.elsewhere.lock(owner, path, ttl_ms, reason, steals=steals, fence=fence)
        if fence is None:
            self.runtime.read_only.require_off()
        home, me, user, client = self._required_home(), self.runtime.name, owner.user, owner.client
        if steals:
            asked = m.BreakRequest(self.line, path, user, reason, client, steals=True, ttl_ms=ttl_ms)
            return LockOutcome(await home.break_lock(me, asked, is_operator=True))
        place = self.tree.place()
        base = await self.tree.worker.run(digest_beneath, place.root, path)
        request = m.LockRequest(self.line, path, user, client, base or Digest(b""), ttl_ms, reason, fence)
        if fence is not None and self._own_lock(home, path, owner, fence) is None:
            return LockOutcome(home.how_ended(path, owner, fence) or LockGone(LockEnd.UNKNOWN))
        return LockOutcome(await home.lock(me, request))

    async def release(
        self, owner: LockOwner, path: bytes, fence: Fence | None = None, message: str = ""
    ) -> LockOutcome:
        """Submit the owner's edit of the path and end its lock. At the home the edit is published."""
        if self.elsewhere is not None:
            return await self.elsewhere.release(owner, path, fence, message)
        home = self._required_home()
        found = self._own_lock(home, path, owner, fence)
        if found is None:
            gone = home.how_ended(path, owner, fence)
            if gone is None:
                raise no_lock(self.fileset.name, path, owner)
            return LockOutcome(gone)
        done = await home.publish_own(path, found.fence, f"{owner.user}@{owner.node}", message)
        answer = await home.unlock(self.runtime.name, m.UnlockRequest(self.line, path, found.fence))
        if done is None:
            return LockOutcome(answer)
        return LockOutcome(answer, PathOutcome(path, OutcomeKind.APPLIED, reason=done.reason), done.head)

    def _own_lock(
        self, home: LineHome, path: bytes, owner: LockOwner, fence: Fence | None
    ) -> LockView | None:
        held = (each for each in home.locks() if each.path == path and each.owner == owner)
        return next((each for each in held if fence in (None, each.fence)), None)

    async def break_lock(self, owner: LockOwner, path: bytes, reason: str) -> LockOutcome:
        """End another owner's lock."""
        if self.elsewhere is not None:
            return await self.elsewhere.break_lock(owner, path, reason)
        asked = m.BreakRequest(self.line, path, owner.user, reason, owner.client)
        return LockOutcome(await self._required_home().break_lock(self.runtime.name, asked, is_operator=True))

    async def locks(self) -> tuple[LockView, ...]:
        """All locks of the line in force."""
        if self.elsewhere is not None:
            return await self.elsewhere.locks()
        return self._required_home().locks()

    def offered_edits(self) -> tuple[tuple[OwnedPath, ...], Trouble | None]:
        """The edits that were made here and are on their way to the home, and why they do not go on."""
        return self.elsewhere.offered_edits() if self.elsewhere is not None else ((), None)

    def judge_removals(self, *, are_accepted: bool) -> None:
        """Offer the removals that were too many to be offered unasked, or take them back. A home has none."""
        if self.elsewhere is not None:
            self.elsewhere.judge_removals(are_accepted=are_accepted)

    def _required_home(self) -> LineHome:
        if self.home is None:
            raise RefusedError(
                f"{self.runtime.name} does not write {self.fileset.name}",
                hint=f"instep status {self.fileset.name}",
                code="not_the_writer",
                writer=self.fileset.writer,
            )
        return self.home


def no_lock(fileset: FilesetName, path: bytes, owner: LockOwner) -> ContentionError:
    """The owner has no lock of this path, or not the one of the token."""
    return ContentionError(
        f"{owner} holds no such lock of {shown(path)}",
        hint=f"instep lock list {fileset}",
        code="no_lock",
        owner=str(owner),
        **path_fields(path),
    )
