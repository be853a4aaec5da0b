"""The partner's side of a line whose root lies on storage that several nodes mount.

One of them at a time, the holder of the root's lease, stages and switches; each other node waits until the root holds
the generation and its own mount shows it, and then reloads its application. The machine is that of every follower: only
what staging, switching and looking mean is another thing here. Implements ``docs/spec/shared.md``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from itertools import islice
from typing import Any

from msgspec.structs import replace

from instep.core.follow import vocabulary as f
from instep.core.publish import vocabulary as v
from instep.core.vocabulary import HookEnded, HookKind, RunHook
from instep.errors import ContentionError, RefusedError, ResourceError
from instep.model.ids import FilesetName, HeadRef, NodeName
from instep.model.manifest.manifest import diff
from instep.model.paths import shown
from instep.model.rollout import RolloutPolicy, Strategy
from instep.model.standing import Standing
from instep.node.config.filesets import FilesetSettings
from instep.node.following.follower import FollowService
from instep.node.following.shared_root import SharedRootPort
from instep.node.lines.line_net import LineNet
from instep.node.runtime.driver import monotonic_ms
from instep.node.runtime.own_thread import in_own_thread
from instep.node.runtime.runtime import Runtime
from instep.node.trees.scanning.stat_rows import record_rows
from instep.node.trees.tree_comparison import why_differs
from instep.store.cluster.shared_roots import HeldRoot
from instep.tree.journal.journal import Journal
from instep.tree.root.control_folder import opened
from instep.tree.root.node_locks import NodeLocks, other_nodes
from instep.tree.root.place import Place
from instep.tree.switch.former_switch import move_aside

VISIBLE_MS = 120_000
"""Twice the longest time for which a network file system shows old attributes by its usual options."""
AHEAD_MS = 30_000
"""So long a newer head that the root holds already may be on its way to this node."""
LOOK_S, LOOK_S_MAX = 0.1, 2.0
MIND_S = 1.0
RENEW_MS, AWAY_MS = 5_000, 5_000
PATHS_MAX = 10_000
"""Of more changed paths than this the whole tree is looked at instead."""
_SEEN_LOCKS = {True: "seen here", False: "not seen here: run a program that relies on them on one node only"}
log = logging.getLogger(__name__)


_FREE = {"strategy": "auto", "approve": "off", "confirm_within": "off"}
"""Values with which no node waits for a permit."""


def _permits(policy: RolloutPolicy) -> str | None:
    """The key of a rollout for which nodes wait for permits; None where they need none."""
    if policy.strategy in (Strategy.ROLLING, Strategy.CANARY):
        return "strategy"
    if policy.is_approved:
        return "approve"
    return "confirm_within" if policy.confirm_within_ms is not None else None


def require_shareable(name: FilesetName, writer: NodeName, policy: RolloutPolicy, is_secret: bool) -> None:
    """``RefusedError`` for a generation that must not lie in a root that several machines mount: ``shared_rollout``,
    ``shared_secret``."""
    key = _permits(policy)
    if key is not None:
        raise RefusedError(
            f"rollout.{key} of {name} lets nodes in one by one, and on a shared root all see a change at once",
            hint=f"on {writer}: instep fileset set {name} rollout.{key}={_FREE[key]}",
            code="shared_rollout",
            key=key,
        )
    if is_secret:
        raise RefusedError(
            f"{name} is of class secret, and every machine that mounts a shared root could read its keys",
            hint=f"instep fileset remove {name}; then instep fileset accept {name} PATH, on a disk of this machine",
            code="shared_secret",
        )


def require_not_older(name: FilesetName, writer: NodeName, held: HeldRoot, head: HeadRef) -> None:
    """``ResourceError`` ``root_ahead`` where the root holds a later generation than ``head``, the newest one known."""
    if held.head.position > head.position:
        raise ResourceError(
            f"the shared root of {name} holds generation {held.head.number} of {held.node}, and {head.number} is the "
            "newest that this node knows",
            hint=f"see whether the link to {writer} is up: instep status",
            code="root_ahead",
            holds=held.head.number,
        )


class SharedFollowService(FollowService):
    """One per fileset that is followed here on a shared root."""

    def __init__(
        self, runtime: Runtime, fileset: FilesetSettings, net: LineNet, shared: SharedRootPort
    ) -> None:
        self.shared = shared
        super().__init__(runtime, fileset, net)
        self.tree.guard = shared.guard
        self.tree.clock_ahead_ms = lambda: self._locks.clock_ahead_ms
        self._laid: HeadRef | None = None
        """The generation that this node itself laid last, until that is recorded."""
        self._locks = NodeLocks(fileset.path, fileset.name, runtime.name)
        self._renewing: asyncio.Future[None] | None = None
        self._renew_at_ms = 0
        self._away_since_ms: int | None = None
        self._readied = 0
        """The grant of the lease for which the control folder was looked at."""

    def config(self) -> f.FollowConfig:
        """No permit is waited for: all nodes see the files at once, whichever of them may reload."""
        return replace(super().config(), knows_orders=False)

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            self.shared.wants(lease=False)
            if self._renewing is None or self._renewing.done():
                self._locks.close()

    def _works(self) -> tuple[Coroutine[Any, Any, None], ...]:
        return (*super()._works(), self.shared.run(), self._mind())

    async def _mind(self) -> None:
        """Want the lease while the root can be seen; take up what others saw, and look at the tree after each grant."""
        seen = 0
        while True:
            changed = self.shared.changed
            self.shared.wants(lease=self.root.trouble is None)
            self._note_agreement()
            self._hold_locks()
            if self.shared.may_write:
                if self.shared.grants != seen:
                    seen = self.shared.grants
                    text = f"{self.runtime.name} lays the generations of {self.fileset.name} on the shared root now"
                    self.runtime.note("shared_root_taken", text, self.line)
                    self.driver.post(f.TreeTouched((), True))
                paths = self.shared.take_touched()
                if paths:
                    self.driver.post(f.TreeTouched(() if b"" in paths else paths, b"" in paths))
            try:
                async with asyncio.timeout(MIND_S):
                    await changed.wait()
            except TimeoutError:
                continue

    def _note_agreement(self) -> None:
        """Since when the nodes cannot agree; what failed for that is begun again once they can."""
        if self.shared.trouble is None:
            if self._away_since_ms is not None and monotonic_ms() - self._away_since_ms >= AWAY_MS:
                self.driver.post(f.RetryAsked())
            self._away_since_ms = None
        elif self._away_since_ms is None:
            self._away_since_ms = monotonic_ms()

    def _require_agreement(self) -> None:
        """``ResourceError`` with the trouble of the cluster's database, when that has lasted."""
        trouble, since = self.shared.trouble, self._away_since_ms
        if trouble is None or since is None or monotonic_ms() - since < AWAY_MS:
            return
        raise ResourceError(
            f"no node lays generations on the shared root of {self.fileset.name}: {trouble.reason}",
            hint=trouble.hint,
            code=trouble.code,
        )

    async def _report(self, told: f.FollowReport | v.PublishReport) -> None:
        """Name the node that is waited for."""
        is_waiting = isinstance(told, f.FollowReport) and told.standing is Standing.APPLYING
        if is_waiting and self.shared.holder not in ("", self.runtime.name):
            told = replace(
                told, reason=f"{told.reason}; {self.shared.holder} lays generations on the shared root"
            )
        await super()._report(told)

    def _hold_locks(self) -> None:
        """Renew this node's locks in a thread of their own, which a file system that hangs keeps: one at a time."""
        if self._renewing is not None and not self._renewing.done():
            return
        if self._renewing is not None and (error := self._renewing.exception()) is not None:
            log.info("%s: the locks of this node are not held: %s", self.line, error)
        if self.root.trouble is not None:
            self._locks.close()
            self._renewing = None
        elif monotonic_ms() >= self._renew_at_ms:
            self._renew_at_ms = monotonic_ms() + RENEW_MS
            self._renewing = in_own_thread(self._locks.renew)

    def own_rows(self, place: Place) -> tuple[tuple[str, bool, str, str], ...]:
        """What the mounts of the nodes share, by files of each of them in the root."""
        name, rows = self.fileset.name, []
        ahead_s = self._locks.clock_ahead_ms / 1000
        rows.append((f"clock of the storage of {name}", True, "this machine's clock", f"{ahead_s:+.1f} s"))
        for other in other_nodes(place.root, name, self.runtime.name):
            if not other.is_seen:
                words = f"its file in {place.root}/.instep/locks is old: {other.name} does not run, or is not seen here"
                rows.append((f"storage of {name} with {other.name}", True, str(place.root), words))
                continue
            for kind, is_shared in (("fcntl", other.fcntl), ("flock", other.flock)):
                said = "refused by this file system" if is_shared is None else _SEEN_LOCKS[is_shared]
                rows.append((f"{kind} locks of {other.name} in {name}", True, "asked for the same", said))
        return tuple(rows)

    def _is_ours(self, base: HeadRef) -> bool:
        """Whether this node may change the tree, which holds ``base`` and nothing newer."""
        held = self.shared.held
        return self.shared.may_write and held is not None and held.head == base

    def _is_there(self, head: HeadRef) -> bool:
        """Whether the root holds all of ``head``, by the record."""
        held = self.shared.held
        return held is not None and held.is_whole and held.head == head

    # Effects ----------------------------------------------------------------------------------------------------

    async def _recover(self, req: int) -> f.FollowEvent:
        """A switch that this node left unfinished is finished under the lease only, and only where no other node wrote
        since."""
        if not self.shared.may_write:
            await self.around.settle()
            return f.RecoveryEnded(req, f.RecoveryKind.NOTHING)
        await self._ready()
        async with self.shared.writing():
            return await super()._recover(req)

    async def _ready(self) -> None:
        """Once a grant, before the first write: a journal from before another node wrote here says nothing any more."""
        if self._readied == self.shared.grants:
            return
        held = self.shared.held
        if held is None or held.node != self.runtime.name:
            aside = await self.worker.run(self._set_aside)
            if aside is not None:
                text = f"a switch that was begun here is another node's by now; what it held is in {aside}"
                self.runtime.note("journal_set_aside", text, self.line, path=aside)
        self._readied = self.shared.grants

    def _set_aside(self) -> str | None:
        """Move an unfinished journal and its stage out of the way; where to, None where there is none."""
        with opened(self.tree.place()) as place:
            journal = Journal.load(place)
            if journal is None:
                return None
            if journal.is_switched:
                record_rows(self.tree.store, place)
                return None
            return str(move_aside(place, journal))

    async def _fetch(self, effect: f.FetchPages) -> f.FollowEvent:
        answer = await super()._fetch(effect)
        if isinstance(answer, f.PagesFetched):
            require_shareable(
                self.fileset.name, self.writer, answer.policy, self.tree.definition(effect.head).is_secret
            )
        return answer

    async def _stage(self, effect: f.StageContents) -> f.FollowEvent:
        """The holder stages. The others wait until the root holds the generation; a newer head ends the wait. No node
        waits long below what the root holds: ``root_ahead``."""
        deadline = monotonic_ms() + AHEAD_MS
        while True:
            changed, held = self.shared.changed, self.shared.held
            if self._is_there(effect.head):
                await self._see(effect.head)
                return f.Staged(effect.req)
            if self.shared.may_write and (held is None or held.head.position <= effect.head.position):
                await self._ready()
                is_known = held is not None and held.is_whole and held.head == effect.base
                return await super()._stage(effect if is_known else replace(effect, base=None))
            self._require_agreement()
            if held is not None and monotonic_ms() >= deadline:
                require_not_older(self.fileset.name, self.writer, held, effect.head)
            with suppress(TimeoutError):
                async with asyncio.timeout(MIND_S):
                    await changed.wait()

    async def _hook(self, effect: RunHook) -> f.FollowEvent:
        """A generation that another node staged was validated there."""
        if effect.kind is HookKind.VALIDATE and self.applying.staged_path() is None:
            return HookEnded(effect.req, effect.kind, None)
        return await super()._hook(effect)

    async def _switch(self, effect: f.Switch) -> f.FollowEvent:
        if self._is_there(effect.head):
            await self._see(effect.head)
            return f.TreeSwitched(effect.req)
        async with self.shared.writing():
            await self.shared.record(effect.head, is_whole=False)
            self._laid = effect.head
            return await super()._switch(effect)

    async def _record(self, effect: f.RecordLive) -> f.FollowEvent:
        if self._laid != effect.head:
            self._save(replace(self.facts, due=f.Due.NOTHING))
            return f.LiveRecorded(effect.req)
        answer = await super()._record(effect)
        try:
            await self.shared.record(effect.head, is_whole=True)
        except ContentionError as error:  # the next holder looks at the tree, and records it
            self.runtime.note("shared_root_lost", error.reason, self.line, code=error.error_code)
        self._laid = None
        return answer

    async def _put_back(self, effect: f.PutBack) -> f.FollowEvent:
        if not self._is_ours(effect.base):
            raise ResourceError(
                f"generation {effect.base.number} fails here, and lies on a root that other nodes serve as well",
                hint=f"repair the cause, then: instep retry {self.fileset.name}; or for all, on {self.writer}: "
                f"instep rollback {self.fileset.name} {effect.head.number}",
                code="root_is_shared",
                holder=self.shared.holder or None,
            )
        async with self.shared.writing():
            await self.shared.record(effect.head, is_whole=False)
            done = await super()._put_back(effect)
            await self.shared.record(effect.head, is_whole=True)
            return done

    async def _drift(self, effect: f.CheckDrift) -> f.FollowEvent:
        """The holder restores what differs. The others report to it the paths that were written to on their node."""
        if not self._is_ours(effect.base):
            self.tree.touched.pop(effect.paths)
            if effect.paths and self._is_there(effect.base):
                await self.shared.tell_touched(effect.paths)
            return f.DriftChecked(effect.req, (), 0)
        await self._ready()
        found = await super()._drift(effect)
        is_clean = isinstance(found, f.DriftChecked) and not found.total
        if is_clean and not effect.paths and not self._is_there(effect.base) and self._is_ours(effect.base):
            await self.shared.record(effect.base, is_whole=True)
        return found

    async def _revert(self, effect: f.Revert) -> f.FollowEvent:
        was_whole = self._is_there(effect.base)
        async with self.shared.writing():
            await self.shared.record(effect.base, is_whole=False)
            reverted = await super()._revert(effect)
            if was_whole:
                await self.shared.record(effect.base, is_whole=True)
            return reverted

    # Seeing -----------------------------------------------------------------------------------------------------

    async def _see(self, head: HeadRef) -> None:
        """Return once this node's mount shows ``head``. ``ResourceError`` ``not_visible`` when it does not in time."""
        base, deadline, pause_s = self.facts.tree, monotonic_ms() + VISIBLE_MS, LOOK_S
        while (found := await self.worker.run(self._unseen, base, head)) is not None:
            if not self._is_there(head):
                return  # the root goes on to another generation, and the machine hears of that one
            if monotonic_ms() >= deadline:
                path, why = found
                raise ResourceError(
                    f"the root holds generation {head.number}, and the mount of this node still shows something else: "
                    f"{shown(path)} ({why})",
                    hint="look at the mount and its file server: instep check",
                    code="not_visible",
                    path=shown(path),
                )
            await asyncio.sleep(pause_s)
            pause_s = min(LOOK_S_MAX, pause_s * 2)

    def _unseen(self, base: HeadRef | None, head: HeadRef) -> tuple[bytes, str] | None:
        """The first changed path that does not show as in ``head``, and how it differs. Contents are read."""
        tree, comparison = self.tree, self.tree.comparison(head)
        changed: list[bytes] | None = None
        if base is not None:
            steps = diff(base.root, head.root, tree.get_page)
            changed = [change.path for change in islice(steps, PATHS_MAX + 1)]
        if changed is None or len(changed) > PATHS_MAX:
            differing = comparison.everything(head.root, tree.now_ms())
            changed = None
        else:
            differing = comparison.some(head.root, (), tree.now_ms(), alone=changed)
        for difference in differing:
            if difference.expected is not None or changed is not None:
                return difference.path, why_differs(difference)
        return None
