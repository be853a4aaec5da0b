"""Edits of paths whose kind a sync profile locks at this home: found as they are published, named, and put back where
the profile says so.

A change set of the home that carries the profile's runs out is no edit: what it brought is what counts. All else that
changes such a path is one, also an offer of a mirror or a rollback. An edit is over when the path is again as it was.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

import msgspec
from msgspec.structs import replace

from instep.api.looking import LineDocument
from instep.core.changes.home_facts import ApplyingSet, Submission
from instep.errors import InstepError
from instep.model.change import (
    CHANGE_SET_VERSION,
    NONCE_BYTES,
    ChangeAnswer,
    ChangeSet,
    PathChange,
    is_same_file,
)
from instep.model.counts import counted
from instep.model.definition import Definition
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.manifest.diff import diff
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.walk import Reader
from instep.model.paths import shown
from instep.model.standing import Standing
from instep.model.sync import LockedEdit, ProfileNews
from instep.net.transfer import TransferAnswer
from instep.node.profiles.known_profiles import profiles_at
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime
from instep.node.trees.fileset_tree import FilesetTree
from instep.tree.scan.rules import Rules

EDITS_MAX = 10_000
"""More edits than these are not kept; the next run puts them back all the same."""
NAMED_MAX = 10
LOCKED_EDIT = "locked_edit"
_LOCKED = "sync/locked/"
_CACHED = 1 << 14
_LockOf = Callable[[bytes], tuple[str, str, bool] | None]
_Submit = Callable[[NodeName, ChangeSet, AsyncIterator[list[TransferAnswer]]], Awaitable[ChangeAnswer]]
log = logging.getLogger(__name__)


class LockedFacts(msgspec.Struct, frozen=True, array_like=True):
    """The edits that are not over, in the order of paths, up to a head."""

    head: HeadRef
    edits: tuple[LockedEdit, ...] = ()


class LockedPaths:
    """One per home. ``submit`` is its own way in for changes, ``submission_of`` finds one that is being made."""

    def __init__(
        self,
        runtime: Runtime,
        tree: FilesetTree,
        submit: _Submit,
        submission_of: Callable[[Digest], Submission | None],
    ) -> None:
        self._runtime = runtime
        self._tree = tree
        self._submit = submit
        self._submission_of = submission_of
        self._expected: dict[bytes, Entry | None] = {}
        """What change sets brought since the last head."""
        self._known: tuple[tuple[ProfileNews, ...], _LockOf] | None = None
        self._putting_back: set[asyncio.Task[None]] = set()

    def edits(self) -> tuple[LockedEdit, ...]:
        facts = self._facts()
        return facts.edits if facts is not None else ()

    async def begin(self, head: HeadRef | None, applying: ApplyingSet | None) -> None:
        """Take in what happened before a restart."""
        if applying is not None:
            self.expects(applying.id)
        if head is not None:
            await self.committed(head)

    async def close(self) -> None:
        for task in self._putting_back:
            task.cancel()
        await asyncio.gather(*self._putting_back, return_exceptions=True)

    def expects(self, change_id: Digest) -> None:
        """A change set is made in the tree."""
        submission = self._submission_of(change_id)
        if submission is None or not self._is_any_locked():
            return
        carriers = {each.carrier for each in self._profiles()}
        if submission.source in carriers or submission.source == self._runtime.name:
            self._expected |= {change.path: change.new for change in submission.change_set.changes}

    async def committed(self, head: HeadRef) -> None:
        """The line has a new head."""
        if not self._is_any_locked():
            self._expected.clear()
            if self._facts() is not None:
                self._tree.store.delete(self._key)
            return
        back = await self._tree.worker.run(self._look, head)
        if back:
            task = asyncio.get_running_loop().create_task(self._put_back(back, head))
            self._putting_back.add(task)
            task.add_done_callback(self._putting_back.discard)

    # --- looking ------------------------------------------------------------------------------------------------

    def _look(self, head: HeadRef) -> tuple[LockedEdit, ...]:
        """Compare the head with the one before; the edits that are to be put back now."""
        expected, self._expected = self._expected, {}
        facts, lock_of, rules = self._facts(), self._lock_of(), Rules(self._tree.definition(head))
        if facts is None or facts.head == head:
            self._save(LockedFacts(head, facts.edits if facts is not None else ()))
            return ()
        known = {edit.path: edit for edit in facts.edits if lock_of(edit.path) is not None}
        new = []
        for path, old, now in self._changed(facts.head.root, head.root):
            lock = lock_of(path)
            if lock is None or rules.ignored(path, False):
                continue  # Ignored here since then, it is no edit.
            edit = known.pop(path, None)
            reference = edit.reference if edit is not None else old
            is_brought = path in expected and is_same_file(expected[path], now)
            if is_brought or is_same_file(reference, now):
                continue
            if edit is None:
                edit = LockedEdit(path, lock[0], lock[1], wall_ms(), old)
                new.append(edit)
            if len(known) < EDITS_MAX:
                known[path] = edit
        self._save(LockedFacts(head, tuple(sorted(known.values(), key=lambda edit: edit.path))))
        self._name(new)
        return tuple(edit for edit in new if (lock_of(edit.path) or ("", "", False))[2])

    def _changed(self, before: Digest, now: Digest) -> Iterator[tuple[bytes, Entry | None, Entry | None]]:
        """The files and links that differ. A head from long ago, whose pages are gone, is not compared with."""
        try:
            for change in diff(before, now, self._tree.get_page):
                if Kind.DIR not in (each.kind for each in (change.old, change.new) if each is not None):
                    yield change.path, change.old, change.new
        except KeyError:
            log.warning("%s: edits of locked paths before this head are not known", self._tree.line)

    def _name(self, new: Sequence[LockedEdit]) -> None:
        for edit in new[:NAMED_MAX]:
            path = shown(edit.path)
            text = f"{path} was changed here, where the sync profile {edit.profile} locks it"
            facts = {"path": path, "profile": edit.profile, "edits": len(new)}
            self._runtime.note(LOCKED_EDIT, text, self._tree.line, **facts)

    # --- putting back -------------------------------------------------------------------------------------------

    async def _put_back(self, edits: Sequence[LockedEdit], head: HeadRef) -> None:
        """As any change from elsewhere: only where the path still is what was published; it goes to the archive."""
        reader = Reader(self._tree.get_page)
        changes = tuple(
            PathChange(edit.path, reader.lookup(head.root, edit.path), edit.reference) for edit in edits
        )
        change_set = ChangeSet(
            CHANGE_SET_VERSION,
            self._tree.line.fileset,
            self._tree.line.origin,
            secrets.token_bytes(NONCE_BYTES),
            f"lock of {edits[0].profile}",
            "edits of locked paths are put back",
            wall_ms(),
            changes,
        )
        try:
            answer = await self._submit(self._runtime.name, change_set, _no_contents())
            left = [
                outcome.reason or outcome.kind.value for outcome in answer.outcomes if not outcome.is_made
            ]
            reason = f"{counted(len(left), 'edit')} of locked paths stayed: {left[0]}" if left else ""
        except InstepError as error:
            reason = f"edits of locked paths stayed: {error.reason}"
        if reason:
            self._runtime.note("lock_not_enforced", reason, self._tree.line, profile=edits[0].profile)

    # --- what is known ------------------------------------------------------------------------------------------

    def _facts(self) -> LockedFacts | None:
        raw = self._tree.store.get(self._key)
        return msgspec.msgpack.decode(raw, type=LockedFacts) if raw is not None else None

    def _save(self, facts: LockedFacts) -> None:
        self._tree.store.put(self._key, msgspec.msgpack.encode(facts))

    def _profiles(self) -> tuple[ProfileNews, ...]:
        return profiles_at(self._tree.store, self._runtime.settings, self._tree.name)

    def _is_any_locked(self) -> bool:
        return any(kind.is_locked for each in self._profiles() for kind in each.kinds)

    def _lock_of(self) -> _LockOf:
        """Profile, kind, and whether it is put back, of a path that a profile locks here: its first kind counts."""
        profiles = self._profiles()
        if self._known is None or self._known[0] != profiles:
            self._known = (profiles, _locks(profiles))
        return self._known[1]

    @property
    def _key(self) -> str:
        return f"{_LOCKED}{self._tree.name}"


def _locks(profiles: tuple[ProfileNews, ...]) -> _LockOf:
    compiled = [
        (each.name, [(Rules(Definition(ignore=kind.paths)), kind) for kind in each.kinds])
        for each in profiles
    ]

    @functools.lru_cache(_CACHED)
    def lock_of(path: bytes) -> tuple[str, str, bool] | None:
        for name, kinds in compiled:
            found = (k for rules, k in kinds if rules.ignored(path, False) or rules.ignored(path, True))
            first = next(found, None)
            if first is not None and first.is_locked:
                return name, first.name, first.is_reverted
        return None

    return lock_of


async def _no_contents() -> AsyncIterator[list[TransferAnswer]]:
    """All of them are in this home's history."""
    for _ in ():
        yield []


def with_locked_edits(line: LineDocument, edits: Sequence[LockedEdit]) -> LineDocument:
    """The line as ``status`` shows it: drifted from the other side of the profile, which the machines do not know."""
    if not edits:
        return line
    first, more = edits[0], len(edits) - 1
    others = f" and {counted(more, 'other path')}" if more else ""
    where = f"changed here, where {first.profile} locks {first.kind}"
    why = f"{shown(first.path)}{others} {where}: the next run puts back what the other side has"
    if line.standing != Standing.IN_STEP.value:
        return replace(line, reason=why if line.reason is None else f"{line.reason}; also: {why}")
    steps = (f"instep sync show {first.profile}", *line.next)
    return replace(line, standing=Standing.DRIFTED.value, code=LOCKED_EDIT, reason=why, next=steps)
