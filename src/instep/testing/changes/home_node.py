"""A simulated home: the real ``HomeMachine``, its disk, and a link on which requests come late, twice or never."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from instep.core import vocabulary as w
from instep.core.changes import home_vocabulary as h
from instep.core.changes.home import HomeMachine
from instep.core.changes.home_facts import HomeConfig, Submission
from instep.core.guards.guards import DeletionPolicy
from instep.model.change import LOCK_ID_BYTES, change_set_of
from instep.model.ids import Digest, HeadRef, LineId, NodeName
from instep.model.lock import LockOwner
from instep.model.manifest.entry import Entry
from instep.net.messages import changing as m
from instep.testing.changes.home_disk import HomeDisk
from instep.testing.changes.ledger import ChangeLedger
from instep.testing.changes.options import ChangeOptions
from instep.testing.changes.process import Parcel, SimProcess, trouble
from instep.testing.world.network import Network
from instep.testing.world.world import World

PUBLISH_MS = 400
_REQUESTS = m.LockRequest | m.UnlockRequest | m.BreakRequest | m.SubmitRequest


class SimHome(SimProcess):
    """``on_head`` is called with each generation that the editors may learn of."""

    def __init__(
        self, world: World, net: Network, line: LineId, options: ChangeOptions, editors: tuple[NodeName, ...]
    ) -> None:
        super().__init__(world, net, "main", options)
        self.line = line
        deletions = DeletionPolicy(count=options.max_deletions or None)
        self.config = HomeConfig(NodeName("main"), editors, deletions)
        self.disk = HomeDisk()
        self.disk.deletions = deletions
        self.disk.tick = self.tick
        self.ledger = ChangeLedger(self.disk)
        self.epoch = 1
        self.on_head: Callable[[HeadRef], None] = lambda _: None
        self.make_machine: type[HomeMachine] = HomeMachine
        self.backups: list[tuple[Any, ...]] = []
        self._askers: dict[int, tuple[str, int, bytes]] = {}
        self._asked = 0
        self._changed: list[tuple[bytes, Entry | None]] = []
        """What programs here replaced, to take it back."""

    def began(self) -> None:
        self._askers.clear()
        self.machine = self.make_machine(self.line, self.config, self.rng, self.disk.facts)
        head = self.disk.publish()
        self.post(h.HomeStarted(f"boot {self.boot}", self.epoch, head, len(self.disk.tree)))
        self._publish_again()

    def _publish_again(self) -> None:
        self.later(PUBLISH_MS, self._publish_again)
        if self.machine.phase is None and not self.chance(self.options.held_back):
            self._published()

    def _published(self) -> HeadRef:
        before, head = len(self.disk.published), self.disk.publish()
        if len(self.disk.published) > before:
            self.post(h.HeadMoved(head, len(self.disk.tree)))
        self.on_head(head)
        return head

    # --- effects ----------------------------------------------------------------------------------------------

    def act(self, effect: Any) -> None:
        self.disk.now_ms = self.world.now
        match effect:
            case h.ReplyLock(req, answer):
                asker = self._askers.pop(req, None)
                if asker is not None:
                    self.ledger.replies(effect, asker[2], self.world.now)
                    self.send(asker[0], "answer", asker[1], msgspec.msgpack.encode(m.LockReply(answer)))
            case h.ReplyChange(req, answer):
                self.ledger.answers(answer)
                asker = self._askers.pop(req, None)
                if asker is not None:
                    self.send(asker[0], "answer", asker[1], msgspec.msgpack.encode(m.SubmitReply(answer)))
            case h.ReplyNotTaken(req, reason):
                asker = self._askers.pop(req, None)
                if asker is not None:
                    self.send(asker[0], "refusal", asker[1], msgspec.msgpack.encode(reason))
            case h.TellHolder(ended):
                notice = m.LockNotice(self.line, ended.path, ended.fence, ended.why, ended.by, ended.reason)
                self.send(ended.owner.node, "notice", 0, msgspec.msgpack.encode(notice))
            case h.SaveHome(facts):
                self.disk.perform(effect)
                self.ledger.saves(facts, self.world.now)
            case w.Note() | h.DropOffered():
                pass
            case _:
                self._work(effect)

    def _work(self, effect: Any) -> None:
        """What takes time; the tree is read or changed now, and the answer comes later."""
        fails = self.chance(self.options.work_fails)
        match effect:
            case h.FetchOffered(req):
                is_lost = self.chance(self.options.fetch_fails)
                answer: Any = h.ContentsFailed(req, trouble("cut")) if is_lost else h.ContentsHere(req)
                self._answer(answer, at_most_ms=self.options.ttl_ms)
            case h.ReadLive(req) if fails:
                self._answer(h.LiveReadFailed(req, trouble("io")))
            case h.ApplyChanges(req) if fails:
                self._answer(h.ApplyFailed(req, trouble("disk_full")))
            case h.RecoverChanges(req) if fails:
                self._answer(h.ChangesNotRecovered(req, trouble("io")))
            case h.PublishPaths(req) if self.chance(self.options.held_back):
                self._answer(h.PathsPublished(req, None, "held back"))
            case h.PublishPaths(req):
                self._answer(lambda: h.PathsPublished(req, self._published()))
            case _:
                answer = self.disk.perform(effect)
                if answer is not None:
                    self._answer(answer)

    def _answer(self, answer: Any, at_most_ms: int = 0) -> None:
        delay_ms = self.rng.uniform(0, max(at_most_ms, self.options.job_ms))
        self.later(delay_ms, lambda: self.post(answer() if callable(answer) else answer))

    # --- requests ---------------------------------------------------------------------------------------------

    def got(self, sender: str, parcel: Parcel) -> None:
        request = msgspec.msgpack.decode(parcel.raw, type=_REQUESTS)
        event = self._event_of(NodeName(sender), request)
        path = b"" if isinstance(request, m.SubmitRequest) else request.path
        self._askers[self._asked] = (sender, parcel.number, path)
        self.post(event)

    def _event_of(self, sender: NodeName, request: Any) -> h.HomeEvent:
        self._asked += 1
        req, lock_id = self._asked, self.rng.randbytes(LOCK_ID_BYTES)
        match request:
            case m.LockRequest(_, path, user, client, base, ttl_ms, reason, fence):
                if fence is not None:
                    return h.RefreshAsked(req, sender, path, fence, ttl_ms)
                owner = LockOwner(sender, user, client)
                return h.LockAsked(req, sender, owner, path, Digest(base), ttl_ms, lock_id, reason)
            case m.UnlockRequest(_, path, fence):
                return h.ReleaseAsked(req, sender, path, fence)
            case m.BreakRequest(_, path, user, reason, client, steals, ttl_ms, base):
                owner = LockOwner(sender, user, client)
                return h.BreakAsked(req, sender, owner, path, reason, True, steals, ttl_ms, lock_id, base)
            case m.SubmitRequest(_, raw, _, releases):
                return h.Submitted(req, Submission(sender, change_set_of(raw), releases))
            case _:
                raise AssertionError(request)

    # --- programs and operators here --------------------------------------------------------------------------

    def edit(self, path: bytes, entry: Entry | None) -> None:
        """A program at the home, whether or not the daemon runs."""
        self._changed.append((path, self.disk.tree.get(path)))
        self._replace(path, entry)

    def take_back(self) -> None:
        """A program brings an earlier file back: the very same entry lies there again."""
        if self._changed or self.disk.accepted:
            accepted = ((each.change.path, each.was) for each in self.disk.accepted[-3:])
            path, entry = self.rng.choice([*self._changed[-3:], *accepted])
            self._replace(path, entry)

    def _replace(self, path: bytes, entry: Entry | None) -> None:
        self.world.record(self.name, "!", f"a program {'removes' if entry is None else 'writes'} {path!r}")
        self.disk.edit(path, entry)
        self.later(self.rng.uniform(0, 600), lambda: self.post(h.OwnEdit((path,))))

    def back_up(self) -> None:
        self.backups.append((self.disk.facts, dict(self.disk.kept), dict(self.disk.answers)))

    def restore(self) -> None:
        """The state comes back from an older copy; tree and journal stay."""
        if not self.backups:
            return
        self.crash("its state is restored")
        facts, kept, answers = self.rng.choice(self.backups)
        self.disk.facts, self.disk.kept, self.disk.answers = facts, dict(kept), dict(answers)
        self.ledger.restored(facts, self.world.now, self.now_ms)

    def raise_epoch(self) -> None:
        """The line was given away and came back."""
        self.crash("the line has another epoch")
        self.epoch += 1
