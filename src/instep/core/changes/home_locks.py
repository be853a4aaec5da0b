"""The floor of the ``HomeMachine`` that grants, refreshes and ends locks. Implements "Locks" of
``docs/spec/changes.md``.

A grant needs the live file: it is read again after every apply that was ordered before, and once more when an apply
touched the path meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

import msgspec

from instep.core import vocabulary as w
from instep.core.changes import home_vocabulary as h
from instep.core.changes.home_book import HomeBook
from instep.core.changes.home_facts import BreakPolicy, LivePath, Lock
from instep.errors import PeerError
from instep.model.change import LOCK_ID_BYTES, Fence, is_alike, is_same_file
from instep.model.counts import counted
from instep.model.ids import EMPTY_DIGEST, Digest
from instep.model.lock import (
    LOCK_TTL_MAX_MS,
    LOCK_TTL_MIN_MS,
    REASON_MAX,
    LockAnswer,
    LockDenied,
    LockEnd,
    LockEnded,
    LockGone,
    LockGranted,
    LockOutdated,
    LockRefused,
)
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import shown, validated

ASKS_MAX = 256
CHECKS_MAX = 256
"""So many paths are read again at once because of an edit at the home."""


@dataclass(slots=True)
class _Ask:
    """A grant that waits for the live file. ``lost_by`` is the owner that it is taken from."""

    asked: h.LockAsked
    steals: h.BreakAsked | None = None
    reading: int | None = None


class HomeLocks(HomeBook):
    """Nothing here changes the tree."""

    _asks: list[_Ask]
    _checks: dict[bytes, int | None]
    """Locked paths that may have been edited here, and the request that reads them."""
    _check_req: int | None

    def _forget_asks(self) -> None:
        self._asks, self._checks, self._check_req = [], {}, None

    def _is_changing(self, path: bytes) -> bool:
        """Whether an apply or a recovery is under way that may change this path. Overridden above."""
        raise AssertionError(path)

    def _take_about_locks(self, event: h.LockEvent) -> None:
        match event:
            case h.LockAsked():
                self._lock_asked(event)
            case h.RefreshAsked():
                self._refresh_asked(event)
            case h.ReleaseAsked():
                self._release_asked(event)
            case h.BreakAsked():
                self._break_asked(event)
            case h.OwnEdit(paths):
                self._own_edit(paths)
            case h.LiveRead():
                self._live_read(event)
            case h.LiveReadFailed():
                self._live_read_failed(event)
            case _:
                assert_never(event)

    # --- asked ------------------------------------------------------------------------------------------------

    def _lock_asked(self, event: h.LockAsked) -> None:
        refusal = self._lock_refusal(event)
        held = self._lock_of(event.path)
        if refusal is not None:
            self._reply(event.req, refusal)
        elif held is not None and held.owner == event.owner:
            self._refresh(event.req, held, event.ttl_ms)
        elif held is not None:
            self._reply(event.req, self._denied(held))
        else:
            self._asks.append(_Ask(event))

    def _lock_refusal(self, event: h.LockAsked) -> LockRefused | None:
        trouble = self._not_taken(event.source)
        if trouble is None and event.owner.node != event.source:
            trouble = w.Trouble(
                "not_allowed", f"{event.source} may not lock for owners of {event.owner.node}", exit_code=5
            )
        if trouble is not None:
            return _refused_by(trouble)
        try:
            validated(event.path)
        except PeerError as error:
            return LockRefused(error.error_code, error.reason, exit_code=error.exit_code)
        if len(event.lock_id) != LOCK_ID_BYTES:
            return LockRefused("bad_lock_id", "a lock id has 16 bytes", exit_code=9)
        return self._too_many(event)

    def _too_many(self, event: h.LockAsked) -> LockRefused | None:
        if len(self._asks) >= ASKS_MAX:
            return LockRefused("busy", "too many locks are being asked for at once", "ask again", exit_code=7)
        if self._lock_of(event.path) is not None:
            return None
        locks, config = self._facts.locks, self._config
        mine = sum(lock.owner == event.owner for lock in locks)
        if mine >= config.locks_per_owner:
            reason = (
                f"{event.owner} holds {mine} locks of {self.line.fileset}, the most that one owner may hold"
            )
        elif len(locks) >= config.locks_max:
            reason = f"{counted(len(locks), 'path')} of {self.line.fileset} are locked, the most that may be"
        else:
            return None
        hint = f"release some: instep lock list {self.line.fileset}"
        return LockRefused("too_many_locks", reason, hint, exit_code=6)

    def _refresh_asked(self, event: h.RefreshAsked) -> None:
        lock = self._held_by(event.path, event.fence, event.source)
        if isinstance(lock, Lock):
            self._refresh(event.req, lock, event.ttl_ms)
        else:
            self._reply(event.req, lock)

    def _release_asked(self, event: h.ReleaseAsked) -> None:
        lock = self._held_by(event.path, event.fence, event.source)
        if isinstance(lock, Lock):
            self._end_lock(lock, LockEnd.RELEASED)
        elif not isinstance(lock, LockGone) or lock.why is not LockEnd.RELEASED:
            self._reply(event.req, lock)
            return
        self._reply(event.req, LockEnded(event.path, LockEnd.RELEASED))

    def _held_by(self, path: bytes, fence: Fence, source: str) -> Lock | LockAnswer:
        """The lock of this token, when it is in force and its owner's node asks."""
        lock = self._lock_of(path)
        if lock is None or lock.fence != fence:
            return self._gone(fence)
        if lock.owner.node != source:
            return LockRefused("not_allowed", f"the lock is of {lock.owner.node}", exit_code=5)
        return lock

    def _refresh(self, req: int, lock: Lock, ttl_ms: int | None) -> None:
        ttl_ms = _bounded(lock.ttl_ms if ttl_ms is None else ttl_ms)
        lock = msgspec.structs.replace(lock, ttl_ms=ttl_ms, deadline_ms=self._now + ttl_ms)
        self._put_lock(lock)
        self._reply(req, _granted(lock, is_refresh=True))

    def _break_asked(self, event: h.BreakAsked) -> None:
        lock = self._lock_of(event.path)
        refusal = self._break_refusal(event, lock)
        if refusal is not None or lock is None:
            self._reply(event.req, refusal or LockGone(LockEnd.UNKNOWN))
        elif event.steals:
            asked = h.LockAsked(
                event.req, event.source, event.by, event.path, event.base or EMPTY_DIGEST, event.ttl_ms,
                event.lock_id, event.reason,
            )  # fmt: skip
            self._asks.append(_Ask(asked, steals=event))
        else:
            self._end_lock(lock, LockEnd.BROKEN, str(event.by), event.reason[:REASON_MAX])
            self._reply(event.req, LockEnded(event.path, LockEnd.BROKEN))

    def _break_refusal(self, event: h.BreakAsked, lock: Lock | None) -> LockRefused | None:
        trouble = self._not_taken(event.source)
        if trouble is not None:
            return _refused_by(trouble)
        if lock is None:
            reason = f"{shown(event.path)} is not locked"
            return LockRefused("not_locked", reason, f"instep lock list {self.line.fileset}", exit_code=4)
        is_own = (lock.owner.node, lock.owner.user) == (event.by.node, event.by.user)
        if not event.reason.strip() and not is_own:
            reason = f"the lock of {lock.owner} is broken only for a reason, which they are sent"
            return LockRefused("reason_missing", reason, exit_code=2)
        by = self._config.break_by
        may = {
            BreakPolicy.ANYONE: True,
            BreakPolicy.OWNER: event.is_operator or is_own,
            BreakPolicy.NOBODY: False,
        }
        if not may[by]:
            reason = f"{event.by} may not break the lock of {lock.owner}"
            hint = (
                "ask its owner to release it" if by is BreakPolicy.NOBODY else "an operator of the home may"
            )
            return LockRefused("not_allowed", reason, hint, exit_code=5)
        if event.steals and len(self._asks) >= ASKS_MAX:
            return LockRefused("busy", "too many locks are being asked for at once", "ask again", exit_code=7)
        return None

    # --- the live file ----------------------------------------------------------------------------------------

    def _own_edit(self, paths: Iterable[bytes]) -> None:
        for path in paths:
            if self._lock_of(path) is not None:
                self._checks[path] = None

    def _read_live(self) -> None:
        """Order the reads that grants and checks wait for."""
        for ask in self._asks:
            if ask.reading is None and not self._is_changing(ask.asked.path):
                ask.reading = self._next_req()
                self._out.append(h.ReadLive(ask.reading, (ask.asked.path,)))
        if self._check_req is None:
            paths = [path for path in self._checks if not self._is_changing(path)][:CHECKS_MAX]
            if paths:
                self._check_req = self._next_req()
                self._checks.update(dict.fromkeys(paths, self._check_req))
                self._out.append(h.ReadLive(self._check_req, tuple(paths)))

    def _doubt_reads(self, paths: Iterable[bytes]) -> None:
        """An apply may change these paths: a read under way may be older."""
        changed = set(paths)
        for ask in self._asks:
            if ask.asked.path in changed:
                ask.reading = None
        for path in self._checks:
            if path in changed:
                self._checks[path] = None

    def _live_read(self, event: h.LiveRead) -> None:
        if event.req == self._check_req:
            self._check_req = None
            for live in event.live:
                if self._checks.get(live.path) == event.req:
                    del self._checks[live.path]
                    self._checked(live)
            return
        ask = next((ask for ask in self._asks if ask.reading == event.req), None)
        if ask is not None:
            self._asks.remove(ask)
            self._decide_ask(ask, event.live[0].entry)

    def _live_read_failed(self, event: h.LiveReadFailed) -> None:
        if event.req == self._check_req:
            self._check_req = None  # The lock stays; the next edit that is seen reads the path again.
            self._checks = {path: req for path, req in self._checks.items() if req != event.req}
            return
        ask = next((ask for ask in self._asks if ask.reading == event.req), None)
        if ask is not None:
            self._asks.remove(ask)
            self._reply(ask.asked.req, _refused_by(event.trouble))

    def _checked(self, live: LivePath) -> None:
        """Owners and extended attributes end no lock: the home itself may have them otherwise than they were wanted. A
        lock of a person at the home is for such edits: they are its owner's."""
        lock = self._lock_of(live.path)
        if lock is None or lock.owner.node == self._config.node or is_alike(lock.base, live.entry):
            return
        if is_same_file(lock.base, live.entry):
            self._put_lock(msgspec.structs.replace(lock, base=live.entry))
        else:
            self._end_lock(lock, LockEnd.HOME_EDIT, self._config.node)

    def _decide_ask(self, ask: _Ask, live: Entry | None) -> None:
        asked, held = ask.asked, self._lock_of(ask.asked.path)
        if ask.steals is not None:
            refusal = self._break_refusal(ask.steals, held)
            is_at_home = ask.steals.base is None and asked.source == self._config.node
            if refusal is None and held is not None and not is_at_home and not _has(live, asked.base):
                self._reply(asked.req, LockOutdated(live, self._head))
            elif refusal is None and held is not None:
                self._end_lock(held, LockEnd.STOLEN, str(ask.steals.by), ask.steals.reason[:REASON_MAX])
                self._grant(asked, live)
            else:
                self._reply(asked.req, refusal or LockGone(LockEnd.UNKNOWN))
            return
        if held is not None:
            if held.owner == asked.owner:
                self._refresh(asked.req, held, asked.ttl_ms)
            else:
                self._reply(asked.req, self._denied(held))
            return
        refusal = self._lock_refusal(asked)
        if refusal is None and live is not None and live.kind is Kind.DIR:
            reason = f"{shown(asked.path)} is a directory: files and links are locked, one by one"
            refusal = LockRefused("not_lockable", reason, exit_code=2)
        if refusal is not None:
            self._reply(asked.req, refusal)
        elif not _has(live, asked.base):
            self._reply(asked.req, LockOutdated(live, self._head))
        else:
            self._grant(asked, live)

    def _grant(self, asked: h.LockAsked, live: Entry | None) -> None:
        counter, ttl_ms = self._facts.counter + 1, _bounded(asked.ttl_ms)
        lock = Lock(
            asked.path, asked.owner, Fence(self._facts.epoch, counter, asked.lock_id), ttl_ms,
            self._now + ttl_ms, live, asked.reason[:REASON_MAX], self._wall_ms,
        )  # fmt: skip
        self._set(counter=counter)
        self._put_lock(lock)
        self._note(
            "lock_granted", f"{shown(lock.path)} is locked for {lock.owner}", path=shown(lock.path),
            owner=str(lock.owner),
        )  # fmt: skip
        self._reply(asked.req, _granted(lock))

    def _denied(self, lock: Lock) -> LockDenied:
        return LockDenied(lock.owner, self._left_ms(lock), lock.since_ms, lock.reason)

    def _reply(self, req: int, answer: LockAnswer) -> None:
        self._out.append(h.ReplyLock(req, answer))


def _has(live: Entry | None, base: Digest) -> bool:
    """Whether the asker has the live file, or knows that there is none. Else its old file would look like an edit."""
    return base == (EMPTY_DIGEST if live is None else live.digest)


def _granted(lock: Lock, *, is_refresh: bool = False) -> LockGranted:
    return LockGranted(lock.fence, lock.ttl_ms, lock.ttl_ms // 2, lock.base, is_refresh)


def _bounded(ttl_ms: int) -> int:
    return min(max(ttl_ms, LOCK_TTL_MIN_MS), LOCK_TTL_MAX_MS)


def _refused_by(trouble: w.Trouble) -> LockRefused:
    return LockRefused(trouble.code, trouble.reason, trouble.hint or "", exit_code=trouble.exit_code)
