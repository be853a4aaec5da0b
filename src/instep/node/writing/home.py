"""The home's side of a line: performs the effects of its ``HomeMachine``, and answers partners and local programs.

Contents that come with changes are received beside the tree; the tree itself is changed in its worker thread only.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar, assert_never

import msgspec

from instep.core.changes import home_vocabulary as h
from instep.core.changes.home import HomeMachine
from instep.core.changes.home_facts import REMEMBERED_MS, HomeConfig, HomeFacts, Submission
from instep.core.publish import restore_vocabulary as s
from instep.core.publish import vocabulary as v
from instep.core.publish.machine import PublishMachine
from instep.core.vocabulary import Note, SetTimer, TimerFired, Trouble, error_of, trouble_of
from instep.errors import InstepError, PeerError, UnavailableError
from instep.model.change import LOCK_ID_BYTES, ChangeAnswer, ChangeSet, Fence, PathOutcome, wanted_contents
from instep.model.ids import Digest, HeadRef, LineId, NodeName
from instep.model.lock import LOCK_TTL_DEFAULT_MS, LockAnswer, LockGone, LockOwner, LockView
from instep.net.messages import messages as m
from instep.net.transfer import TransferAnswer
from instep.node.lines.line_net import LineNet
from instep.node.profiles.answered_sets import answer_to
from instep.node.profiles.locked_paths import LockedPaths
from instep.node.runtime.boot import boot_id
from instep.node.runtime.driver import Driver, monotonic_ms, wall_ms
from instep.node.runtime.requests import Requests
from instep.node.runtime.runtime import Runtime, Worker
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.writing.change_applier import ChangeApplier
from instep.node.writing.change_outcomes import kept_raw, submission_of
from instep.node.writing.home_drain import HomeDrain
from instep.node.writing.offered_contents import OfferedContents, clear_offered, missing_here
from instep.node.writing.publish_config import deletions_of, loss_guard
from instep.store.port import ChangeSide
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.place import Place

HOME_SAVED = register("home.saved")
CHANGE_KEPT = register("home.change_kept")
ANSWER_KEPT = register("home.answer_kept")
APPLIED = register("home.applied")

LOCK_S = 30.0
SUBMIT_S = 3_600.0
PUBLISH_S = 600.0

R = TypeVar("R")
Ask = Callable[[Callable[[int], v.PublishAsked], float], Awaitable[v.Outcome]]
_Reply = h.ReplyLock | h.ReplyChange | h.ReplyNotTaken
_Arriving = tuple[AsyncIterator[list[TransferAnswer]], Sequence[tuple[Digest, int]]]


class HomeService:
    """One per line that is written here. ``publish`` asks the line's ``publisher``, ``touched`` posts to it."""

    def __init__(
        self,
        runtime: Runtime,
        tree: FilesetTree,
        net: LineNet,
        head: Callable[[], HeadRef | None],
        publisher: PublishMachine,
        publish: Ask,
        touched: Callable[[v.TreeChanged], None],
    ) -> None:
        self._runtime = runtime
        self._tree = tree
        self._net = net
        self._head = head
        self._ask_publish = publish
        self._touched = touched
        self.moving = asyncio.Lock()
        """Held by the restore or the change from elsewhere that switches the tree."""
        self._worker = Worker(f"offered-{tree.name}")
        self.applier = ChangeApplier(tree, head, partial(loss_guard, tree, publisher))
        self.drain = HomeDrain(runtime, tree, net, head)
        self.locked = LockedPaths(runtime, tree, self.submit, partial(submission_of, runtime.store))
        self.locked_edits = self.locked.edits
        self._arriving: dict[Digest, _Arriving] = {}
        self._is_cleared = False
        self._told_head: HeadRef | None = None
        machine = HomeMachine(tree.line, self._config(), random.Random(), self._saved_facts())
        self.machine = machine
        self.driver: Driver[h.HomeEvent, h.HomeEffect] = Driver(
            f"home {tree.line}", machine, self._perform, TimerFired, runtime.directory.records
        )
        self._requests: Requests[h.HomeEvent, _Reply] = Requests(self.driver.post)

    @property
    def line(self) -> LineId:
        return self._tree.line

    def _config(self) -> HomeConfig:
        fileset = self._tree.fileset
        taken_from = fileset.changes_from(self._runtime.settings.partners)
        return HomeConfig(self._runtime.name, taken_from, deletions_of(fileset))

    def _saved_facts(self) -> HomeFacts | None:
        raw = self._runtime.store.load_changes(self.line, ChangeSide.HOME)
        return msgspec.msgpack.decode(raw, type=HomeFacts) if raw is not None else None

    async def run(self, epoch: int) -> None:
        """Own the machine until cancelled."""
        if self.machine.facts.applying is None:
            self.drain.end()
        head = self._told_head = self._head()
        await self.locked.begin(head, self.machine.facts.applying)
        self.driver.begin(h.HomeStarted(boot_id(), epoch, head, self._entries_of(head)))
        await self.driver.run()

    async def close(self) -> None:
        """Behind ``run``: requests that wait end with the reason."""
        self._requests.close(lambda: UnavailableError("this line ends here", code="not_connected"))
        await self.locked.close()
        await asyncio.to_thread(self._worker.close)

    def reconfigure(self) -> None:
        self.driver.post(h.HomeConfigChanged(self._config()))

    def head_moved(self) -> None:
        """The line's head may be another one now."""
        head = self._head()
        if head is not None and head != self._told_head:
            self._told_head = head
            self.driver.post(h.HeadMoved(head, self._entries_of(head)))

    def own_edits(self, paths: Sequence[bytes]) -> None:
        """A scan found these paths changed."""
        locked = {lock.path for lock in self.machine.facts.locks}
        hit = tuple(path for path in paths if path in locked)
        if hit:
            self.driver.post(h.OwnEdit(hit))

    def saved(self, facts: v.PublishFacts) -> None:
        """The facts of the line are durable: another head, or another writer."""
        current = facts.epochs.current
        if current is not None and current.writer != self._runtime.name:
            self.driver.post(h.HomeLost(current.epoch, current.writer))
        self.head_moved()

    async def alone(self, work: Coroutine[Any, Any, R]) -> R:
        """Work that switches the tree, with no other such work beside it."""
        try:
            async with self.moving:
                return await work
        finally:
            work.close()

    async def recover(self, req: int) -> s.TreeRecovered:
        """Bring the tree to all old or all new, before it is looked at."""
        async with self.moving:
            await self._tree.worker.run(self.applier.finish_switch)
        await self._clear(await self._tree.worker.run(self._tree.place))
        return s.TreeRecovered(req)

    async def _clear(self, place: Place) -> None:
        """Once, and before the first contents come: contents from before a restart come again."""
        if not self._is_cleared:
            self._is_cleared = True
            await self._worker.run(clear_offered, place)

    def _entries_of(self, head: HeadRef | None) -> int:
        signed = self._runtime.store.generation(head.id) if head is not None else None
        return signed.body().entries if signed is not None else 0

    # --- what partners and local programs ask -------------------------------------------------------------------------

    async def lock(self, source: NodeName, request: m.LockRequest) -> LockAnswer:
        """As ``LineHome``."""
        if request.fence is not None:
            fence, ttl_ms = request.fence, request.ttl_ms or None
            return await self._about_lock(
                lambda req: h.RefreshAsked(req, source, request.path, fence, ttl_ms)
            )
        owner = LockOwner(source, request.user, request.client)
        lock_id, ttl_ms = secrets.token_bytes(LOCK_ID_BYTES), request.ttl_ms or LOCK_TTL_DEFAULT_MS
        return await self._about_lock(
            lambda req: h.LockAsked(
                req, source, owner, request.path, request.base, ttl_ms, lock_id, request.reason
            )
        )

    async def unlock(self, source: NodeName, request: m.UnlockRequest) -> LockAnswer:
        return await self._about_lock(lambda req: h.ReleaseAsked(req, source, request.path, request.fence))

    async def break_lock(
        self, source: NodeName, request: m.BreakRequest, *, is_operator: bool = False
    ) -> LockAnswer:
        by = LockOwner(source, request.user, request.client)
        ttl_ms = request.ttl_ms or LOCK_TTL_DEFAULT_MS
        lock_id = secrets.token_bytes(LOCK_ID_BYTES)
        base = None if source == self._runtime.name else request.base
        return await self._about_lock(
            lambda req: h.BreakAsked(
                req,
                source,
                by,
                request.path,
                request.reason,
                is_operator,
                request.steals,
                ttl_ms,
                lock_id,
                base,
            )
        )

    async def _about_lock(self, make: Callable[[int], h.HomeEvent]) -> LockAnswer:
        await self.driver.hurry()
        reply = await self._requests.ask(make, LOCK_S)
        if isinstance(reply, h.ReplyNotTaken):
            raise error_of(reply.trouble)
        assert isinstance(reply, h.ReplyLock)
        return reply.answer

    def locks(self) -> tuple[LockView, ...]:
        now = monotonic_ms()
        return tuple(
            LockView(x.path, x.owner, x.fence, max(0, x.deadline_ms - now), x.ttl_ms, x.since_ms, x.reason)
            for x in self.machine.facts.locks
        )

    def how_ended(self, path: bytes, owner: LockOwner, fence: Fence | None) -> LockGone | None:
        return self.machine.facts.how_ended(path, owner, fence)

    async def publish_own(
        self, path: bytes, fence: Fence, author: str, message: str
    ) -> h.PathsPublished | None:
        """As ``LineHome``. An edit that cannot be published now is live here all the same."""
        live = (await self._tree.worker.run(self.applier.read_live, (path,)))[0].entry
        if not self.machine.facts.is_edited_under(fence, live):
            return None
        try:
            return await self._publish(h.PublishPaths(0, (path,), author, message))
        except InstepError as error:
            return h.PathsPublished(0, None, error.reason)

    async def withheld(self) -> int:
        head = self._head()
        return await self._tree.worker.run(self.applier.losses.waiting, head) if head is not None else 0

    async def missing(self, contents: Sequence[tuple[Digest, int]]) -> tuple[int, ...]:
        return await self._tree.worker.run(missing_here, self._tree, contents)

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
        """As ``LineHome``. A caller that is cancelled takes its change set back, if nothing was decided yet."""
        await self.driver.hurry()
        wanted = set(wanted_contents(change_set))
        if len(set(sizes)) != len(sizes) or not wanted.issuperset(sizes):
            raise PeerError("the contents that come are not those of the change set", code="bad_change_set")
        change_id, number = change_set.id, 0

        def submitted(req: int) -> h.HomeEvent:
            nonlocal number
            number = req
            return h.Submitted(req, Submission(source, change_set, releases, accepts_deletions))

        is_first = self._arriving.setdefault(change_id, (contents, sizes))[0] is contents
        try:
            reply = await self._requests.ask(submitted, SUBMIT_S)
        except (TimeoutError, asyncio.CancelledError):
            self.driver.post(h.SubmitterGone(number))
            raise
        finally:
            if is_first:
                del self._arriving[change_id]
        if isinstance(reply, h.ReplyNotTaken):
            raise error_of(reply.trouble)
        assert isinstance(reply, h.ReplyChange)
        return reply.answer

    # --- effects ----------------------------------------------------------------------------------------------------

    async def _perform(self, effect: h.HomeEffect) -> None:
        store = self._runtime.store
        match effect:
            case h.SaveHome(facts):
                store.save_changes(self.line, ChangeSide.HOME, msgspec.msgpack.encode(facts))
                if facts.applying is None:
                    self.drain.end()
                failpoint(HOME_SAVED)
            case h.LookUp(req, change_id, source):
                kept = (0, 0) if source is None else store.changes_of(self.line, source)
                self.driver.post(h.LookedUp(req, answer_to(store, change_id), *kept))
            case h.KeepChange(change_id, given, decided):
                store.keep_change(self.line, change_id, kept_raw(given, decided), wall_ms(), given.source)
                failpoint(CHANGE_KEPT)
            case h.KeepAnswer(answer, source):
                await self._keep_answer(answer, source)
            case h.DropOffered(change_id):
                await self._worker.run(self._drop, change_id)
            case h.ReplyLock(req) | h.ReplyChange(req) | h.ReplyNotTaken(req):
                self._requests.answer(req, effect)
            case h.TellHolder(ended):
                notice = m.LockNotice(self.line, ended.path, ended.fence, ended.why, ended.by, ended.reason)
                self._net.tell_holder(ended.owner.node, notice)
            case Note(what, text, facts):
                plain = {k: x.decode("utf-8", "replace") if isinstance(x, bytes) else x for k, x in facts}
                self._runtime.note(what, text, self.line, **plain)
            case SetTimer(name, at_ms):
                self.driver.set_timer(name, at_ms)
            case _:
                self._begin(effect)

    def _begin(
        self,
        effect: h.FetchOffered | h.ApplyChanges | h.RecoverChanges | h.PublishPaths | h.ReadLive,
    ) -> None:
        """Long work, which ends in one event."""
        spawn, req = self.driver.spawn, effect.req
        match effect:
            case h.FetchOffered():
                spawn(self._fetch(effect), lambda e: h.ContentsFailed(req, trouble_of(e)))
            case h.ApplyChanges():
                spawn(self._apply(effect), lambda e: h.ApplyFailed(req, trouble_of(e)))
            case h.RecoverChanges():
                spawn(self._recover(effect), lambda e: h.ChangesNotRecovered(req, trouble_of(e)))
            case h.PublishPaths():
                spawn(self._publish(effect), lambda e: h.PathsPublished(req, None, trouble_of(e).reason))
            case h.ReadLive():
                spawn(self._read_live(effect), lambda e: h.LiveReadFailed(req, trouble_of(e)))
            case _:
                assert_never(effect)

    async def _keep_answer(self, answer: ChangeAnswer, source: NodeName) -> None:
        store, now = self._runtime.store, wall_ms()
        store.answer_change(self.line, answer.id, msgspec.msgpack.encode(answer), now, source)
        failpoint(ANSWER_KEPT)
        store.delete_changes(self.line, now - REMEMBERED_MS)
        self.applier.forget(answer.id)
        if answer.head is not None:
            self.applier.losses.published()
        await self._worker.run(self._drop, answer.id)

    def _drop(self, change_id: Digest) -> None:
        OfferedContents(self._tree.place(), change_id).drop()

    async def _fetch(self, effect: h.FetchOffered) -> h.HomeEvent:
        place = await self._tree.worker.run(self._tree.place)
        await self._clear(place)
        if (arriving := self._arriving.get(effect.id)) is not None and arriving[1]:
            await OfferedContents(place, effect.id).receive(*arriving, self._worker)
        return h.ContentsHere(effect.req)

    async def _apply(self, effect: h.ApplyChanges) -> h.HomeEvent:
        await self.drain.begin(effect.paths)
        async with self.moving:
            outcomes = await self._tree.worker.run(self._apply_now, effect)
        failpoint(APPLIED)
        return h.ChangesApplied(effect.req, outcomes)

    def _apply_now(self, effect: h.ApplyChanges) -> tuple[PathOutcome, ...]:
        self.locked.expects(effect.id)
        return self.applier.apply(effect, OfferedContents(self._tree.place(), effect.id))

    async def _recover(self, effect: h.RecoverChanges) -> h.HomeEvent:
        async with self.moving:
            return await self._tree.worker.run(self.applier.recovered, effect)

    async def _read_live(self, effect: h.ReadLive) -> h.HomeEvent:
        return h.LiveRead(effect.req, await self._tree.worker.run(self.applier.read_live, effect.paths))

    async def _publish(self, effect: h.PublishPaths) -> h.PathsPublished:
        self._touched(v.TreeChanged(effect.paths))
        if v.PublishMode(self._tree.fileset.publish) is v.PublishMode.MANUAL:
            return h.PathsPublished(effect.req, None, "it is published by hand at the home")
        try:
            outcome = await self._ask_publish(
                lambda number: v.PublishAsked(
                    number, effect.author, effect.message, is_flush=True, accepted=effect.accepted
                ),
                PUBLISH_S,
            )
        except TimeoutError:
            return h.PathsPublished(effect.req, None, "the home publishes it later: it is busy")
        match outcome:
            case v.Published(head) | v.Unchanged(head):
                return h.PathsPublished(effect.req, head)
            case v.NotPublished(Trouble(reason=reason)):
                return h.PathsPublished(effect.req, None, reason)
            case _:
                raise AssertionError(outcome)
