"""Locks of single paths, for the people and programs of this node."""

from __future__ import annotations

import os
import shlex
from typing import TypeVar

from msgspec import UNSET

from instep.api.changes import locks as api
from instep.api.command import Role
from instep.api.parts import generation
from instep.errors import (
    ContentionError,
    InstepError,
    NotAllowedError,
    RefusedError,
    UnavailableError,
    UsageError,
    family_of,
)
from instep.model.change import Fence, OutcomeKind, PathOutcome, fence_of
from instep.model.lock import (
    LockAnswer,
    LockDenied,
    LockEnd,
    LockEnded,
    LockGone,
    LockGranted,
    LockOutdated,
    LockOwner,
    LockRefused,
    LockView,
)
from instep.model.paths import path_fields, shown, validated
from instep.node.access.caller import DoorName
from instep.node.access.door import CALLER
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.outcomes import author
from instep.node.commands.targets import path_of, running_service_of
from instep.node.directory import user_name
from instep.node.lines.line_locks import LockOutcome
from instep.node.lines.line_service import LineService
from instep.node.lines.snapshot import moment
from instep.node.runtime.driver import wall_ms

Wanted = TypeVar("Wanted", LockGranted, LockEnded)
ENDED = {
    LockEnd.RELEASED: "it was released",
    LockEnd.LAPSED: "its time was over",
    LockEnd.BROKEN: "it was broken",
    LockEnd.STOLEN: "it was taken",
    LockEnd.HOME_EDIT: "the file was changed at the home itself,",
    LockEnd.WRITER_CHANGED: "another node or epoch writes the line",
    LockEnd.UNKNOWN: "nothing is known of it",
}
LOST = {
    OutcomeKind.OUTDATED: "the home has another file by now",
    OutcomeKind.EXPIRED: "the lock had ended and the home has another file by now",
    OutcomeKind.LOCKED: "another owner holds the lock",
    OutcomeKind.REFUSED: "the home refused it",
}


class Locks(CommandHandlers):
    async def lock(self, asked: api.LockCommand, speaker: Speaker) -> api.LockDocument:
        service, path = self._target(asked.fileset, asked.path, asked.path_b64)
        owner = self._owner(asked.owner, asked.client)
        if asked.steals and not asked.reason:
            raise UsageError("a lock is taken from its owner for a reason", code="no_reason")
        fence = _fence(asked.token)
        done = await service.lock(owner, path, asked.ttl_ms, asked.reason, steals=asked.steals, fence=fence)
        return _granted(service, path, owner, _required(service, path, done.answer, LockGranted))

    async def unlock(self, asked: api.UnlockCommand, speaker: Speaker) -> api.UnlockDocument:
        service, path = self._target(asked.fileset, asked.path, asked.path_b64)
        owner = self._owner(asked.owner, asked.client)
        done = await service.release(owner, path, _fence(asked.token), asked.message)
        _require_made(service, done)
        _required(service, path, done.answer, LockEnded)
        return api.UnlockDocument(
            fileset=service.fileset.name,
            changed=True,
            outcome=done.outcome.kind.value if done.outcome is not None else None,
            generation=generation(done.head),
            reason=(done.outcome.reason or UNSET) if done.outcome is not None else UNSET,
            **path_fields(path),
        )

    async def break_lock(self, asked: api.BreakLockCommand, speaker: Speaker) -> api.BreakLockDocument:
        service, path = self._target(asked.fileset, asked.path, asked.path_b64)
        owner = self._owner(asked.owner, asked.client)
        if not asked.reason:
            raise UsageError("a lock is broken for a reason", code="no_reason")
        if asked.steals:
            done = await service.lock(owner, path, asked.ttl_ms, asked.reason, steals=True)
            lock = _granted(service, path, owner, _required(service, path, done.answer, LockGranted))
        else:
            done = await service.break_lock(owner, path, asked.reason)
            _required(service, path, done.answer, LockEnded)
            lock = None
        return api.BreakLockDocument(
            fileset=service.fileset.name, changed=True, lock=lock, **path_fields(path)
        )

    async def locks(self, asked: api.LocksCommand, speaker: Speaker) -> api.LocksDocument:
        if asked.fileset is not None:
            service = running_service_of(self._node, asked.fileset)
            return api.LocksDocument(locks=_rows(service, await service.locks()))
        found: list[api.LockDocument] = []
        unreachable: list[str] = []
        for name in sorted(self._node.services):
            service = running_service_of(self._node, name)
            try:
                found += _rows(service, await service.locks())
            except NotAllowedError:
                continue  # Its home takes no changes of this node: it grants none of the locks here.
            except UnavailableError:
                unreachable.append(name)
        return api.LocksDocument(locks=tuple(found), unreachable=tuple(unreachable))

    def _target(self, fileset: str | None, path: str, path_b64: bytes | None) -> tuple[LineService, bytes]:
        found = path_of(path, path_b64) or b""
        return running_service_of(self._node, fileset).line_at(validated(found.rstrip(b"/")))

    def _owner(self, named: str | None, client: str) -> LockOwner:
        """The person that calls; or another one, where root, the node's own user or an administrator names it."""
        me = author() or "unknown"
        if named is not None and named != me and not _may_name_others():
            raise NotAllowedError(
                f"{me} may hold locks as {me} alone, and named {named}",
                hint="leave the owner out, or let the node's own user give the command",
                code="owner_not_yours",
                owner=named,
            )
        return LockOwner(self._node.runtime.name, named or me, client)


def _fence(token: str | None) -> Fence | None:
    fence = fence_of(token) if token is not None else None
    if token is not None and fence is None:
        raise UsageError("that is not the token of a lock", code="bad_token", token=token)
    return fence


def _may_name_others() -> bool:
    """At the control socket a role is not enough, because the node's own user may have given it to a whole group."""
    caller = CALLER.get()
    if caller is None:
        return True
    if caller.door is DoorName.SOCKET:
        return caller.name in (user_name(0), user_name(os.geteuid()))
    return caller.role.includes(Role.ADMIN)


def _rows(service: LineService, locks: tuple[LockView, ...]) -> tuple[api.LockDocument, ...]:
    now = wall_ms()
    return tuple(
        api.LockDocument(
            fileset=service.fileset.name,
            owner=f"{lock.owner.user}@{lock.owner.node}",
            client=lock.owner.client,
            until=moment(now + lock.left_ms),
            token=str(lock.fence),
            since=moment(lock.since_ms),
            reason=lock.reason,
            changed=UNSET,
            **path_fields(lock.path),
        )
        for lock in locks
    )


def _granted(service: LineService, path: bytes, owner: LockOwner, granted: LockGranted) -> api.LockDocument:
    now = wall_ms()
    return api.LockDocument(
        fileset=service.fileset.name,
        owner=f"{owner.user}@{owner.node}",
        client=owner.client,
        until=moment(now + granted.left_ms),
        token=str(granted.fence),
        base=granted.base.digest.hex() if granted.base is not None else None,
        renew_after=moment(now + granted.renew_after_ms),
        server_time=moment(now),
        changed=not granted.is_refresh,
        **path_fields(path),
    )


def _required(service: LineService, path: bytes, answer: LockAnswer, wanted: type[Wanted]) -> Wanted:
    """The answer that the command wanted; any other one is the error that it ends with."""
    if isinstance(answer, wanted):
        return answer
    raise _error(service, path, answer)


def _error(service: LineService, path: bytes, answer: LockAnswer) -> InstepError:
    name, home, said = service.fileset.name, service.fileset.writer, shown(path)
    match answer:
        case LockDenied(owner, left_ms, since_ms, reason):
            now = wall_ms()
            why = f", for: {reason}" if reason else ""
            return ContentionError(
                f"{said} is locked by {owner} until {moment(now + left_ms)} if that is not refreshed{why}",
                hint=_of_a_lock_left_behind(service, path, owner),
                code="locked",
                owner=f"{owner.user}@{owner.node}",
                client=owner.client,
                since=moment(since_ms),
                until=moment(now + left_ms),
                left_ms=left_ms,
                **path_fields(path),
            )
        case LockOutdated(entry, head):
            newest = f"generation {head.number}" if head is not None else "its newest state"
            what = "another file" if entry is not None else "no file"
            return ContentionError(
                f"{home} has {what} at {said}: fetch {newest} first",
                hint=f"instep wait {name}",
                code="outdated",
                digest=entry.digest.hex() if entry is not None else None,
                generation=head.number if head is not None else None,
                **path_fields(path),
            )
        case LockGone(why, by, reason):
            whom = f" by {by}" if by else ""
            said_why = f": {reason}" if reason else ""
            return ContentionError(
                f"the lock of {said} is no longer in force: {ENDED[why]}{whom}{said_why}",
                hint=f"instep lock list {name}",
                code="lock_gone",
                why=why.value,
                by=by,
                **path_fields(path),
            )
        case LockRefused(code, reason, hint, exit_code):
            return family_of(exit_code, RefusedError)(reason, hint=hint or None, code=code)
        case _:
            return ContentionError(f"the lock of {said} ended meanwhile", code="lock_gone")


def _of_a_lock_left_behind(service: LineService, path: bytes, owner: LockOwner) -> str:
    """A lock of another person is broken by an operator of the home; one of the caller's own by the caller, too."""
    is_own = (owner.node, owner.user) == (service.runtime.name, author())
    where = "" if service.is_written_here or is_own else f"on {service.fileset.writer}: "
    step = f"{where}instep lock break {service.fileset.name} {shlex.quote(shown(path))} --reason TEXT"
    return f"ask {owner.user}; or, where the lock was left behind, {step}"


def _require_made(service: LineService, done: LockOutcome) -> None:
    """An edit that lost ends the command; its bytes are in the archive."""
    outcome: PathOutcome | None = done.outcome
    if outcome is None or outcome.is_made:
        return
    name, said = service.fileset.name, shown(outcome.path)
    words = outcome.reason or LOST.get(outcome.kind, outcome.kind.value)
    family = RefusedError if outcome.kind is OutcomeKind.REFUSED else ContentionError
    raise family(
        f"the change of {said} was not made: {words}; it is in the archive of this node",
        hint=f"instep archive list {name} --set-aside",
        code=outcome.code or outcome.kind.value,
        outcome=outcome.kind.value,
        owner=outcome.owner or None,
        digest=outcome.entry.digest.hex() if outcome.entry is not None else None,
        **path_fields(outcome.path),
    )
